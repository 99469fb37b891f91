"""The frozen prefix of the network, computed once per image; every adapter and every round starts from what it gives."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch.nn import functional as F

from client.data.cohort import Cohort
from client.models import Net
from client.tasks import Examples, Task
from client.training import prefix
from client.training.prefix import BATCH, Hidden, PrefixCache
from rainhill.adapter import Array
from rainhill.recipe import AugmentationSection

ENDED = -100
"""Fills rows of tokens up to the longest; what losses of torch pass over."""


class Features:
    """A cohort as training sees it: hidden states (N, …), targets (N, …), and the images of each patient.

    `given` (N, …) and N `texts` are of tasks that read more than an image, or write (`client.tasks.Examples`).
    """

    def __init__(
        self, hidden: Hidden, targets: torch.Tensor, patients: Array, *, given: torch.Tensor | None = None, texts: Sequence[str] = ()
    ) -> None:
        self.hidden, self.targets, self.patients, self.given, self.texts = hidden, targets, patients, given, tuple(texts)
        order = np.argsort(patients, kind="stable")
        self.count = int(patients.max()) + 1 if len(patients) else 0
        starts = np.searchsorted(patients[order], np.arange(self.count + 1))
        self.images_of = [order[start:stop] for start, stop in pairwise(starts)]

    def draw(self, chosen: Array, rng: np.random.Generator) -> torch.Tensor:
        """One image, drawn afresh, of each chosen patient."""
        rows = [self.images_of[patient][rng.integers(len(self.images_of[patient]))] for patient in chosen]
        return torch.from_numpy(np.asarray(rows))


def compute(net: Net, cohort: Cohort, task: Task, *, among: Cohort | None = None, cache: PrefixCache | None = None) -> Features:
    """`among` are the site's training images, where these are others."""
    return _compute(net, cohort, task.examples(cohort, net, among), AugmentationSection(views=0), seed=(), cache=cache)


def compute_views(
    net: Net, cohort: Cohort, task: Task, section: AugmentationSection, *, seed: tuple[int, ...], cache: PrefixCache | None = None
) -> Features:
    """Each image as it is and as `section.views` random views, which count as further images of its patient."""
    return _compute(net, cohort, task.examples(cohort, net), section, seed=seed, cache=cache)


def _compute(
    net: Net,
    cohort: Cohort,
    found: Examples,
    section: AugmentationSection,
    *,
    seed: tuple[int, ...],
    cache: PrefixCache | None,
) -> Features:
    hidden = prefix.compute(net, cohort.images, section, seed=seed, cache=cache)
    times = 1 + section.views
    targets, given = (None if one is None else one.repeat(times, *(1,) * (one.ndim - 1)) for one in (found.targets, found.given))
    assert targets is not None
    return Features(hidden, targets, np.tile(cohort.patients, times), given=given, texts=found.texts * times)


def concatenate(parts: list[Features]) -> Features:
    """Several cohorts as one; their patients stay apart, and their hidden states where they are."""
    offsets = np.cumsum([0, *(part.count for part in parts)])
    patients = np.concatenate([part.patients + offset for part, offset in zip(parts, offsets, strict=False)])
    given = [part.given for part in parts if part.given is not None]
    return Features(
        prefix.join([part.hidden for part in parts]),
        _end_to_end([part.targets for part in parts]),
        patients,
        given=_end_to_end(given) if given else None,
        texts=tuple(text for part in parts for text in part.texts),
    )


def _end_to_end(rows: list[torch.Tensor]) -> torch.Tensor:
    """(N_i, T_i) -> (sum N_i, max T_i): what is shorter is filled up with what ends a row."""
    longest = max(one.shape[1] for one in rows)
    return torch.cat([F.pad(one, (0, longest - one.shape[1]), value=ENDED) if one.shape[1] < longest else one for one in rows])


@torch.no_grad()
def logits(net: Net, hidden: Hidden) -> Array:
    """(N, …) hidden states -> (N, K) logits of the network as it is now, which has a head."""
    assert isinstance(net.head, torch.nn.Linear)
    # Into one array: small ones kept from batch to batch would lie between the large ones that are freed, and memory would grow.
    values = np.empty((len(hidden), net.head.out_features), dtype=np.float32)
    for start in range(0, len(hidden), BATCH):
        values[start : start + BATCH] = net(hidden[start : start + BATCH]).numpy()
    return values


def in_batches(count: int) -> tuple[torch.Tensor, ...]:
    """Places 0 to count - 1, some at a time."""
    return torch.split(torch.arange(count), BATCH)


@torch.no_grad()
def losses_of(net: Net, features: Features, task: Task) -> Array:
    """(N,) loss of each image by the network as it is now."""
    found = [task.losses(net, features, rows).numpy() for rows in in_batches(len(features.hidden))]
    return np.concatenate(found) if found else np.empty(0, dtype=np.float32)
