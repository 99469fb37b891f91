"""LoRA pairs on a frozen network, read out and loaded as an `Adapter`. Hu et al. 2021, arXiv:2106.09685; layers by PEFT.

A convolution's factors are flattened to two dimensions, so that a rule sees (r, d_in) and (d_out, r) everywhere. An adapter of lower rank
than the network's pairs fills their first rows and columns, and zeros fill the rest: their gradients are zero, so they stay.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from client.models import Net
from client.training import extras
from client.training._peft import LoraConfig, LoraLayer, inject_adapter_in_model
from rainhill.adapter import (
    A_SUFFIX,
    B_SUFFIX,
    CORE_SUFFIX,
    RESIDUAL_A_SUFFIX,
    RESIDUAL_B_SUFFIX,
    Adapter,
    Array,
    check_shapes,
    factor,
    padded,
)
from rainhill.errors import BaseModelError

SHARED = "shared"
PRIVATE = "private"
HEAD = "head."
NORM = "norm:"
"""Before the name of a norm's weight or bias in an adapter."""


def matched_modules(net: Net, pattern: str) -> list[str]:
    """Full names of the linear and convolution layers, in the adaptable parts, whose last name matches; some of each group of them."""
    return [name for group, parts in net.groups().items() for name in _matched(net, parts, pattern, f" in its {group}" if group else "")]


def _matched(net: Net, parts: list[nn.Module], pattern: str, where: str) -> list[str]:
    adaptable = {id(module) for part in parts for module in part.modules()}
    present = [
        name.removesuffix(".base_layer")
        for name, module in net.named_modules()
        if id(module) in adaptable and isinstance(module, nn.Linear | nn.Conv2d) and ".lora_" not in name
    ]
    try:
        matched = [name for name in present if re.fullmatch(pattern, name.rpartition(".")[2])]
    except re.error as error:
        raise BaseModelError(f"[lora] modules = {pattern!r}: not a regular expression: {error}") from error
    if not matched:
        last = sorted({name.rpartition(".")[2] for name in present})
        raise BaseModelError(f"[lora] modules = {pattern!r} matches no layer of the base model{where}, which has: {', '.join(last)}")
    return matched


def attach(net: Net, *, name: str, pattern: str, rank: int, alpha: float) -> list[str]:
    """Adds one named set of pairs to the network, all of them untrained; gives the modules that took it."""
    modules = matched_modules(net, pattern)
    settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules, lora_dropout=0.0)
    with warnings.catch_warnings():
        # Two sets of pairs on one network, shared and private, are what is meant.
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute", category=UserWarning)
        inject_adapter_in_model(settings, net, adapter_name=name)
    took = sorted(path for path, layer in layers(net) if name in layer.lora_A)
    # PEFT skips what it does not find, silently.
    if took != sorted(modules):
        raise BaseModelError(f"LoRA sits on {len(took)} modules, named were {len(modules)}: {sorted(set(modules) ^ set(took))[:3]}")
    activate(net, [name])
    return modules


def activate(net: Net, names: list[str]) -> None:
    """Only these sets of pairs take part in the forward pass; nothing is left trainable."""
    for _, layer in layers(net):
        layer.set_adapter(names)
    net.requires_grad_(False)


@contextmanager
def switched_off(net: Net) -> Iterator[None]:
    """The base model as it came, while the block lasts."""
    for _, layer in layers(net):
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for _, layer in layers(net):
            layer.enable_adapters(True)
        # PEFT makes what it switches on trainable.
        net.requires_grad_(False)


def draw(net: Net, *, name: str, with_head: bool, seed: int) -> Adapter:
    """The adapter before any training: A uniform as PEFT draws it (Kaiming, a = sqrt 5), B zero, so the product is zero."""
    arrays: dict[str, Array] = {}
    for path, layer in sorted(layers(net)):
        rng = np.random.default_rng([seed, *path.encode()])
        shape_a, shape_b = _matrix_shapes(layer, name)
        bound = 1 / np.sqrt(shape_a[1])
        arrays[path + A_SUFFIX] = rng.uniform(-bound, bound, shape_a).astype(np.float32)
        arrays[path + B_SUFFIX] = np.zeros(shape_b, dtype=np.float32)
    return Adapter(arrays | (read_head(net) if with_head else {}))


def read_adapter(net: Net, *, name: str, with_head: bool) -> Adapter:
    """A copy of the current values of one set of pairs, and of the head with it."""
    arrays = {key: parameter.detach().cpu().numpy().reshape(shape) for key, (parameter, shape) in _parameters(net, name).items()}
    return Adapter(arrays | (read_head(net) if with_head else {}))


def read_like(net: Net, like: Adapter, *, name: str) -> Adapter:
    """The current values of every tensor of `like`, at its ranks; its residuals, which nothing trains, as they are there."""
    current = dict(read_adapter(net, name=name, with_head=True)) | read_norms(net)
    return Adapter(
        {key: array if factor(key) == "residual" else current[key][tuple(map(slice, array.shape))] for key, array in like.items()}
    )


