"""Normal anatomy of the chest as maps of X-ray attenuation: tissue thickness in units of the mean free path.

A film is what is left of the beam behind the body, so everything here adds to, or for air takes away from, one line integral. Maps are
(N, H, W) float32 on patient coordinates: u from the patient's right to left (left to right on the film), v from head to foot,
both 0 in the middle of the film and about 0.7 at the rib cage. Rounded things are ellipsoids: their chord length gives
the soft, then sharp, edge that a real silhouette has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sites import skeleton
from sites.cases import Case, random
from sites.geometry import Body, Grid, Real, chord, ellipsoid, place, step


def body(cases: Sequence[Case]) -> Body:
    """Draws each case's anatomy from its patient's seed, age and sex; the film's own inspiration and obliquity on top."""
    z = np.stack([random(*case.seed, 1001).standard_normal(32) for case in cases]).astype(np.float32)[:, :, None, None]

    def column(values: Sequence[float]) -> Real:
        return np.asarray(values, dtype=np.float32)[:, None, None]

    def severity(name: str) -> Real:
        return column([next((0.3 + 0.7 * f.severity for f in case.findings if f.name == name), 0.0) for case in cases])

    age = column([case.age for case in cases])
    female = column([case.sex == "F" for case in cases])
    supine = column([case.exposure.view == "AP" for case in cases])
    breath = column([case.exposure.inspiration for case in cases])
    magnification = column([case.exposure.magnification for case in cases])
    habitus = column([case.habitus for case in cases])
    child = _logistic((9 - age) / 2.2)
    elder = _logistic((age - 70) / 5)
    large, wet, collapse = severity("cardiomegaly"), severity("oedema"), severity("atelectasis")
    girth = np.clip(1.0 + 0.13 * (z[:, 0] + habitus) - 0.38 * child, 0.5, 1.6)
    dome = 0.40 + 0.04 * z[:, 1] + 0.035 * breath - 0.09 * supine - 0.10 * child + 0.03 * elder - 0.04 * collapse
    heart = (1.0 + 0.035 * z[:, 2] + 0.17 * child + 0.03 * elder) * (1 + 0.34 * large + 0.05 * wet) * magnification
    grown = step(age - 13, 4.0)
    return Body(
        girth=girth,
        width=np.clip(0.86 + 0.04 * z[:, 3] + 0.22 * (girth - 1) + 0.05 * child, 0.74, 1.1),
        lung=0.715 + 0.022 * z[:, 4] - 0.015 * female + 0.015 * supine,
        apex=-0.78 + 0.025 * z[:, 5] + 0.05 * elder + 0.03 * supine,
        right_dome=dome,
        left_dome=dome + 0.045 + 0.015 * z[:, 6],
        heart=heart,
        heart_tilt=0.62 + 0.12 * z[:, 7] - 0.25 * supine - 0.25 * child + 0.15 * (1 - girth),
        knob=(0.075 + 0.008 * z[:, 8] + 0.03 * elder - 0.02 * child) * (0.5 + 0.5 * magnification),
        mediastinum=0.105 + 0.008 * z[:, 9] + 0.02 * supine + 0.015 * elder,
        shoulder=-0.74 + 0.03 * z[:, 10] - 0.05 * supine,
        scapula=0.74 + 0.03 * z[:, 11] - 0.15 * supine,
        clavicle=-0.55 + 0.03 * z[:, 12] - 0.06 * supine - 0.03 * child,
        rib_phase=0.25 * z[:, 13],
        rib_spacing=0.145 + 0.005 * z[:, 14] - 0.012 * child + 0.004 * elder,
        rib_slope=np.clip(0.30 + 0.035 * z[:, 15] - 0.12 * child - 0.05 * supine, 0.1, 0.45),
        rib_width=0.21 + 0.015 * z[:, 16] + 0.03 * child,
        bone=np.clip(1 + 0.10 * z[:, 17] - 0.25 * elder - 0.05 * female, 0.5, 1.4),
        scoliosis=0.012 * z[:, 18] * (1 + elder),
        breast=np.clip(0.85 + 0.2 * z[:, 19] + 0.5 * (girth - 1), 0.4, 1.5) * female * grown,
        thymus=np.clip(0.11 + 0.05 * z[:, 20], 0, 0.24) * _logistic((3 - age) / 0.8),
        arm=0.98 + 0.04 * z[:, 21] - 0.04 * supine,
        chin=-1.16 + 0.05 * z[:, 22] + 0.10 * supine * child + 0.07 * elder + 0.05 * supine,
        gas=z[:, 23],
        oblique=0.022 * column([case.exposure.oblique for case in cases]),
        child=child,
        elder=elder,
        supine=supine,
        vessels=(1 + 0.12 * z[:, 24] + 0.15 * supine) * (1 + 0.4 * wet),
    )


