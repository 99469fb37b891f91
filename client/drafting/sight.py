"""What stands in a prompt of the film itself: what a classifier finds on it, and which films of the site look like it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from client import models
from client.data.cohort import Cohort
from client.drafting.cases import Finds
from client.drafting.prompt import findings_above
from client.models import Writer
from client.tasks.findings import Findings
from client.training import features, lora
from client.training.prefix import BATCH
from rainhill.recipe import LoraSection

if TYPE_CHECKING:
    from client.tasks.report import Classifier


def finder(section: "Classifier") -> Finds:
    """Raises BaseModelError for weights that are not the pinned ones, or that have no output for a finding."""
    task = Findings(findings=section.findings)
    net = models.load(section, lora=LoraSection(), outputs=task.outputs, folder=Path.cwd())

    def find(cohort: Cohort) -> list[tuple[str, ...]]:
        probabilities = [task.scores(features.logits(net, net.prefix(torch.from_numpy(images)))) for images in _resized(cohort, net.size)]
        rows = np.concatenate(probabilities) if probabilities else np.empty((0, len(section.findings)))
        return [findings_above(dict(zip(section.findings, map(float, row), strict=True)), section.threshold) for row in rows]

    return find


def _resized(cohort: Cohort, size: int) -> list[NDArray[np.float32]]:
    """The films at the size that the classifier takes, some at a time."""
    found = []
    for start in range(0, len(cohort), BATCH):
        images = torch.from_numpy(cohort.images[start : start + BATCH])
        if images.shape[-1] != size:
            images = torch.nn.functional.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        found.append(images.numpy())
    return found


@torch.no_grad()
def pooled(net: Writer, cohort: Cohort) -> NDArray[np.float32]:
    """(N, d) mean over an image's tokens of what the base model makes of it, whatever the adapters are by now."""
    with lora.switched_off(net):
        rows = [net.seen(torch.from_numpy(cohort.images[start : start + BATCH])).numpy() for start in range(0, len(cohort), BATCH)]
    return np.concatenate(rows) if rows else np.empty((0, 0), dtype=np.float32)
