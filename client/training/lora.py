"""LoRA pairs on a frozen network, read out and loaded as an `Adapter`. Hu et al. 2021, arXiv:2106.09685; layers by PEFT.

A convolution's factors are flattened to two dimensions, so that a rule sees (r, d_in) and (d_out, r) everywhere.
"""

import re
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from client.models import Net
from rainhill.adapter import A_SUFFIX, B_SUFFIX, Adapter, Array, check_shapes
from rainhill.errors import BaseModelError

SHARED = "shared"
PRIVATE = "private"
HEAD = "head."


def matched_modules(net: Net, pattern: str) -> list[str]:
    """Full names of the linear and convolution layers, in the adaptable part, whose last name matches; never an empty list."""
    adaptable = {id(module) for part in net.adaptable() for module in part.modules()}
    layers = [
        name.removesuffix(".base_layer")
        for name, module in net.named_modules()
        if id(module) in adaptable and isinstance(module, nn.Linear | nn.Conv2d) and ".lora_" not in name
    ]
    try:
        matched = [name for name in layers if re.fullmatch(pattern, name.rpartition(".")[2])]
    except re.error as error:
        raise BaseModelError(f"[lora] modules = {pattern!r}: not a regular expression: {error}") from error
    if not matched:
        last = sorted({name.rpartition(".")[2] for name in layers})
        raise BaseModelError(f"[lora] modules = {pattern!r} matches no layer of the base model, which has: {', '.join(last)}")
    return matched


def attach(net: Net, *, name: str, pattern: str, rank: int, alpha: float) -> list[str]:
    """Adds one named set of pairs to the network, all of them untrained; gives the modules that took it."""
    modules = matched_modules(net, pattern)
    settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules, lora_dropout=0.0)
    with warnings.catch_warnings():
        # Two sets of pairs on one network, shared and private, are what is meant.
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute", category=UserWarning)
        inject_adapter_in_model(settings, net, adapter_name=name)
    took = sorted(path for path, layer in _layers(net) if name in layer.lora_A)
    # PEFT skips what it does not find, silently.
    if took != sorted(modules):
        raise BaseModelError(f"LoRA sits on {len(took)} modules, named were {len(modules)}: {sorted(set(modules) ^ set(took))[:3]}")
    activate(net, [name])
    return modules


def activate(net: Net, names: list[str]) -> None:
    """Only these sets of pairs take part in the forward pass; nothing is left trainable."""
    for _, layer in _layers(net):
        layer.set_adapter(names)
    net.requires_grad_(False)


def draw(net: Net, *, name: str, with_head: bool, seed: int) -> Adapter:
    """The adapter before any training: A uniform as PEFT draws it (Kaiming, a = sqrt 5), B zero, so the product is zero."""
    arrays: dict[str, Array] = {}
    for path, layer in sorted(_layers(net)):
        rng = np.random.default_rng([seed, *path.encode()])
        shape_a, shape_b = _matrix_shapes(layer, name)
        bound = 1 / np.sqrt(shape_a[1])
        arrays[path + A_SUFFIX] = rng.uniform(-bound, bound, shape_a).astype(np.float32)
        arrays[path + B_SUFFIX] = np.zeros(shape_b, dtype=np.float32)
    return Adapter(arrays | (read_head(net) if with_head else {}))


def read_adapter(net: Net, *, name: str, with_head: bool) -> Adapter:
    """A copy of the current values of one set of pairs, and of the head with it."""
    arrays = {key: parameter.detach().numpy().reshape(shape) for key, (parameter, shape) in _parameters(net, name).items()}
    return Adapter(arrays | (read_head(net) if with_head else {}))


def write_adapter(net: Net, adapter: Adapter, *, name: str) -> None:
    """Loads pairs, and the head: the adapter's, or the base model's own where the adapter carries none.

    Raises ProtocolError unless names and shapes are the network's own.
    """
    parameters = _parameters(net, name)
    expected: dict[str, tuple[int, ...]] = {key: shape for key, (_, shape) in parameters.items()}
    if any(key in net.base_head for key in adapter):
        expected |= {key: tuple(tensor.shape) for key, tensor in net.base_head.items()}
    check_shapes(adapter, expected)
    with torch.no_grad():
        for key, tensor in net.base_head.items():
            net.get_parameter(key).copy_(tensor)
        for key, array in adapter.items():
            parameter = parameters[key][0] if key in parameters else net.get_parameter(key)
            parameter.copy_(torch.from_numpy(np.array(array)).reshape(parameter.shape))


def trainable(net: Net, *, name: str, with_head: bool) -> dict[str, nn.Parameter]:
    """Adapter name -> the parameter behind it."""
    found = {key: parameter for key, (parameter, _) in _parameters(net, name).items()}
    return found | ({key: parameter for key, parameter in net.named_parameters() if key.startswith(HEAD)} if with_head else {})


def read_head(net: Net) -> dict[str, Array]:
    return {key: np.array(parameter.detach().numpy()) for key, parameter in net.named_parameters() if key.startswith(HEAD)}


def _layers(net: Net) -> Iterator[tuple[str, LoraLayer]]:
    return ((path, module) for path, module in net.named_modules() if isinstance(module, LoraLayer))


def _matrix_shapes(layer: LoraLayer, name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    return (a.shape[0], a[0].numel()), (b.shape[0], b[0].numel())


def _parameters(net: Net, name: str) -> dict[str, tuple[nn.Parameter, tuple[int, int]]]:
    found: dict[str, tuple[nn.Parameter, tuple[int, int]]] = {}
    for path, layer in _layers(net):
        shape_a, shape_b = _matrix_shapes(layer, name)
        found[path + A_SUFFIX] = (layer.lora_A[name].weight, shape_a)
        found[path + B_SUFFIX] = (layer.lora_B[name].weight, shape_b)
    return found
