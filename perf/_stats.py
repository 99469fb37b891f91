"""Means with intervals over seeds, and the pixels that a plain baseline sees."""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from scipy import stats

from rainhill.adapter import Array


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean, low, high by Student's t; low = high = mean for a single value."""
    array = np.asarray(values, dtype=float)
    mean = float(array.mean())
    if len(array) < 2:
        return mean, mean, mean
    half = float(stats.t.ppf((1 + confidence) / 2, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return mean, mean - half, mean + half


def show(values: Sequence[float], digits: int = 3) -> str:
    mean, low, high = mean_interval(values)
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def pixels(images: Iterable[Array]) -> Array:
    """(N, 1, H, W) -> (N, 1024): 32x32 pixels, each film standardised."""
    small = np.stack([np.asarray(Image.fromarray(image[0]).resize((32, 32), Image.Resampling.BOX)) for image in images])
    flat = small.reshape(len(small), -1)
    return np.asarray((flat - flat.mean(axis=1, keepdims=True)) / flat.std(axis=1, keepdims=True))
