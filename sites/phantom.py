"""Phantom chest films: a deterministic, vectorised generator of frontal radiographs with findings, their masks and boxes.

Nothing here was learned from or copied off a patient: a film is geometry and the physics of attenuation, and says nothing clinical.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sites.anatomy import thorax
from sites.cases import FINDINGS, Case, Exposure, Finding, Patient, random
from sites.lesions import Film, paint
from sites.population import draw_patients
from sites.texture import smooth_noise, vessels

_CHUNK = 4  # films drawn at once: their maps stay in cache, and the pieces are the same with any number of threads


@dataclass(frozen=True, kw_only=True)
class Rendered:
    attenuation: NDArray[np.float32]
    """(N, H, W), line integrals: 0 is the free beam, about 1 a lung, 3 to 5 the spine."""
    masks: NDArray[np.bool_]
    """(N, F, H, W) in the order of FINDINGS."""
    boxes: NDArray[np.int16]
    """(N, F, 4): left, top, right, bottom in pixels, right and bottom exclusive; all 0 where there is no mask."""


def render(cases: Sequence[Case], size: int = 192, *, threads: int = 1) -> Rendered:
    """Draws each case at `size` x `size`; the number of threads does not change a bit of it."""
    chunks = [cases[start : start + _CHUNK] for start in range(0, len(cases), _CHUNK)]
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            drawn = list(pool.map(lambda chunk: _draw(chunk, size), chunks))
    else:
        drawn = [_draw(chunk, size) for chunk in chunks]
    if not drawn:
        nothing = np.zeros((0, size, size), np.float32)
        return Rendered(
            attenuation=nothing, masks=np.zeros((0, len(FINDINGS), size, size), bool), boxes=np.zeros((0, len(FINDINGS), 4), np.int16)
        )
    masks = np.concatenate([mask for _, mask in drawn])
    return Rendered(attenuation=np.concatenate([film for film, _ in drawn]), masks=masks, boxes=_boxes(masks))


def labels(case: Case) -> NDArray[np.int8]:
    """(F,) of 0 and 1."""
    present = {finding.name for finding in case.findings}
    return np.array([name in present for name in FINDINGS], np.int8)


def severities(case: Case) -> NDArray[np.float32]:
    """(F,) in [0, 1]; 0 where the finding is not there."""
    found = {finding.name: finding.severity for finding in case.findings}
    return np.array([found.get(name, 0.0) for name in FINDINGS], np.float32)


def _draw(cases: Sequence[Case], size: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    chest = thorax(cases, size)
    body = chest.body
    generators = [random(*case.seed, 1003) for case in cases]
    coarse, medium, fine = (smooth_noise(generators, cells, size) for cells in (11, 34, 80))
    tree = vessels(cases, body, size) * np.minimum(chest.air / np.float32(0.5), 1)
    lung = 0.19 + 0.018 * coarse + 0.020 * medium + 0.022 * fine
    film = Film(thorax=chest, lung=lung.astype(np.float32), vessels=tree, coarse=coarse, medium=medium)
    masks = paint(film, cases)
    tissue = chest.tissue * (1 + 0.012 * coarse + 0.008 * medium)
    total = tissue + chest.bone * np.minimum(chest.tissue, 1) - chest.air * (1 - film.lung) + film.vessels
    return np.maximum(total, 0).astype(np.float32), masks


def _boxes(masks: NDArray[np.bool_]) -> NDArray[np.int16]:
    columns, rows = np.any(masks, axis=2), np.any(masks, axis=3)
    height, width = masks.shape[2:]
    left, top = columns.argmax(axis=2), rows.argmax(axis=2)
    right, bottom = width - columns[..., ::-1].argmax(axis=2), height - rows[..., ::-1].argmax(axis=2)
    return np.where(np.any(columns, axis=2)[..., None], np.stack([left, top, right, bottom], axis=2), 0).astype(np.int16)


__all__ = ["FINDINGS", "Case", "Exposure", "Finding", "Patient", "Rendered", "draw_patients", "labels", "render", "severities"]
