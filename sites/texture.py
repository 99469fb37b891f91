"""What is too fine for a formula: noise fields, blurring, points and curves splatted onto a film, and the vessels of the lung."""

from collections.abc import Sequence

import numpy as np

from sites.cases import Case, random
from sites.geometry import Body, Real

_PRIMARY, _SECONDARY, _TERTIARY = 13, 3, 2


def smooth_noise(generators: Sequence[np.random.Generator], cells: int, size: int) -> Real:
    """(N, size, size) of unit variance at the nodes of a `cells` x `cells` lattice, smooth in between."""
    lattice = np.stack([rng.standard_normal((cells + 2, cells + 2), dtype=np.float32) for rng in generators])
    at = np.arange(size, dtype=np.float32) * np.float32(cells / size)
    low = at.astype(np.intp)
    part = at - low
    part = part * part * (3 - 2 * part)
    rows = lattice[:, low] * (1 - part)[None, :, None] + lattice[:, low + 1] * part[None, :, None]
    return np.asarray(rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part, dtype=np.float32)


def blur(maps: Real, sigma_px: float) -> Real:
    """Separable Gaussian by shifted sums; a value depends on its own neighbourhood only, whatever the batch."""
    radius = max(1, int(np.ceil(2.5 * sigma_px)))
    kernel = np.exp(-0.5 * np.square(np.arange(radius + 1) / max(sigma_px, 1e-3)))
    kernel = (kernel / (2 * kernel.sum() - kernel[0])).astype(np.float32)
    for axis in (1, 2):
        pad = [(0, 0)] * maps.ndim
        pad[axis] = (radius, radius)
        padded = np.pad(maps, pad, mode="edge")
        length = maps.shape[axis]
        windows = [padded[:, k : k + length] if axis == 1 else padded[:, :, k : k + length] for k in range(2 * radius + 1)]
        maps = kernel[0] * windows[radius]
        for k in range(1, radius + 1):
            maps += kernel[k] * (windows[radius - k] + windows[radius + k])
    return maps


def to_pixels(case: Case, u: Real, v: Real, size: int) -> tuple[Real, Real]:
    """Patient coordinates to (x, y) in pixels: the way opposite to `geometry.place`."""
    pose = case.exposure
    cos, sin = np.cos(np.deg2rad(pose.rotation_deg)), np.sin(np.deg2rad(pose.rotation_deg))
    x = (cos * u - sin * v) * pose.zoom + pose.offset[0]
    y = (sin * u + cos * v) * pose.zoom + pose.offset[1]
    return np.asarray((x + 1) * size / 2 - 0.5, np.float32), np.asarray((y + 1) * size / 2 - 0.5, np.float32)


def splat(x: Real, y: Real, weight: Real, size: int) -> Real:
    """Adds points to a (size, size) map, each shared between its four pixels."""
    keep = (x >= 0) & (y >= 0) & (x < size - 1) & (y < size - 1)
    x, y, weight = x[keep], y[keep], weight[keep]
    column, row = x.astype(np.intp), y.astype(np.intp)
    fx, fy = x - column, y - row
    flat = row * size + column
    index = np.concatenate([flat, flat + 1, flat + size, flat + size + 1])
    share = np.concatenate([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy]) * np.tile(weight, 4)
    return np.bincount(index, share, minlength=size * size).reshape(size, size).astype(np.float32)


def vessels(cases: Sequence[Case], body: Body, size: int) -> Real:
    """(N, size, size): pulmonary vessels, trees that fan out from each hilum and taper; the same tree on every film of a patient."""
    thick, fine = np.empty((len(cases), size, size), np.float32), np.empty((len(cases), size, size), np.float32)
    for n, case in enumerate(cases):
        rng = random(*case.seed, 1002)
        trees = [_tree(rng, side, float(body.lung[n, 0, 0]), float(body.right_dome[n, 0, 0])) for side in (-1.0, 1.0)]
        for out, level in ((thick, 0), (fine, 1)):
            u, v, w = (np.concatenate([tree[level][k] for tree in trees]) for k in range(3))
            x, y = to_pixels(case, u, v, size)
            out[n] = splat(x, y, w * np.float32(size / 192), size)
    scale = size / 192
    return np.asarray(body.vessels * (1.05 * blur(thick, 1.4 * scale) + 0.42 * blur(fine, 0.7 * scale)), dtype=np.float32)


