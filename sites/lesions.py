"""Findings painted into a thorax, each with its mask; on a supine film fluid layers and air rises, so they look different there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sites import devices
from sites.anatomy import Thorax
from sites.cases import FINDINGS, Case, Finding
from sites.geometry import Body, Real, chord, step

Mask = NDArray[np.bool_]

_LEVEL = {"upper": -0.42, "middle": -0.13, "lower": 0.14}


@dataclass(kw_only=True)
class Film:
    """A batch of films in the making; `lung` is the fraction of the air's path that is tissue, 0.2 in a healthy lung."""

    thorax: Thorax
    lung: Real
    vessels: Real
    coarse: Real
    medium: Real


@dataclass(frozen=True, kw_only=True)
class Part:
    """Those films of a batch that show one finding; `w` is the distance from the midline towards the finding's own side."""

    cases: Sequence[Case]
    findings: Sequence[Finding]
    rows: list[int]
    body: Body
    u: Real
    v: Real
    w: Real
    lateral: Real
    inside: Real
    severity: Real
    place: tuple[Real, Real, Real]
    coarse: Real
    medium: Real

    def level(self) -> Real:
        return np.array([_LEVEL.get(finding.region, 0.0) for finding in self.findings], np.float32)[:, None, None]


def paint(film: Film, cases: Sequence[Case]) -> Mask:
    """Paints every finding of every case and returns the masks (N, F, H, W), in the order of FINDINGS."""
    masks = np.zeros((len(cases), len(FINDINGS), *film.lung.shape[1:]), bool)
    for index, name in enumerate(FINDINGS):
        found = [(row, finding) for row, case in enumerate(cases) for finding in case.findings if finding.name == name]
        if found:
            rows = [row for row, _ in found]
            masks[rows, index] = PAINTERS[name](film, _part(film, cases, rows, [finding for _, finding in found]))
    return masks


def _part(film: Film, cases: Sequence[Case], rows: list[int], findings: list[Finding]) -> Part:
    grid, body = film.thorax.grid, film.thorax.body
    side = np.array([{"left": 1, "right": -1, "both": 0}[finding.side] for finding in findings], np.float32)[:, None, None]
    u = grid.u[rows]
    place = np.array([finding.place for finding in findings], np.float32)[:, :, None, None]
    return Part(
        cases=[cases[row] for row in rows],
        findings=findings,
        rows=rows,
        body=Body(**{field.name: getattr(body, field.name)[rows] for field in fields(Body)}),
        u=u,
        v=grid.v[rows],
        w=np.where(side == 0, np.abs(u), side * u),
        lateral=film.thorax.lateral[rows],
        inside=film.thorax.inside[rows],
        severity=np.array([finding.severity for finding in findings], np.float32)[:, None, None],
        place=(place[:, 0], place[:, 1], place[:, 2]),
        coarse=film.coarse[rows],
        medium=film.medium[rows],
    )


def _fill(film: Film, part: Part, fraction: Real) -> None:
    film.lung[part.rows] = 1 - (1 - film.lung[part.rows]) * (1 - fraction)


def _cardiomegaly(_: Film, part: Part) -> Mask:
    """The heart itself was drawn large by `anatomy.body`; this finds where it is."""
    b = part.body
    floor = 0.5 * (b.right_dome + b.left_dome)
    r = np.square((part.u - 0.06 - 0.10 * (b.heart - 1) - b.oblique) / (0.325 * b.heart)) + np.square(
        (part.v - floor + 0.155 * b.heart) / (0.25 * b.heart)
    )
    return np.asarray(r < 1)


def _effusion(film: Film, part: Part) -> Mask:
    """Upright: a level that rises to the side. Supine: it layers behind the lung, a haze that thickens downwards."""
    s, supine = part.severity, part.body.supine
    depth = (0.02 + 0.50 * s) * (1 - 0.75 * supine)
    edge = np.minimum(part.lateral, 1)
    surface = part.body.right_dome + 0.18 - depth - 0.16 * edge * edge * edge * edge + 0.02 * part.coarse
    pool = step(part.v - surface, 0.14)
    layer = supine * (0.22 + 0.45 * s) * step(part.v - part.body.right_dome + 0.45, 1.1)
    here = step(part.w - 0.02, 0.08)
    _fill(film, part, np.asarray(np.maximum(0.96 * pool, layer) * here, np.float32))
    chest = (part.lateral < 1) & (part.v < part.body.right_dome + 0.20)
    return np.asarray((np.maximum(pool, 2 * layer) * here > 0.4) & chest & (part.w > 0))


