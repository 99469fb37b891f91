"""Lines, tubes and pacemakers: curves through anatomical landmarks, denser than bone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sites.cases import Case, Finding
from sites.geometry import Real, step
from sites.texture import blur, splat, to_pixels


def draw(cases: Sequence[Case], findings: Sequence[Finding], w: Real, v: Real) -> tuple[Real, NDArray[np.bool_]]:
    """(what they add to the attenuation, where they are), (N, H, W); `w` and `v` as in `lesions.Part`."""
    size = w.shape[-1]
    drawn = np.zeros_like(w)
    for n, (case, finding) in enumerate(zip(cases, findings, strict=True)):
        side = -1.0 if finding.side == "right" else 1.0
        for knots, weight in _routes(finding, side):
            curve = _through(np.asarray(knots, np.float32))
            x, y = to_pixels(case, curve[:, 0], curve[:, 1], size)
            length = np.hypot(np.diff(x, append=x[-1:]), np.diff(y, append=y[-1:]))
            drawn[n] += splat(x, y, (weight * length).astype(np.float32), size)
    lines = blur(drawn, 0.75 * size / 192)
    strength = 0.85 + 0.9 * _column([finding.severity for finding in findings])
    place = [_column([finding.place[k] for finding in findings]) for k in range(2)]
    is_pacemaker = _column([finding.region == "pacemaker" for finding in findings])
    x, y = w - 0.50 - 0.08 * (place[0] - 0.5), v + 0.44 + 0.1 * (place[1] - 0.5)
    can = is_pacemaker * step(1 - np.sqrt(np.sqrt(np.square(np.square(x / 0.085)) + np.square(np.square(y / 0.070)))), 0.25)
    density = np.asarray(strength * lines + (1.3 + 0.4 * (np.abs(x) < 0.05)) * can, np.float32)
    return density, np.asarray(blur((lines > 0.08).astype(np.float32), 1.2 * size / 192) > 0.15) | (can > 0.3)


def _column(values: Sequence[float]) -> Real:
    return np.array(values, np.float32)[:, None, None]


def _routes(finding: Finding, side: float) -> list[tuple[list[tuple[float, float]], float]]:
    """The lines of a device as knots in patient coordinates, each with its density."""
    a, b, _ = finding.place
    tip = -0.12 + 0.14 * b
    if finding.region == "pacemaker":
        start = (side * 0.42, -0.44)
        lead = [start, (side * 0.22, -0.56), (0.04 * side - 0.05, -0.45), (-0.10, -0.15), (-0.02, 0.16 + 0.05 * a), (0.22, 0.24 + 0.05 * b)]
        second = [*lead[:4], (-0.13, 0.02), (-0.08, 0.10)]
        return [(lead, 0.6), *([(second, 0.6)] if a > 0.5 else [])]
    if finding.region == "tube":
        tracheal = [(-0.01 + 0.02 * a, -1.15), (-0.01, -0.8), (-0.012, -0.52 + 0.12 * b)]
        gastric = [(0.02, -1.15), (0.03, -0.6), (0.02, -0.2), (0.03, 0.2), (0.10, 0.42), (0.24, 0.60)]
        return [
            ([(u - 0.022, v) for u, v in tracheal], 0.3),
            ([(u + 0.022, v) for u, v in tracheal], 0.42),
            *([(gastric, 0.42)] if a > 0.35 else []),
        ]
    if a < 0.5:
        return [([(side * 0.26, -1.05), (side * 0.17, -0.80), (0.05 * side - 0.06, -0.50), (-0.105, -0.30), (-0.10, tip)], 0.5)]
    return [
        (
            [(side * 0.80, -0.40), (side * 0.55, -0.60), (side * 0.26, -0.56), (0.05 * side - 0.06, -0.44), (-0.105, -0.28), (-0.10, tip)],
            0.5,
        )
    ]


def _through(knots: Real) -> Real:
    """A Catmull-Rom curve through the knots, (P, 2), with points closer than a pixel."""
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = np.linspace(0, 1, 64, endpoint=False, dtype=np.float32)[:, None]
    pieces = []
    for k in range(len(knots) - 1):
        p0, p1, p2, p3 = padded[k : k + 4]
        pieces.append(0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3))
    return np.concatenate(pieces).astype(np.float32)
