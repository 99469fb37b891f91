"""Faults that a private step can have, each planted around the mechanism that ships; none is in any path that ships.

A fault takes the mechanism that a round was granted, and gives what trains in its place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.models import Net
from client.privacy.audit.finding import Plant
from client.privacy.randomness import Stream, simulated_key
from client.tasks import Task
from client.tasks.findings import Findings
from client.training.clipping import clipped_sum
from client.training.features import Features
from client.training.mechanism import Mechanism


def tenth_of_the_noise(mechanism: Mechanism) -> Mechanism:
    return replace(mechanism, noise_multiplier=mechanism.noise_multiplier / 10)


def no_noise(mechanism: Mechanism) -> Mechanism:
    return replace(mechanism, noise_multiplier=0.0)


def ten_times_the_clip(mechanism: Mechanism) -> Mechanism:
    """The noise stays as long as it was."""
    return replace(mechanism, max_grad_norm=10 * mechanism.max_grad_norm, noise_multiplier=mechanism.noise_multiplier / 10)


@dataclass(frozen=True, kw_only=True)
class _ImageByImage(Mechanism):
    def fill(self, net: Net, task: Task, features: Features, parameters: Mapping[str, nn.Parameter]) -> float | None:
        drawn = np.flatnonzero(self.stream.mask(features.count, self.sample_rate) & self.drawable)
        images = [row[None] for patient in drawn for row in self._images(features.images_of[patient])]
        totals, losses = clipped_sum(net, task, features, images, parameters=parameters, max_grad_norm=self.max_grad_norm)
        for name, parameter in parameters.items():
            noise = torch.from_numpy(self.stream.normal(parameter.numel())).reshape(parameter.shape)
            released = totals[name] + self.noise_multiplier * self.max_grad_norm * noise
            parameter.grad = (released / self.expected_patients).to(parameter.dtype)
        return float(np.mean(losses)) if losses else None


def images_clipped_one_by_one(mechanism: Mechanism) -> Mechanism:
    """What is often sold as patient-level: four images of a patient that are drawn together weigh 4 C."""
    return _of(_ImageByImage, mechanism)


@dataclass(frozen=True, kw_only=True)
class _HeadAlong(Mechanism):
    def fill(self, net: Net, task: Task, features: Features, parameters: Mapping[str, nn.Parameter]) -> float | None:
        assert isinstance(task, Findings)
        pooled: list[torch.Tensor] = []
        hook = net.head.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0].detach()))
        with torch.no_grad():
            net(features.hidden)
        hook.remove()
        head = [parameter.detach().clone().requires_grad_(True) for parameter in net.head.parameters()]
        optimizer = torch.optim.SGD(head, lr=1.0)
        for _ in range(20):
            optimizer.zero_grad()
            torch.autograd.backward(task.loss(torch.nn.functional.linear(pooled[0], *head), features.targets).mean())
            optimizer.step()
        with torch.no_grad():
            for parameter, trained in zip(net.head.parameters(), head, strict=True):
                parameter.copy_(trained)
        return super().fill(net, task, features, parameters)


def local_head_trained_along(mechanism: Mechanism) -> Mechanism:
    """A private head, without noise, that the shared part's gradients go through."""
    return _of(_HeadAlong, mechanism)


class _SameMask(Stream):
    first: NDArray[np.bool_] | None = None

    def mask(self, count: int, rate: float) -> NDArray[np.bool_]:
        if self.first is None:
            self.first = super().mask(count, rate)
        return self.first


class _Shuffled(Stream):
    order: NDArray[np.int64] | None = None
    at = 0

    def mask(self, count: int, rate: float) -> NDArray[np.bool_]:
        size = max(1, round(rate * count))
        if self.order is None or self.at + size > count:
            self.order, self.at = np.argsort(self.words(count)), 0
        self.at += size
        return np.isin(np.arange(count), self.order[self.at - size : self.at])


def the_same_batch_in_every_step(mechanism: Mechanism) -> Mechanism:
    return replace(mechanism, stream=_SameMask(_key(mechanism)))


def shuffled_batches(mechanism: Mechanism) -> Mechanism:
    """Epochs of batches of one size, accounted for as if patients were drawn by themselves."""
    return replace(mechanism, stream=_Shuffled(_key(mechanism)))


def the_same_noise_in_every_round(mechanism: Mechanism) -> Mechanism:
    return replace(mechanism, stream=Stream(simulated_key((0,))))


FAULTS: Mapping[str, Plant] = {
    "noise / 10": tenth_of_the_noise,
    "no noise": no_noise,
    "clip x 10": ten_times_the_clip,
    "images clipped one by one": images_clipped_one_by_one,
    "local head trained along": local_head_trained_along,
    "same batch in every step": the_same_batch_in_every_step,
    "shuffled batches": shuffled_batches,
    "same noise in every round": the_same_noise_in_every_round,
}


def _of(kind: type[Mechanism], mechanism: Mechanism) -> Mechanism:
    return kind(**{one.name: getattr(mechanism, one.name) for one in fields(Mechanism)})


def _key(mechanism: Mechanism) -> bytes:
    """Another for each stream, and the same for the same."""
    return mechanism.stream.words(4).tobytes()