def _pneumothorax(film: Film, part: Part) -> Mask:
    """Upright: no lung markings outside a pleural line round the apex. Supine: a deep, dark costophrenic sulcus."""
    s, supine = part.severity, part.body.supine
    rim = (0.05 + 0.24 * s) * (1 - 0.8 * supine)
    crown = (part.v - (part.body.apex + 0.05 + 0.75 * rim)) / 0.55
    border = 1 - rim * step(0.45 - part.v, 1.1) - part.lateral
    border = 0.5 * (border + crown - np.sqrt(np.square(border - crown) + 0.03))  # the lesser of the two, rounded
    corner = np.square((part.lateral - 0.97) / (0.26 + 0.20 * s)) + np.square((part.v - part.body.right_dome - 0.08) / (0.26 + 0.26 * s))
    sulcus = supine * step(1 - corner, 0.5)
    free = np.maximum(step(-border, 0.025), sulcus) * (part.w > 0.06) * part.inside
    line = np.maximum(1 - np.square(border / 0.020), 0) * (part.w > 0.10) * part.inside * (1 - 0.7 * supine)
    film.lung[part.rows] *= 1 - 0.9 * free
    film.lung[part.rows] += 0.10 * s * (1 - free) * (part.w > 0.05)
    film.vessels[part.rows] *= 1 - free
    film.thorax.tissue[part.rows] += (0.12 + 0.08 * s) * line
    return np.asarray((free > 0.5) & (part.lateral < 1))


def _centre(part: Part) -> tuple[Real, Real]:
    """Where in its region a focal finding lies: distance from the midline, height."""
    v = part.level() + 0.18 * (part.place[0] - 0.5)
    room = np.clip((part.v.dtype.type(0.22) - v) / 1.0, 0, 1)
    return np.asarray(0.24 + (0.32 - 0.22 * room * room) * part.place[1], np.float32), np.asarray(v, np.float32)


def _consolidation(film: Film, part: Part) -> Mask:
    s = part.severity
    w, v = _centre(part)
    ru, rv = 0.11 + 0.11 * s, (0.10 + 0.12 * s) * (0.8 + 0.5 * part.place[2])
    r = np.sqrt(np.square((part.w - w) / ru) + np.square((part.v - v) / rv))
    patch = step(1.05 - r + 0.28 * part.coarse + 0.16 * part.medium, 0.75) * (r < 1.9)
    _fill(film, part, np.asarray((0.30 + 0.50 * s) * patch, np.float32))
    film.vessels[part.rows] *= 1 - 1.3 * patch  # past zero: the bronchi stay dark in the consolidated lung
    return np.asarray((patch > 0.4) & (part.inside > 0.3))


def _atelectasis(film: Film, part: Part) -> Mask:
    """Plates of airless lung across the base; the dome of the diaphragm was drawn higher."""
    s = part.severity
    v = np.where(part.level() > 0, part.body.right_dome - 0.15, -0.02) - 0.10 * part.place[0]
    w = 0.26 + 0.14 * part.place[1]
    tilt = 0.7 * (part.place[2] - 0.5)
    along = (part.w - w) + tilt * (part.v - v)
    across = (part.v - v) - tilt * (part.w - w) - 0.25 * np.square(part.w - w)
    ends = step(0.16 + 0.10 * s - np.abs(along), 0.10)
    width = 0.020 + 0.014 * s
    band = np.exp(-np.square(across / width)) + 0.7 * np.exp(-np.square((across + 0.075) / (0.8 * width))) * (part.place[1] > 0.45)
    plate = band * ends * part.inside
    film.thorax.tissue[part.rows] += np.asarray((0.13 + 0.30 * s) * plate, np.float32)
    _fill(film, part, np.asarray(0.22 * ends * step(0.16 - np.abs(across), 0.2) * s, np.float32))
    return np.asarray((band * ends > 0.3) & (part.inside > 0.3))


def _nodule(film: Film, part: Part) -> Mask:
    s = part.severity
    w, v = _centre(part)
    r = np.sqrt(np.square(part.w - w) + np.square((part.v - v) / (0.9 + 0.2 * part.place[2]))) / (0.040 + 0.045 * s)
    film.thorax.tissue[part.rows] += np.asarray((0.26 + 0.34 * s) * chord(r * r), np.float32)
    return np.asarray(r < 1)


def _oedema(film: Film, part: Part) -> Mask:
    """Perihilar haze like a bat's wings, interstitial markings, septal lines at the base; the vessels were drawn full."""
    s, across = part.severity, np.abs(part.u)
    wings = np.exp(-np.square((across - 0.28) / 0.21) - np.square((part.v + 0.02) / 0.34))
    _fill(film, part, np.asarray((0.10 + 0.34 * s) * wings * (1 + 0.20 * part.coarse + 0.18 * part.medium).clip(0.2, 1.8), np.float32))
    film.thorax.tissue[part.rows] += (0.03 + 0.06 * s) * part.medium * part.inside
    level = part.v / 0.042
    septa = (
        np.maximum(1 - np.square((level - np.round(level)) / 0.20), 0)
        * step(part.lateral - 0.84, 0.06)
        * step(part.v - 0.02, 0.1)
        * part.inside
    )
    film.thorax.tissue[part.rows] += (0.05 + 0.11 * s) * septa
    return np.asarray((wings > 0.4) & (part.inside > 0.3))


def _device(film: Film, part: Part) -> Mask:
    drawn, mask = devices.draw(part.cases, part.findings, part.w, part.v)
    film.thorax.bone[part.rows] += drawn
    return mask


PAINTERS: dict[str, Callable[[Film, Part], Mask]] = {
    "cardiomegaly": _cardiomegaly,
    "effusion": _effusion,
    "pneumothorax": _pneumothorax,
    "consolidation": _consolidation,
    "atelectasis": _atelectasis,
    "nodule": _nodule,
    "oedema": _oedema,
    "device": _device,
}
