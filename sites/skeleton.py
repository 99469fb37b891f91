"""Bones as maps of attenuation: ribs as one warped periodic field, the spine, clavicles, scapulae and the heads of the humeri."""

import numpy as np

from sites.geometry import Body, Grid, Real, chord, ellipsoid, step


def _tube(distance: Real) -> Real:
    """A hollow bone across the beam at `distance` in half widths: bright cortex, paler marrow."""
    squared = distance * distance
    return np.asarray(np.sqrt(np.maximum(1 - squared, 0)) - 0.55 * np.sqrt(np.maximum(0.62 - squared, 0)), dtype=np.float32)


def bones(b: Body, grid: Grid, across: Real, lateral: Real) -> Real:
    return np.asarray(b.bone * (_ribs(b, grid, lateral) + _spine(b, grid) + _girdle(b, grid, across)), dtype=np.float32)


def _ribs(b: Body, grid: Grid, lateral: Real) -> Real:
    """All ribs as one periodic field: the posterior arcs fall outwards, the anterior ones go on falling inwards."""
    edge = np.minimum(lateral, 1.06)
    spacing = b.rib_spacing * (1 + 0.22 * grid.v)
    back = (grid.v - b.rib_slope * edge * (1.15 * edge - 0.30) - b.apex) / spacing + b.rib_phase
    front = (grid.v - b.rib_slope * (0.85 + 1.15 * (1 - edge)) - b.apex) / spacing + b.rib_phase
    in_back, in_front = step(back - 0.4, 0.5) * step(11.0 - back, 1.5), step(front - 0.4, 0.5) * step(7.2 - front, 1.5)
    back, front = back - np.round(back), front - np.round(front)
    wall = np.minimum(1 / np.sqrt(np.maximum(1.09 - edge * edge, 0.05)), 2.6) * (lateral < 1.055)
    posterior = _tube(back / b.rib_width) * in_back * step(lateral - 0.10, 0.15)
    anterior = _tube(front / (b.rib_width * 1.2)) * in_front * step(lateral - 0.50, 0.30) * (1 - 0.5 * b.child)
    return np.asarray(
        (0.25 * posterior + 0.15 * anterior) * (0.55 + 0.45 * wall) * (1 - 0.55 * step(grid.v - b.right_dome - 0.1, 0.3)), dtype=np.float32
    )


def _spine(b: Body, grid: Grid) -> Real:
    """Vertebral bodies with their discs, pedicles and spinous processes."""
    u = grid.u - b.scoliosis * np.sin(3 * grid.v) - 0.4 * b.oblique
    height = 0.118 + 0.03 * grid.v
    level = grid.v / height + b.rib_phase
    level = level - np.round(level)
    half = 0.078 + 0.018 * step(grid.v - 0.1, 1.2) - 0.012 * b.child
    t = np.square(u / half)
    disc = np.square(np.minimum(np.abs(level) / 0.5, 1))
    column = np.maximum(1 - t * t * t, 0) * (0.40 - 0.18 * disc * disc) * (1 - 0.35 * step(grid.v - 0.1, 0.6))
    pedicle = chord(np.square((np.abs(u) - 0.62 * half) / 0.018) + np.square((level + 0.15) / 0.22))
    process = chord(np.square(u / 0.014) + np.square((level - 0.25) / 0.3))
    return np.asarray(column + 0.08 * pedicle + 0.09 * process, dtype=np.float32)


def _girdle(b: Body, grid: Grid, across: Real) -> Real:
    """Clavicles, scapulae and the heads of the humeri."""
    t = (across - 0.065 - b.oblique * grid.side) / 0.64
    curve = b.clavicle + 0.06 - 0.19 * t + 0.03 * np.sin(6.0 * t)
    ends = step(t, 0.06) * step(1.04 - t, 0.06)
    clavicle = _tube((grid.v - curve) / (0.036 + 0.014 * np.square(np.clip(1 - t, 0, 1)) - 0.006 * b.child)) * ends
    s = b.scapula
    medial = across - (s - 0.02 + 0.10 * (grid.v + 0.3))
    outer = (s + 0.19) - across - 0.42 * (grid.v + 0.35)
    upper = grid.v - (b.clavicle - 0.02 - 0.25 * (across - s))
    lower = 0.10 - grid.v + 0.8 * (across - s)
    rim = np.minimum(np.minimum(medial, outer), np.minimum(upper, lower))
    blade = 0.10 * step(rim, 0.03) + 0.15 * np.square(np.maximum(1 - np.square((rim - 0.012) / 0.022), 0))
    head = ellipsoid(Grid(u=across, v=grid.v, side=grid.side), b.arm - 0.03, b.clavicle + 0.05, 0.105, 0.115)
    shaft = _tube((across - b.arm - 0.05 - 0.16 * (grid.v + 0.4)) / 0.055) * step(grid.v - b.clavicle - 0.13, 0.1)
    return np.asarray(0.55 * clavicle + blade + 0.33 * head + 0.36 * shaft * (across < 1.4), dtype=np.float32)