def _tree(rng: np.random.Generator, side: float, lung: float, dome: float) -> list[tuple[Real, Real, Real]]:
    """[(u, v, weight) of the trunks, the same of the branches] as points a pixel or so apart."""
    hilum_u, hilum_v = 0.15, -0.06 - 0.04 * (side > 0)
    jitter = rng.random((_PRIMARY, 4)).astype(np.float32)
    angle = np.linspace(-1.45, 1.25, _PRIMARY, dtype=np.float32) + 0.25 * (jitter[:, 0] - 0.5)
    reach = np.minimum(
        (lung - 0.20) / np.maximum(np.cos(angle), 0.25), np.where(angle > 0, dome + 0.22, 0.60) / np.maximum(np.abs(np.sin(angle)), 0.2)
    )
    reach = reach * (0.75 + 0.3 * jitter[:, 1])
    trunk = _grow(
        np.full(_PRIMARY, hilum_u), hilum_v + 0.12 * np.sin(angle), angle, reach, 0.5 * (jitter[:, 2] - 0.5), 0.55 + 0.35 * (angle > 0), 44
    )
    extra = rng.random((_PRIMARY, _SECONDARY, 4)).astype(np.float32)
    at = (8 + 30 * extra[..., 0]).astype(np.intp)
    pick = np.arange(_PRIMARY)[:, None]
    turn = angle[:, None] + (0.35 + 0.5 * extra[..., 1]) * np.where(extra[..., 2] < 0.5, -1, 1)
    grown = reach[:, None] * (0.25 + 0.3 * extra[..., 3])
    starts = trunk[0][pick, at].ravel(), trunk[1][pick, at].ravel()
    branch = _grow(*starts, turn.ravel(), grown.ravel(), extra[..., 1].ravel() - 0.5, np.full(turn.size, 0.55), 26)
    last = rng.random((turn.size, _TERTIARY, 3)).astype(np.float32)
    at = (6 + 18 * last[..., 0]).astype(np.intp)
    pick = np.arange(turn.size)[:, None]
    twig_turn = turn.ravel()[:, None] + (0.4 + 0.5 * last[..., 1]) * np.where(last[..., 2] < 0.5, -1, 1)
    twig_reach = np.broadcast_to(0.55 * grown.ravel()[:, None], twig_turn.shape)
    starts = branch[0][pick, at].ravel(), branch[1][pick, at].ravel()
    twig = _grow(*starts, twig_turn.ravel(), twig_reach.ravel(), last[..., 0].ravel() - 0.5, np.full(twig_turn.size, 0.32), 14)
    both = [np.concatenate([branch[k].ravel(), twig[k].ravel()]) for k in range(3)]
    levels = [[part.ravel() for part in trunk], both]
    return [(np.float32(side) * u, v, w) for u, v, w in levels]


def _grow(u: Real, v: Real, angle: Real, reach: Real, bend: Real, weight: Real, points: int) -> tuple[Real, Real, Real]:
    t = np.linspace(0, 1, points, dtype=np.float32)
    heading = angle[:, None] + bend[:, None] * t
    step = reach[:, None] / points
    along_u = u[:, None] + np.cumsum(np.cos(heading), axis=1, dtype=np.float32) * step
    along_v = v[:, None] + np.cumsum(np.sin(heading), axis=1, dtype=np.float32) * step
    # Density of points differs with reach: weight by their distance so that brightness does not.
    taper = weight[:, None] * (1 - 0.8 * t) * step * 96
    return along_u.astype(np.float32), along_v.astype(np.float32), taper.astype(np.float32)
