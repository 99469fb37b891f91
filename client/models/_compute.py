"""Where a frozen network computes, and how its weights are held there: what the adapters add to it stays float32 everywhere."""

from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from client.models._net import Compute, Net
from rainhill.config import BasePrecision, Device
from rainhill.errors import BaseModelError, ConfigError

SHARE = 0.25
"""Of the GPU's free memory that the frozen weights may take in bfloat16; the images of a step need the rest."""


def choose(device: Device, precision: BasePrecision, *, weights: int, free: int | None, packs: bool) -> Compute:
    """What `auto` comes to. `weights` counts the frozen numbers, `free` the GPU's free bytes (None: there is no GPU); `packs` says whether
    bitsandbytes is installed.

    Raises ConfigError for what this machine cannot do.
    """
    if device == "cuda" and free is None:
        raise ConfigError(f"device = 'cuda': torch {torch.__version__} finds no GPU here; 'auto' takes one where there is one")
    if precision == "nf4" and not packs:
        raise ConfigError("precision = 'nf4': bitsandbytes is not installed, which packs the base model's weights into 4 bits")
    if device == "cpu" or free is None:
        return Compute(device="cpu", precision="float32" if precision == "auto" else precision)
    if precision == "auto":
        precision = "nf4" if packs and 2 * weights > SHARE * free else "bfloat16"
    return Compute(device="cuda", precision=precision)


def place(net: Net, *, device: Device, precision: BasePrecision) -> None:
    """Puts the network where it is to compute, LoRA pairs and head with it; to be called once, after the pairs were attached.

    It takes and gives tensors in main memory all the same. Raises ConfigError or BaseModelError for what cannot be.
    """
    frozen = sum(weight.numel() for name, weight in net.named_parameters() if ".lora_" not in name)
    free = torch.cuda.mem_get_info()[0] if device != "cpu" and torch.cuda.is_available() else None
    chosen = choose(device, precision, weights=frozen, free=free, packs=find_spec("bitsandbytes") is not None)
    if chosen.precision == "bfloat16":
        for layer in _frozen_layers(net).values():
            layer.to(torch.bfloat16)
            layer.forward = partial(_in_bfloat16, layer)
    elif chosen.precision == "nf4":
        _pack(net, chosen.device)
    if chosen.device == "cuda":
        # A convolution would round its inputs to 10 bits of mantissa.
        torch.backends.cudnn.allow_tf32 = False
        net.to("cuda")
        _keep_tensors_in_main_memory(net)
    net.compute = chosen


def _frozen_layers(net: Net) -> dict[str, Any]:
    """Every linear and convolution layer that no rule trains: all but the LoRA pairs and the head."""
    return {
        path: module
        for path, module in net.named_modules()
        if type(module) in (nn.Linear, nn.Conv2d) and ".lora_" not in path and module is not net.head and module not in net.unpacked
    }


def _in_bfloat16(layer: Any, x: Tensor) -> Tensor:
    """Norms, attention and what LoRA adds stay as they are: only the products with frozen weights are taken in bfloat16."""
    result: Tensor = type(layer).forward(layer, x.bfloat16())
    return result.to(x.dtype)


def _pack(net: Net, device: str) -> None:
    """4-bit NormalFloat in blocks of 64. Dettmers et al. 2023, arXiv:2305.14314."""
    import bitsandbytes

    linear = {path: layer for path, layer in _frozen_layers(net).items() if isinstance(layer, nn.Linear)}
    if not linear:
        raise BaseModelError("precision = 'nf4' packs linear layers, and the base model has none: use bfloat16")
    for path, layer in linear.items():
        packed = bitsandbytes.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=torch.bfloat16 if device == "cuda" else torch.float32,
            quant_type="nf4",
        )
        packed.load_state_dict(layer.state_dict())
        parent, _, name = path.rpartition(".")
        # Packed when it is moved, even to where it is.
        setattr(net.get_submodule(parent), name, packed.to(device).requires_grad_(False))


def _keep_tensors_in_main_memory(net: Net) -> None:
    prefix, device = net.prefix, next(net.parameters()).device
    net.register_forward_pre_hook(lambda _, inputs: tuple(tensor.to(device) for tensor in inputs))
    net.register_forward_hook(lambda _, __, output: output.cpu())
    net.prefix = lambda images: prefix(images.to(device)).cpu()  # type: ignore[method-assign]
