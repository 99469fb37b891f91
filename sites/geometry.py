"""One chest's own measures, the grid of patient coordinates a film is drawn on, and the shapes it is drawn with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sites.cases import Case

Real = NDArray[np.floating[Any]]  # float32 throughout; the stubs of numpy promote what numpy does not


@dataclass(frozen=True, kw_only=True)
class Body:
    """What makes this chest this patient's own; each field is (N, 1, 1)."""

    girth: Real
    width: Real
    lung: Real
    apex: Real
    right_dome: Real
    left_dome: Real
    heart: Real
    heart_tilt: Real
    knob: Real
    mediastinum: Real
    shoulder: Real
    scapula: Real
    clavicle: Real
    rib_phase: Real
    rib_spacing: Real
    rib_slope: Real
    rib_width: Real
    bone: Real
    scoliosis: Real
    breast: Real
    thymus: Real
    arm: Real
    chin: Real
    gas: Real
    oblique: Real
    child: Real
    elder: Real
    supine: Real
    vessels: Real


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where each pixel lies in the patient, (N, H, W)."""

    u: Real
    v: Real
    side: Real
    """-1 on the patient's right, 1 on the left."""


def step(x: Real, width: float | Real) -> Real:
    """0 to 1 across `width` centred on x = 0, smoothly."""
    t = np.asarray(x * np.float32(1 / width) if isinstance(width, float) else x / width, dtype=np.float32)
    t += np.float32(0.5)
    np.maximum(t, 0, out=t)
    np.minimum(t, 1, out=t)
    rest = np.float32(3) - np.float32(2) * t
    rest *= t
    rest *= t
    return rest


def chord(squared: Real) -> Real:
    """Chord length of a unit sphere at squared distance from its axis: sqrt(1 - r^2), 0 outside."""
    left = np.subtract(np.float32(1), squared, dtype=np.float32)
    np.maximum(left, 0, out=left)
    return np.sqrt(left, out=left)


def ellipsoid(grid: Grid, u: float | Real, v: float | Real, ru: float | Real, rv: float | Real) -> Real:
    squared = (grid.u - u) * (1 / ru)
    squared *= squared
    other = (grid.v - v) * (1 / rv)
    other *= other
    squared += other
    return chord(squared)


def place(cases: Sequence[Case], size: int) -> Grid:
    """Maps pixels to patient coordinates: the inverse of rotating, enlarging and shifting the chest on the film."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1).astype(np.float32)
    angle = np.deg2rad(np.array([case.exposure.rotation_deg for case in cases], np.float32))[:, None, None]
    zoom = np.array([case.exposure.zoom for case in cases], np.float32)[:, None, None]
    offset = np.array([case.exposure.offset for case in cases], np.float32)[:, :, None, None]
    x, y = axis[None, None, :] - offset[:, 0], axis[None, :, None] - offset[:, 1]
    u = (np.cos(angle) * x + np.sin(angle) * y) / zoom
    v = (np.cos(angle) * y - np.sin(angle) * x) / zoom
    return Grid(u=u, v=v, side=np.where(u < 0, np.float32(-1), np.float32(1)))
