"""Base models: a frozen network from pinned weights, split where training begins. One file per architecture."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from torch import nn

import client.models as _package
from client.embedded import EMBEDDED
from client.models._compute import place
from client.models._net import Compute, Net
from client.models._writer import Writer, Written
from rainhill import plugins, toml
from rainhill.errors import BaseModelError
from rainhill.recipe import BaseSection, LoraSection
from rainhill.weights import PINNED, digest

__all__ = ["Compute", "Net", "Writer", "Written", "digest", "find_weights", "load", "place"]


def load(base: BaseSection, *, lora: LoraSection, outputs: Mapping[str, str], folder: Path) -> Net:
    """The frozen network a recipe names, after its weights were held against the pinned sha256.

    `outputs` maps each output of the task to the base's own output that it starts from; `folder` is where relative paths begin.
    """
    model = plugins.load(_package, base.model, kind="model")
    options = toml.parse(base.options, model, origin=f"[base] model = {base.model!r}")
    weights = find_weights(base.weights, folder)
    got = digest(weights)
    if got != base.sha256:
        raise BaseModelError(f"base model {base.weights}: sha256 is {got}, the recipe pins {base.sha256}")
    try:
        net: Net = options.load(weights, outputs=outputs, last_blocks=lora.last_blocks)
    except SafetensorError as error:
        raise BaseModelError(f"base model {weights}: its safetensors cannot be read ({error})") from error
    net.base_norms = {name: parameter.detach().clone() for name, parameter in _norms(net).items()}
    net.base_head = {name: tensor.clone() for name, tensor in net.head.state_dict(prefix="head.").items()}
    net.requires_grad_(False)
    return net.eval()


def _norms(net: Net) -> dict[str, nn.Parameter]:
    """The weights and biases of every norm in the adaptable parts, by their names in the network."""
    adaptable = {id(module) for part in net.adaptable() for module in part.modules() if is_norm(module)}
    return {
        f"{path}.{name}": parameter
        for path, module in net.named_modules()
        if id(module) in adaptable
        for name, parameter in module.named_parameters(recurse=False)
    }


def is_norm(module: nn.Module) -> bool:
    return isinstance(module, (nn.LayerNorm, nn.GroupNorm)) or is_rms_norm(module)


def is_rms_norm(module: nn.Module) -> bool:
    """By its name: most language models have a class of their own for it. Zhang & Sennrich 2019, arXiv:1910.07467."""
    return type(module).__name__.endswith("RMSNorm")


def find_weights(weights: str, folder: Path) -> Path:
    """A folder on this machine: embedded, local, or in the hub's cache (fetched only where it is not there yet)."""
    if weights.startswith("embedded:"):
        name = weights.removeprefix("embedded:")
        known = sorted(path.name for path in EMBEDDED.iterdir() if path.is_dir())
        if name not in known:
            raise BaseModelError(f"no embedded base model is called {name!r} (there are: {', '.join(known)})")
        return EMBEDDED / name
    try:
        local = folder / Path(weights).expanduser()
    except RuntimeError as error:
        raise BaseModelError(f"base model {weights!r}: there is no such user's home folder") from error
    if local.is_dir():
        return local
    return _from_hub(weights, local)


def _from_hub(repository: str, local: Path) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=list(PINNED)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BaseModelError(
            f"base model {repository!r}: no folder {local}, and the hub does not give it ({type(error).__name__})"
        ) from error
