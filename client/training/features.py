"""The frozen prefix of the network, computed once per image; every adapter and every round starts from what it gives."""

from itertools import pairwise

import numpy as np
import torch

from client.data.cohort import Cohort
from client.models import Net
from client.tasks import Task
from rainhill.adapter import Array

BATCH = 64


class Features:
    """A cohort as training sees it: hidden states (N, …), targets (N, K), and the images of each patient."""

    def __init__(self, hidden: torch.Tensor, targets: torch.Tensor, patients: Array) -> None:
        self.hidden, self.targets, self.patients = hidden, targets, patients
        order = np.argsort(patients, kind="stable")
        self.count = int(patients.max()) + 1 if len(patients) else 0
        starts = np.searchsorted(patients[order], np.arange(self.count + 1))
        self.images_of = [order[start:stop] for start, stop in pairwise(starts)]

    def draw(self, chosen: Array, rng: np.random.Generator) -> torch.Tensor:
        """One image, drawn afresh, of each chosen patient."""
        rows = [self.images_of[patient][rng.integers(len(self.images_of[patient]))] for patient in chosen]
        return torch.from_numpy(np.asarray(rows))


@torch.no_grad()
def compute(net: Net, cohort: Cohort, task: Task) -> Features:
    images = torch.from_numpy(cohort.images)
    hidden = torch.cat([net.prefix(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])
    return Features(hidden, torch.from_numpy(task.targets(cohort)), cohort.patients)


def concatenate(parts: list[Features]) -> Features:
    """Several cohorts as one; their patients stay apart."""
    offsets = np.cumsum([0, *(part.count for part in parts)])
    patients = np.concatenate([part.patients + offset for part, offset in zip(parts, offsets, strict=False)])
    return Features(torch.cat([part.hidden for part in parts]), torch.cat([part.targets for part in parts]), patients)


@torch.no_grad()
def logits(net: Net, hidden: torch.Tensor) -> Array:
    """(N, …) hidden states -> (N, K) logits of the network as it is now."""
    parts = [net(hidden[start : start + BATCH]).numpy() for start in range(0, len(hidden), BATCH)]
    return np.concatenate(parts) if parts else np.zeros((0, net.head.out_features), dtype=np.float32)
