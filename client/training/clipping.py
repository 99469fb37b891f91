"""The sum of a batch's gradients in which no patient weighs more than C, whatever its images show. Abadi et al. 2016, arXiv:1607.00133.

One patient is one unit: the gradients of its images are averaged before they are clipped, and it is never split over two passes.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from client.models import Net
from client.tasks import Task
from client.training.features import Features
from client.training.per_sample import Samples, recorded
from rainhill.adapter import Array

PART = 64
"""Images that go through the network at a time; a patient with more has them in a pass of its own."""


def clipped_sum(
    net: Net,
    task: Task,
    features: Features,
    patients: Sequence[Array],
    *,
    parameters: Mapping[str, nn.Parameter],
    max_grad_norm: float,
) -> tuple[dict[str, Tensor], list[float]]:
    """Name -> sum over patients of min(1, C / |g_p|) g_p, in float64, and each patient's mean loss.

    `patients` holds each patient's rows of `features`. |g_p| is the l2 norm over all `parameters` together.
    """
    totals = {name: torch.zeros_like(parameter, dtype=torch.float64) for name, parameter in parameters.items()}
    losses: list[float] = []
    if net.one_by_one:
        return totals, [_one_patient(net, task, features, own, parameters, max_grad_norm, totals) for own in patients]
    with recorded(net, parameters) as samples:
        for part in _parts(patients):
            rows = torch.from_numpy(np.concatenate(part))
            owners = torch.from_numpy(np.repeat(np.arange(len(part)), [len(own) for own in part]))
            each = task.losses(net, features, rows)
            torch.autograd.backward(each.sum())
            losses += (torch.zeros(len(part)).index_add_(0, owners, each.detach()) / torch.bincount(owners)).tolist()
            for name, total in _clipped(samples, parameters, owners, max_grad_norm).items():
                totals[name] += total
            samples.clear()
            for parameter in parameters.values():
                # Layers that go by hooks have the plain sum here too, and it must not be seen.
                parameter.grad = None
    return totals, losses


def _one_patient(
    net: Net,
    task: Task,
    features: Features,
    own: Array,
    parameters: Mapping[str, nn.Parameter],
    max_grad_norm: float,
    totals: Mapping[str, Tensor],
) -> float:
    """Adds a patient's clipped gradient to the totals, its images one at a time, and gives its mean loss."""
    samples: Samples = {}
    losses = []
    for row in own:
        loss = task.losses(net, features, torch.tensor([row])).sum()
        torch.autograd.backward(loss)
        losses.append(float(loss.detach()))
        for parameter in parameters.values():
            if parameter.grad is not None:
                one = parameter.grad[None] / len(own)
                samples[parameter] = samples[parameter] + one if parameter in samples else one
                parameter.grad = None
    if samples:
        for name, total in _clipped(samples, parameters, torch.zeros(1, dtype=torch.int64), max_grad_norm).items():
            totals[name].add_(total)
    return float(np.mean(losses))


def _clipped(samples: Samples, parameters: Mapping[str, nn.Parameter], owners: Tensor, max_grad_norm: float) -> dict[str, Tensor]:
    """Of one pass: (N,) owners of its images, numbered from 0."""
    owners = owners.to(next(iter(parameters.values())).device)
    images_of = torch.bincount(owners)
    # A parameter that took no part in the pass has no gradient, and its sum stays zero.
    taking_part = {name: parameter for name, parameter in parameters.items() if parameter in samples}
    by_patient = {name: _means(samples[parameter].flatten(1), owners, images_of) for name, parameter in taking_part.items()}
    norms = torch.stack([rows.square().sum(dim=1) for rows in by_patient.values()]).sum(dim=0).sqrt()
    # A gradient that is not finite would take the whole sum with it, and tell everybody who is in it: such a patient adds nothing.
    lost = ~torch.isfinite(norms)
    scale = (max_grad_norm / norms).clamp(max=1.0)
    scale[lost] = 0.0
    if lost.any():
        for rows in by_patient.values():
            rows[lost] = 0.0
    return {name: (scale @ rows).reshape(parameters[name].shape) for name, rows in by_patient.items()}


def _means(gradients: Tensor, owners: Tensor, images_of: Tensor) -> Tensor:
    """(N, d) of images -> (P, d), each patient's mean over its images."""
    if len(images_of) == len(owners):
        return gradients
    return gradients.new_zeros(len(images_of), gradients.shape[1]).index_add_(0, owners, gradients / images_of[owners, None])


def _parts(patients: Sequence[Array]) -> Iterator[list[Array]]:
    """Whole patients, as many at a time as have no more than `PART` images together, and at least one."""
    part: list[Array] = []
    for own in patients:
        if part and sum(map(len, part)) + len(own) > PART:
            yield part
            part = []
        part.append(own)
    if part:
        yield part
