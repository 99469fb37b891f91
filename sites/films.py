"""Phantom films in memory, as a model reads them, with which finding lies in which patch: what the base model is trained on."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sites import phantom, shift
from sites.hospital import PhantomConfig
from sites.phantom import Case

PIXELS, PATCH = 128, 16
_PATCHES = PIXELS // PATCH


@dataclass(frozen=True, kw_only=True)
class Films:
    images: NDArray[np.uint8]
    """(N, 128, 128), [-1, 1] as 0 to 255."""
    labels: NDArray[np.float32]
    """(N, F) of 0 and 1, in the order of `phantom.FINDINGS`."""
    severities: NDArray[np.float32]
    """(N, F) in [0, 1]; 0 where the finding is not there."""
    patches: NDArray[np.bool_]
    """(N, patches, F): which findings lie in which patch."""

    def batch(self, rows: Any) -> torch.Tensor:
        return torch.from_numpy(self.images[rows]).float().mul_(2 / 255).sub_(1)[:, None]


def as_read(stored: NDArray[np.uint16], photometric: str) -> NDArray[np.float32]:
    """(N, H, W) stored values -> (N, 128, 128) in [-1, 1], bone bright: the 1st to 99th percentile, averaged over each new pixel's area."""
    values = stored.astype(np.float32)
    if photometric == "MONOCHROME1":
        values = -values
    low, high = np.percentile(values, (1, 99), axis=(1, 2), keepdims=True).astype(np.float32)
    scaled = np.clip((values - low) / np.maximum(high - low, 1) * 2 - 1, -1, 1)
    weights = _area(stored.shape[-1], PIXELS)
    return np.asarray(weights @ scaled @ weights.T, np.float32)


def _area(old: int, new: int) -> NDArray[np.float32]:
    """(new, old): how much of each old pixel lies in each new one; rows sum to 1."""
    edges = np.arange(new + 1) * old / new
    pixel = np.arange(old)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.asarray(np.maximum(overlap, 0) * new / old, np.float32)


def draw_films(config: PhantomConfig, cases: Sequence[Case], *, threads: int = 2) -> Films:
    """Draws the cases as they are read back, without writing them."""
    chunks = [cases[start : start + 64] for start in range(0, len(cases), 64)]

    def some(chunk: Sequence[Case]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        drawn = phantom.render(chunk, config.size)
        stored = shift.apply(drawn.attenuation, config.shift, [case.exposure for case in chunk])
        images = np.rint((as_read(stored, config.shift.photometric) + 1) * 127.5).astype(np.uint8)
        return images, _patches(drawn.masks)

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(some, chunks))
    return Films(
        images=np.concatenate([images for images, _ in parts]),
        labels=np.stack([phantom.labels(case) for case in cases]).astype(np.float32),
        severities=np.stack([phantom.severities(case) for case in cases]),
        patches=np.concatenate([patches for _, patches in parts]),
    )


def _patches(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    n, f, size, _ = masks.shape
    cell = size // _PATCHES
    cells = masks[:, :, : cell * _PATCHES, : cell * _PATCHES].reshape(n, f, _PATCHES, cell, _PATCHES, cell).sum(axis=(3, 5), dtype=np.int32)
    return np.asarray(cells > 0.03 * cell * cell).reshape(n, f, -1).transpose(0, 2, 1)