def write_adapter(net: Net, adapter: Adapter, *, name: str) -> None:
    """Loads pairs, and the head: the adapter's, or the base model's own where the adapter carries none.

    Raises ProtocolError unless names and shapes are the network's own, where a pair may be of lower rank and a residual of any.
    """
    slots = {path: _matrix_shapes(layer, name) for path, layer in layers(net)}
    check_shapes(adapter, _expected(net, adapter, slots))
    residuals = adapter.residuals()
    with torch.no_grad():
        whole = {key: (net.get_parameter(key), tensor) for key, tensor in net.base_head.items()}
        whole |= {NORM + key: (net.get_parameter(key), tensor) for key, tensor in net.base_norms.items()}
        for key, (parameter, tensor) in whole.items():
            parameter.copy_(torch.from_numpy(np.array(adapter[key])) if key in adapter else tensor)
        for path, layer in layers(net):
            for suffix, shape, module in zip((A_SUFFIX, B_SUFFIX), slots[path], (layer.lora_A[name], layer.lora_B[name]), strict=True):
                module.weight.copy_(torch.from_numpy(padded(adapter[path + suffix], shape)).reshape(module.weight.shape))
            extras.set_core(layer.lora_B[name], adapter.get(path + CORE_SUFFIX))
            if name == SHARED:
                extras.set_residual(layer, residuals.get(path), scale=layer.scaling[name])


def write_private(net: Net, adapter: Adapter) -> None:
    """Loads the private pairs and the head, and leaves everything else of the shared adapter as it is."""
    parameters = trainable(net, name=PRIVATE, with_head=True)
    shapes = {key: shape for key, (_, shape) in _parameters(net, PRIVATE).items()}
    check_shapes(adapter, shapes | {key: array.shape for key, array in read_head(net).items()})
    with torch.no_grad():
        for key, array in adapter.items():
            parameters[key].copy_(torch.from_numpy(np.array(array)).reshape(parameters[key].shape))


def _expected(net: Net, adapter: Adapter, slots: Mapping[str, tuple[tuple[int, int], tuple[int, int]]]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    pairs, residuals = adapter.pairs(), adapter.residuals()
    for path, ((slot_rank, d_in), (d_out, _)) in slots.items():
        pair, residual = pairs.get(path), residuals.get(path)
        rank = min(pair.rank, slot_rank) if pair else slot_rank
        shapes |= {path + A_SUFFIX: (rank, d_in), path + B_SUFFIX: (d_out, rank)}
        if path + CORE_SUFFIX in adapter:
            shapes[path + CORE_SUFFIX] = (rank, rank)
        if residual:
            shapes |= {path + RESIDUAL_A_SUFFIX: (residual.rank, d_in), path + RESIDUAL_B_SUFFIX: (d_out, residual.rank)}
    if any(key in net.base_head for key in adapter):
        shapes |= {key: tuple(tensor.shape) for key, tensor in net.base_head.items()}
    if any(key.startswith(NORM) for key in adapter):
        shapes |= {NORM + key: tuple(tensor.shape) for key, tensor in net.base_norms.items()}
    return shapes


def trainable(net: Net, *, name: str, with_head: bool, with_norms: bool = False) -> dict[str, nn.Parameter]:
    """Adapter name -> the parameter behind it."""
    norms = {NORM + key: net.get_parameter(key) for key in net.base_norms} if with_norms else {}
    found = {key: parameter for key, (parameter, _) in _parameters(net, name).items()}
    return found | norms | ({key: parameter for key, parameter in net.named_parameters() if key.startswith(HEAD)} if with_head else {})


def read_norms(net: Net) -> dict[str, Array]:
    return {NORM + key: np.array(net.get_parameter(key).detach().cpu().numpy()) for key in net.base_norms}


def read_head(net: Net) -> dict[str, Array]:
    return {key: np.array(parameter.detach().cpu().numpy()) for key, parameter in net.named_parameters() if key.startswith(HEAD)}


def layers(net: Net) -> Iterator[tuple[str, LoraLayer]]:
    """Full name and layer of every module that took LoRA."""
    return ((path, module) for path, module in net.named_modules() if isinstance(module, LoraLayer))


def _matrix_shapes(layer: LoraLayer, name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    return (a.shape[0], a[0].numel()), (b.shape[0], b[0].numel())


def _parameters(net: Net, name: str) -> dict[str, tuple[nn.Parameter, tuple[int, int]]]:
    found: dict[str, tuple[nn.Parameter, tuple[int, int]]] = {}
    for path, layer in layers(net):
        shape_a, shape_b = _matrix_shapes(layer, name)
        found[path + A_SUFFIX] = (layer.lora_A[name].weight, shape_a)
        found[path + B_SUFFIX] = (layer.lora_B[name].weight, shape_b)
        core = extras.core_of(layer.lora_B[name])
        if core is not None:
            found[path + CORE_SUFFIX] = (core, (core.shape[0], core.shape[1]))
    return found