def _logistic(x: Real) -> Real:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x), dtype=np.float32)


@dataclass(kw_only=True)
class Thorax:
    """The layers of a film before they are summed, (N, H, W) each; findings are painted into them."""

    grid: Grid
    body: Body
    tissue: Real
    bone: Real
    air: Real
    """Length of air in the beam, taken away from the tissue."""
    inside: Real
    """1 within the rib cage above the diaphragm, heart included, soft at its edge."""
    lateral: Real
    """|u| as a fraction of the rib cage's half width at that height."""


def thorax(cases: Sequence[Case], size: int) -> Thorax:
    b, grid = body(cases), place(cases, size)
    across = np.abs(grid.u)
    cage = _cage(b, grid)
    lateral = across / cage
    heart, mediastinum = _heart(b, grid), _mediastinum(b, grid)
    domes = _domes(b, grid)
    cavity = 1.95 * (0.45 + 0.55 * b.girth) * chord(np.square(lateral)) * step(grid.v - b.apex, 0.22)
    solid = heart + mediastinum + domes
    air = cavity - solid
    air = np.asarray(0.5 * (air + np.sqrt(air * air + np.float32(0.004))) - 0.03, dtype=np.float32)  # a rounded max(air, 0)
    air = np.maximum(air, 0) * (cavity > 0.02)
    inside = (lateral < 1) * np.clip(1.6 - domes, 0, 1) * (cavity > 0.05)
    tissue = _soft_tissue(b, grid, across)
    return Thorax(grid=grid, body=b, tissue=tissue, bone=skeleton.bones(b, grid, across, lateral), air=air, inside=inside, lateral=lateral)


def _cage(b: Body, grid: Grid) -> Real:
    """Half width of the rib cage at each height: a barrel, round at the apex."""
    up = np.clip((0.22 - grid.v) / (0.22 - b.apex), 0, 1.2)
    barrel = np.sqrt(np.maximum(1 - up * up * (0.30 + 0.70 * up * up), 0.004))
    down = np.maximum(grid.v - 0.22, 0)
    return np.asarray(b.lung * barrel * (1 - 0.10 * down * (1 - 1.6 * b.child)), dtype=np.float32)


def _heart(b: Body, grid: Grid) -> Real:
    """Depth of heart and great vessels along the beam: left ventricle, right atrium, aortic knob, pulmonary trunk."""
    floor = 0.5 * (b.right_dome + b.left_dome)
    x, y = grid.u - (0.085 + 0.10 * (b.heart - 1) + b.oblique), grid.v - (floor - 0.155 * b.heart)
    cos, sin = np.cos(b.heart_tilt), np.sin(b.heart_tilt)
    along, thick = (x * cos + y * sin) / (0.345 * b.heart), (y * cos - x * sin) / (0.245 * b.heart)
    ventricle = chord(along * along + thick * thick)
    atrium = ellipsoid(grid, -0.035 + b.oblique, floor - 0.16 * b.heart, 0.165 * b.heart, 0.225 * b.heart)
    knob = ellipsoid(grid, 0.085 + 0.3 * (b.knob - 0.075), -0.335, b.knob * 1.05, b.knob * 1.15)
    trunk = ellipsoid(grid, 0.075 + b.oblique, -0.11, 0.105 * b.heart, 0.17)
    apron = ellipsoid(grid, 0.02 + b.oblique, floor - 0.02, 0.27 * b.heart, 0.24)  # the cardiophrenic fat, on the diaphragm
    chambers = np.maximum(np.maximum(ventricle, atrium), 0.9 * apron)
    return np.asarray(1.75 * chambers + 1.1 * knob + 0.9 * trunk, dtype=np.float32)


