"""Where in an image the score of a finding comes from, by occlusion: a patch is covered, and the score falls. Indicative only.

Zeiler, Fergus 2014, arXiv:1311.2901. It shows what a model's score depends on, which need not be where the finding is, and is no safeguard
against a wrong draft.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label, uniform_filter

from client.drafting._likelihood import log_likelihoods
from rainhill.errors import BaseModelError, DataError

if TYPE_CHECKING:
    from client.models import Net, Writer

Score = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""(N, 1, S, S) in [-1, 1] -> (N,), the higher the surer."""
BLUR = 0.1
"""Of the side of an image: over so much it is blurred where there is nothing better to cover it with."""
NOTE = "indicative: what the model's score depends on, not a measured outline of the finding"


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    finding: str
    box: tuple[int, int, int, int]
    """Left, top, right, bottom in pixels of the image that was given; right and bottom exclusive."""
    peak: tuple[int, int]
    """Column and row of the pixel on which the score depends most."""
    drop: float
    """By how much the score falls there at most."""
    heat: NDArray[np.float32]
    """(S, S) mean fall of the score under the patches that cover a pixel; 0 where it does not fall."""
    indicative: Literal[True] = True
    note: str = NOTE


def occluded(
    image: NDArray[Any], score: Score, *, finding: str, patch: int, stride: int, filler: NDArray[Any] | None = None, keep: float = 0.3
) -> Region | None:
    """(S, S) in [-1, 1]. None where no patch makes the score fall.

    A patch is replaced, softly towards its edges, by the same place of `filler`: best the mean of a site's films without findings, and else
    the image itself, blurred. The box is around the pixels next to the peak whose heat is at least `keep` of it. DataError for sizes that
    do not fit the image.
    """
    image = np.asarray(image, dtype=np.float32)
    _check(image, filler, patch, stride, keep)
    places = _places(image.shape[0], patch, stride)
    cover = gaussian_filter(image, sigma=BLUR * image.shape[0], mode="nearest") if filler is None else np.asarray(filler, dtype=np.float32)
    falls = _falls(image, cover, score, places, patch)
    heat, covered = np.zeros(image.shape), np.zeros(image.shape)
    for (top, left), fall in zip(places, falls, strict=True):
        heat[top : top + patch, left : left + patch] += fall
        covered[top : top + patch, left : left + patch] += 1
    # Smoothed over a stride, which is as fine as it was looked.
    heat = np.maximum(uniform_filter(heat / covered, size=stride, mode="nearest"), 0)
    if not heat.max() > 0:
        return None
    row, column = (int(place) for place in np.unravel_index(heat.argmax(), heat.shape))
    return Region(
        finding=finding, box=_box(heat, (row, column), keep), peak=(column, row), drop=float(falls.max()), heat=heat.astype(np.float32)
    )


def _falls(
    image: NDArray[np.float32], cover: NDArray[np.float32], score: Score, places: list[tuple[int, int]], patch: int
) -> NDArray[np.float64]:
    # No edge is drawn that the model has never seen.
    ramp = np.minimum(1, (np.minimum(np.arange(patch), np.arange(patch)[::-1]) + 1) / max(1, patch // 4))
    weight = np.outer(ramp, ramp).astype(np.float32)
    shown = np.repeat(image[None], len(places) + 1, axis=0)
    for one, (top, left) in zip(shown[1:], places, strict=True):
        here = (slice(top, top + patch), slice(left, left + patch))
        one[here] += weight * (cover[here] - one[here])
    values = np.asarray(score(shown[:, None]), dtype=np.float64)
    if values.shape != (len(shown),) or not np.isfinite(values).all():
        raise DataError(f"scores {values.shape}, expected ({len(shown)},) finite numbers")
    return np.asarray(values[0] - values[1:])


def _places(size: int, patch: int, stride: int) -> list[tuple[int, int]]:
    """Of the upper left corners; the last of a row ends with the image."""
    along = sorted({*range(0, size - patch + 1, stride), size - patch})
    return [(top, left) for top in along for left in along]


def _box(heat: NDArray[np.float64], peak: tuple[int, int], keep: float) -> tuple[int, int, int, int]:
    pieces, _ = label(heat >= keep * heat.max())
    rows, columns = np.nonzero(pieces == pieces[peak])
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    total = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (total - shared) if total > shared else 0.0


def score_of_finding(net: "Net", place: int) -> Score:
    """The logit of one output of a classifier. BaseModelError for a network that has no such output."""
    import torch

    if net.writes or not 0 <= place < (outputs := int(getattr(net.head, "out_features", 0))):
        raise BaseModelError(f"output {place}: the network writes, or has {0 if net.writes else outputs} outputs")

    @torch.no_grad()
    def of(images: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(net(net.prefix(torch.from_numpy(images)))[:, place].double())

    return of


def score_of_sentence(net: "Writer", prompt: str, begun: str, sentence: str, contrary: str) -> Score:
    """By how much a model that drafts holds a sentence for likelier than its contrary, in a report that says `begun` before it."""
    import torch

    from client.drafting._likelihood import joined

    @torch.no_grad()
    def of(images: NDArray[np.float32]) -> NDArray[np.float64]:
        hidden = net.prefix(torch.from_numpy(images))
        one, other = (log_likelihoods(net, hidden, prompt, [joined(begun, text)]) for text in (sentence, contrary))
        return np.asarray(one - other)

    return of


def _check(image: NDArray[np.float32], filler: NDArray[Any] | None, patch: int, stride: int, keep: float) -> None:
    if image.ndim != 2 or image.shape[0] != image.shape[1] or not np.isfinite(image).all():
        raise DataError(f"image {image.shape}: expected (S, S) finite numbers")
    if filler is not None and (filler.shape != image.shape or not np.isfinite(filler).all()):
        raise DataError(f"filler {filler.shape}: expected {image.shape} finite numbers")
    if not 0 < stride <= patch <= image.shape[0]:
        raise DataError(f"patch = {patch} and stride = {stride}: expected 0 < stride <= patch <= {image.shape[0]}")
    if not 0 < keep <= 1:
        raise DataError(f"keep = {keep}: expected more than 0 and at most 1")
