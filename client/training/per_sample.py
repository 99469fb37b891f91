"""Gradients image by image. A LoRA factor's is tiny, and comes out of the backward pass for as many multiplications as the sum would take.

The gradient of a linear layer's weight, for one image of T tokens, is g^T x with g (T, out) and x (T, in). One of `out` and `in` is the
rank, so that it is far smaller than a frozen weight's would be. Convolutions and norms go by Opacus's samplers (arXiv:2109.12298), but for
root mean square norms, of which each language model has a class of its own.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from client.models import Net, is_rms_norm
from rainhill.errors import BaseModelError

Samples = dict[nn.Parameter, Tensor]
"""Parameter -> (N, *its shape), the gradient of each image's own loss."""

_SAMPLED = (nn.Conv2d, nn.LayerNorm, nn.GroupNorm)
_REMEDY = {
    "MultiheadAttention": "leave it frozen, or use a base model whose attention has separate linear layers",
    "BatchNorm": "leave it frozen, or use a base model with group norm",
}


@contextmanager
def recorded(net: Net, parameters: Mapping[str, nn.Parameter]) -> Iterator[Samples]:
    """While the block lasts, a backward pass from the sum of the images' losses fills the mapping in place of `.grad`.

    Images must not meet in the network: `refuse_what_mixes` says so before. The mapping is to be cleared after each pass.
    """
    wanted = {id(parameter) for parameter in parameters.values()}
    samples: Samples = {}
    with ExitStack() as undo:
        for module in net.modules():
            own = [parameter for parameter in module.parameters(recurse=False) if id(parameter) in wanted]
            if not own:
                continue
            if type(module) is nn.Linear:
                module.forward = partial(_linear, module, samples)  # type: ignore[method-assign]
                undo.callback(delattr, module, "forward")
            elif is_rms_norm(module):
                undo.callback(module.register_forward_hook(partial(_rms_norm, samples)).remove)
            else:
                undo.callback(module.register_forward_hook(partial(_sampled, samples, own)).remove)
        yield samples


def refuse_what_mixes(net: Net, parameters: Mapping[str, nn.Parameter]) -> None:
    """Raises BaseModelError, with the layer and the remedy, where no per-image gradient is to be had or images of a batch would meet."""
    for path, module in net.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise BaseModelError(
                f"{path}: BatchNorm in training mode mixes the images of a batch and keeps their statistics past any noise: "
                f"put it in evaluation mode, or use a base model with group norm"
            )
        if len(getattr(module, "lora_magnitude_vector", ())):
            raise BaseModelError(f"{path}: DoRA normalises by both factors, which has no per-image gradient here: use plain LoRA")
    names = {id(parameter): name for name, parameter in parameters.items()}
    for path, module in net.named_modules():
        for parameter in module.parameters(recurse=False):
            known = type(module) is nn.Linear or isinstance(module, _SAMPLED) or is_rms_norm(module)
            if id(parameter) in names and not known:
                kind = type(module).__name__
                remedy = next((text for part, text in _REMEDY.items() if part in kind), "leave it frozen")
                raise BaseModelError(f"{path}: {kind} has no per-image gradient for {names[id(parameter)]}: {remedy}")


class _Linear(torch.autograd.Function):
    """F.linear whose weight and bias get no gradient: `record` is given each image's own instead."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor | None, record: Callable[[Tensor, Tensor], None]) -> Tensor:
        context.save_for_backward(x, weight)
        context.record = record
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        (gradient,) = gradients
        x, weight = context.saved_tensors
        context.record(x, gradient)
        return (gradient @ weight if context.needs_input_grad[0] else None), None, None, None


def _linear(module: nn.Linear, samples: Samples, x: Tensor) -> Tensor:
    def record(x: Tensor, gradient: Tensor) -> None:
        # (N, ..., features) -> (N, T, features): an image may have tokens in several dimensions, or be one.
        g, rows = (tensor.reshape(len(tensor), -1, tensor.shape[-1]) for tensor in (gradient, x))
        if module.weight.requires_grad:
            _add(samples, module.get_parameter("weight"), torch.bmm(g.transpose(1, 2), rows))
        if module.bias is not None and module.bias.requires_grad:
            _add(samples, module.get_parameter("bias"), g.sum(dim=1))

    output: Tensor = _Linear.apply(x, module.weight, module.bias, record)  # type: ignore[no-untyped-call]
    return output


def _rms_norm(samples: Samples, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """The output is the normed input times the weight, or times one more than that: a weight's gradient is of what one more of it gives."""
    if not output.requires_grad:
        return
    weight, x = module.get_parameter("weight"), inputs[0].detach()

    @torch.no_grad()
    def record(gradient: Tensor) -> None:
        one, none = (functional_call(module, {"weight": fill(weight)}, (x,)) for fill in (torch.ones_like, torch.zeros_like))
        _add(samples, weight, (gradient * (one - none)).reshape(len(gradient), -1, len(weight)).sum(dim=1))

    output.register_hook(record)  # type: ignore[no-untyped-call]


def _sampled(samples: Samples, own: list[nn.Parameter], module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    from opacus.grad_sample import GradSampleModule

    if not output.requires_grad:
        return
    sampler, activation = GradSampleModule.GRAD_SAMPLERS[type(module)], inputs[0].detach()

    def record(gradient: Tensor) -> None:
        for parameter, one in sampler(module, [activation], gradient).items():
            if any(parameter is mine for mine in own):
                _add(samples, parameter, one)

    output.register_hook(record)  # type: ignore[no-untyped-call]


def _add(samples: Samples, parameter: nn.Parameter, one: Tensor) -> None:
    """A layer that is used twice in one pass has the sum of both."""
    samples[parameter] = samples[parameter] + one if parameter in samples else one
