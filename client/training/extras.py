"""What PEFT's LoRA layers do not have: a core between A and B, and a residual pair beside them. Both are forward hooks, added at need."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rainhill.adapter import Array, Pair

_CORE, _RESIDUAL, _HOOKED = "rainhill_core", "rainhill_residual", "rainhill_hooked"


def set_core(lora_b: nn.Module, core: Array | None) -> None:
    """B is applied to R (A x) from now on, or to A x again where `core` is None. `core` is (r, r)."""
    if core is None:
        if core_of(lora_b) is not None:
            setattr(lora_b, _CORE, None)
        return
    present = core_of(lora_b)
    if present is None or present.shape != core.shape:
        # A layer of its own, so that whatever is done layer by layer finds it; its name lies within a LoRA layer's.
        layer: nn.Linear = nn.utils.skip_init(nn.Linear, *core.shape, bias=False)  # type: ignore[no-untyped-call]
        layer.requires_grad_(False).to(lora_b.get_parameter("weight").device)
        setattr(lora_b, _CORE, layer)
        present = layer.get_parameter("weight")
    present.copy_(torch.from_numpy(np.array(core)))
    if not hasattr(lora_b, _HOOKED):
        setattr(lora_b, _HOOKED, lora_b.register_forward_pre_hook(_apply_core))


def core_of(lora_b: nn.Module) -> nn.Parameter | None:
    core: nn.Linear | None = getattr(lora_b, _CORE, None)
    return core.get_parameter("weight") if core is not None else None


def set_residual(layer: Any, residual: Pair | None, *, scale: float) -> None:
    """The layer's output gains scale * B A x from now on, or no longer where `residual` is None or of rank 0."""
    if residual is None or residual.rank == 0:
        setattr(layer, _RESIDUAL, None)
        return
    device = layer.get_base_layer().weight.device
    factors = (np.array(residual.a), scale * np.array(residual.b))
    setattr(layer, _RESIDUAL, tuple(torch.from_numpy(one).to(device) for one in factors))
    if not hasattr(layer, _HOOKED):
        setattr(layer, _HOOKED, layer.register_forward_hook(_add_residual))


def _apply_core(lora_b: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    core: nn.Linear | None = getattr(lora_b, _CORE, None)
    if core is None:
        return inputs
    if isinstance(lora_b, nn.Conv2d):
        return (core(inputs[0].movedim(1, -1)).movedim(-1, 1),)
    return (core(inputs[0]),)


def _add_residual(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    pair = getattr(layer, _RESIDUAL, None)
    if pair is None:
        return output
    (a, b), base = pair, layer.get_base_layer()
    if isinstance(base, nn.Conv2d):
        kernel = a.reshape(len(a), *base.weight.shape[1:])
        hidden = F.conv2d(inputs[0], kernel, stride=base.stride, padding=base.padding, dilation=base.dilation)
        return output + F.conv2d(hidden, b[:, :, None, None])
    return output + F.linear(F.linear(inputs[0], a), b)
