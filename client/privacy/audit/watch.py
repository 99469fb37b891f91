"""A mechanism with somebody who writes down what it releases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from client.models import Net
from client.privacy.randomness import Stream
from client.tasks import Task
from client.training.features import Features
from client.training.mechanism import Mechanism

Release = Mapping[str, Tensor]
"""Parameter -> the noised sum of one step, in float64: the released mean with the fixed divisor taken off."""
MAX_GRAD_NORM = 1e-3
"""C: far below every gradient of the audit's worlds, so that all are cut."""


@dataclass(frozen=True, kw_only=True)
class Watched(Mechanism):
    """Releases what `inner` does. Where there is a `replay`, the fit goes on from that instead, step by step.

    The guarantee of several steps is that of each of them given the releases before it (Dwork, Rothblum & Vadhan 2010), so two data sets
    are compared at the same earlier releases.
    """

    inner: Mechanism
    replay: Sequence[Release] = ()
    releases: list[Release] = field(default_factory=list)
    masks: list[NDArray[np.bool_]] = field(default_factory=list)
    """Of each step, which patients were drawn, (P,)."""

    def fill(self, net: Net, task: Task, features: Features, parameters: Mapping[str, nn.Parameter]) -> float | None:
        loss = self.inner.fill(net, task, features, parameters)
        release = {}
        for name, parameter in parameters.items():
            assert parameter.grad is not None
            release[name] = parameter.grad.double() * self.expected_patients
        if self.replay:
            for name, parameter in parameters.items():
                parameter.grad = (self.replay[len(self.releases)][name] / self.expected_patients).to(parameter.dtype)
        self.releases.append(release)
        return loss


class _Heard(Stream):
    """Another stream, with its masks written down."""

    def __init__(self, inner: Stream, masks: list[NDArray[np.bool_]]) -> None:
        self.words, self.subset, self.normal = inner.words, inner.subset, inner.normal  # type: ignore[method-assign]
        self._inner, self._masks = inner, masks

    def mask(self, count: int, rate: float) -> NDArray[np.bool_]:
        self._masks.append(self._inner.mask(count, rate))
        return self._masks[-1]


def watched(inner: Mechanism, replay: Sequence[Release] = ()) -> Watched:
    masks: list[NDArray[np.bool_]] = []
    heard = replace(inner, stream=_Heard(inner.stream, masks))
    return Watched(inner=heard, replay=replay, masks=masks, **{one.name: getattr(inner, one.name) for one in fields(Mechanism)})


def mechanism(
    *, key: bytes, drawable: NDArray[np.bool_], noise_multiplier: float, sample_rate: float, max_grad_norm: float = MAX_GRAD_NORM
) -> Mechanism:
    """As a granted round has it."""
    return Mechanism(
        noise_multiplier=noise_multiplier,
        max_grad_norm=max_grad_norm,
        sample_rate=sample_rate,
        expected_patients=sample_rate * len(drawable),
        images_per_patient=4,
        drawable=drawable,
        stream=Stream(key),
    )
