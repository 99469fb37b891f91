"""The frozen prefix of the network, computed once per image; every adapter and every round starts from what it gives."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from client.data.cohort import Cohort
from client.models import Net
from client.tasks import Task
from client.training.augmentation import draw_views
from rainhill.adapter import Array
from rainhill.recipe import AugmentationSection

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


def compute(net: Net, cohort: Cohort, task: Task) -> Features:
    hidden = _hidden(net, torch.from_numpy(cohort.images), lambda images: images)
    return Features(hidden, torch.from_numpy(task.targets(cohort)), cohort.patients)


def compute_views(net: Net, cohort: Cohort, task: Task, section: AugmentationSection, *, seed: tuple[int, ...]) -> Features:
    """Each image as it is and as `section.views` random views, which count as further images of its patient."""
    rng = np.random.default_rng(seed)
    plain, images = compute(net, cohort, task), torch.from_numpy(cohort.images)
    views = [_hidden(net, images, lambda batch: draw_views(batch, section, rng)) for _ in range(section.views)]
    times = 1 + section.views
    return Features(torch.cat([plain.hidden, *views]), plain.targets.repeat(times, 1), np.tile(cohort.patients, times))


@torch.no_grad()
def _hidden(net: Net, images: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    return torch.cat([net.prefix(change(images[start : start + BATCH])) for start in range(0, len(images), BATCH)])


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
