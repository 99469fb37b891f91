"""The frozen prefix of the network, computed once per image; every adapter and every round starts from what it gives."""

from itertools import pairwise

import numpy as np
import torch

from client.data.cohort import Cohort
from client.models import Net
from client.tasks import Task
from client.training import prefix
from client.training.prefix import BATCH, Hidden, PrefixCache
from rainhill.adapter import Array
from rainhill.recipe import AugmentationSection


class Features:
    """A cohort as training sees it: hidden states (N, …), targets (N, K), and the images of each patient."""

    def __init__(self, hidden: Hidden, targets: torch.Tensor, patients: Array) -> None:
        self.hidden, self.targets, self.patients = hidden, targets, patients
        order = np.argsort(patients, kind="stable")
        self.count = int(patients.max()) + 1 if len(patients) else 0
        starts = np.searchsorted(patients[order], np.arange(self.count + 1))
        self.images_of = [order[start:stop] for start, stop in pairwise(starts)]

    def draw(self, chosen: Array, rng: np.random.Generator) -> torch.Tensor:
        """One image, drawn afresh, of each chosen patient."""
        rows = [self.images_of[patient][rng.integers(len(self.images_of[patient]))] for patient in chosen]
        return torch.from_numpy(np.asarray(rows))


def compute(net: Net, cohort: Cohort, task: Task, *, cache: PrefixCache | None = None) -> Features:
    return compute_views(net, cohort, task, AugmentationSection(views=0), seed=(), cache=cache)


def compute_views(
    net: Net, cohort: Cohort, task: Task, section: AugmentationSection, *, seed: tuple[int, ...], cache: PrefixCache | None = None
) -> Features:
    """Each image as it is and as `section.views` random views, which count as further images of its patient."""
    hidden = prefix.compute(net, cohort.images, section, seed=seed, cache=cache)
    times = 1 + section.views
    return Features(hidden, torch.from_numpy(task.targets(cohort)).repeat(times, 1), np.tile(cohort.patients, times))


def concatenate(parts: list[Features]) -> Features:
    """Several cohorts as one; their patients stay apart, and their hidden states where they are."""
    offsets = np.cumsum([0, *(part.count for part in parts)])
    patients = np.concatenate([part.patients + offset for part, offset in zip(parts, offsets, strict=False)])
    return Features(prefix.join([part.hidden for part in parts]), torch.cat([part.targets for part in parts]), patients)


@torch.no_grad()
def logits(net: Net, hidden: Hidden) -> Array:
    """(N, …) hidden states -> (N, K) logits of the network as it is now."""
    # Into one array: small ones kept from batch to batch would lie between the large ones that are freed, and memory would grow.
    values = np.empty((len(hidden), net.head.out_features), dtype=np.float32)
    for start in range(0, len(hidden), BATCH):
        values[start : start + BATCH] = net(hidden[start : start + BATCH]).numpy()
    return values
