"""A picture that looks like a chest film and is of nobody."""

import numpy as np
from scipy.special import expit

from rainhill.adapter import Array


def film(size: int) -> Array:
    """(S, S) in [0, 1], bone bright: lungs, heart, spine, ribs, collar bones, and a nodule on the left of the picture."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1

    def oval(centre_x: float, centre_y: float, width: float, height: float, power: float = 2.0) -> Array:
        inside = 1 - np.abs((x - centre_x) / width) ** power - np.abs((y - centre_y) / height) ** power
        return np.asarray(expit(inside / 0.15))

    body = oval(0, 0.35, 0.95, 1.25, 3)
    picture = 0.62 * body - 0.45 * (oval(-0.42, 0.05, 0.3, 0.62, 2.4) + oval(0.42, 0.05, 0.3, 0.62, 2.4))
    picture += 0.3 * oval(0, 0.1, 0.11, 1.3, 4) + 0.32 * oval(0.16, 0.35, 0.33, 0.3) + 0.28 * oval(-0.5, -0.12, 0.1, 0.1)
    for rib in range(5):
        arch = y - (-0.45 + 0.24 * rib + 0.5 * (np.abs(x) - 0.4) ** 2)
        picture += 0.14 * np.exp(-((arch / 0.035) ** 2)) * body
    for side in (-1, 1):
        bone = y + 0.62 - 0.25 * (side * x - 0.1)
        picture += 0.2 * np.exp(-((bone / 0.045) ** 2)) * (side * x > 0.06) * (side * x < 0.75)
    return np.asarray(np.clip(picture, 0, 1))