def _mediastinum(b: Body, grid: Grid) -> Real:
    top = step(-0.42 - grid.v, 0.36)
    half = b.mediastinum * (1 + 0.55 * top) + b.thymus * step(-0.12 - grid.v, 0.12) * step(grid.v + 0.75, 0.3)
    offset = 0.35 * b.oblique + 0.02 * (grid.v < -0.3) * b.elder
    t = np.square((grid.u - offset) / half)
    descending = chord(np.square((grid.u - 0.075 - 0.03 * b.elder) / (0.055 + 0.012 * b.elder))) * step(grid.v + 0.32, 0.1)
    return np.asarray(2.3 * np.maximum(1 - t * t, 0) + 0.5 * descending, dtype=np.float32)


def _domes(b: Body, grid: Grid) -> Real:
    """Depth of what lies under the diaphragm: the liver on the right, stomach and spleen on the left."""
    right = ellipsoid(grid, -0.37, b.right_dome + 0.42, 0.47, 0.42)
    left = ellipsoid(grid, 0.40, b.left_dome + 0.40, 0.46, 0.40)
    below = step(grid.v - (b.right_dome + 0.33), 0.22)
    return np.asarray(2.7 * np.maximum(right, left) + 2.7 * below, dtype=np.float32)


def _soft_tissue(b: Body, grid: Grid, across: Real) -> Real:
    """Trunk, neck, shoulders, arms, chin, breasts; less the airway and the gas under the left dome."""
    trapezius = step(grid.v - (b.shoulder - 0.12 + 0.16 * across), 0.30)
    wide = 0.23 + 0.03 * b.girth + (b.width + 0.05 * step(grid.v - 0.45, 0.5) - 0.26) * trapezius
    trunk = np.square(across / wide)
    depth = 3.05 * b.girth + 0.55 * b.girth * step(grid.v - b.right_dome - 0.05, 0.5) - 0.7 * step(-0.62 - grid.v, 0.5)
    tissue = depth * np.sqrt(np.maximum(1 - trunk * trunk, 0))
    shoulder = chord(np.square((across - 0.86) / 0.34) + np.square((grid.v - b.shoulder - 0.38) / 0.36))
    arm = chord(np.square((across - b.arm - 0.16 - 0.10 * grid.v * (1 - b.supine)) / (0.16 + 0.04 * b.girth))) * step(
        grid.v - b.shoulder - 0.2, 0.3
    )
    tissue = np.maximum(tissue, 1.9 * b.girth * np.maximum(shoulder, arm)) + 0.25 * tissue * shoulder
    tissue = np.maximum(tissue, 2.6 * ellipsoid(grid, 2 * b.oblique, b.chin - 0.12, 0.36, 0.34))
    if b.breast.any():
        r = 0.27 * np.sqrt(np.maximum(b.breast, 0.05))
        breast = chord(np.square((across - 0.40) / (r * 1.08)) + np.square((grid.v - 0.20 - 0.12 * b.breast) / r))
        tissue = tissue + 0.62 * b.breast * breast * step(grid.v - 0.10 - 0.1 * b.breast, 0.5) * (1 - 0.35 * b.supine)
    airway = chord(np.square((grid.u + 0.008 - b.oblique) / (0.046 - 0.012 * b.child))) * step(-0.22 - grid.v, 0.10)
    bronchi = chord(np.square((across - 0.03 - 0.55 * (grid.v + 0.25)) / 0.036)) * step(grid.v + 0.27, 0.04) * step(-0.09 - grid.v, 0.08)
    gas = ellipsoid(grid, 0.30 + 0.05 * b.gas, b.left_dome + 0.13, 0.13 + 0.03 * b.gas, 0.075) * step(b.gas + 0.4, 1.0)
    return np.asarray(tissue - 0.42 * airway * (tissue > 0.5) - 0.25 * bronchi - 0.9 * gas, dtype=np.float32)
