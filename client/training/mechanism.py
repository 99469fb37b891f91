"""The Poisson-subsampled Gaussian mechanism over patients: who is drawn, what is clipped, what is added, what it is divided by.

Abadi et al. 2016, arXiv:1607.00133; Mironov et al. 2019, arXiv:1908.10530.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.models import Net
from client.privacy.randomness import Stream
from client.tasks import Task
from client.training.clipping import clipped_sum
from client.training.features import Features


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """What the ledger was charged for; every step of the fit is one release of it."""

    noise_multiplier: float
    """The paper's sigma: the noise's standard deviation is this times `max_grad_norm`."""
    max_grad_norm: float
    """The paper's C."""
    sample_rate: float
    """The paper's q: each patient's chance to be drawn for a step, by itself."""
    expected_patients: float
    """The fixed number that the noised sum is divided by, whoever was drawn: a count of those drawn would tell of one patient more."""
    images_per_patient: int
    drawable: NDArray[np.bool_]
    """(P,) False for a patient whose budget is spent."""
    stream: Stream

    def fill(self, net: Net, task: Task, features: Features, parameters: Mapping[str, nn.Parameter]) -> float | None:
        """Puts the noised mean gradient of one step into `.grad`; gives the mean loss of those drawn, None where nobody was.

        The loss is not noised and may not leave as it is. A step that drew nobody is noise alone, and counts like any other.
        """
        drawn = np.flatnonzero(self.stream.mask(features.count, self.sample_rate) & self.drawable)
        rows = [self._images(features.images_of[patient]) for patient in drawn]
        totals, losses = clipped_sum(net, task, features, rows, parameters=parameters, max_grad_norm=self.max_grad_norm)
        for name, parameter in parameters.items():
            noise = torch.from_numpy(self.stream.normal(parameter.numel())).reshape(parameter.shape).to(parameter.device)
            # In float64 until here: what is released is the noised sum, rounded once.
            released = totals[name] + self.noise_multiplier * self.max_grad_norm * noise
            parameter.grad = (released / self.expected_patients).to(parameter.dtype)
        return float(np.mean(losses)) if losses else None

    def _images(self, own: NDArray[np.int64]) -> NDArray[np.int64]:
        return own[self.stream.subset(len(own), self.images_per_patient)]
