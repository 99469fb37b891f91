"""Plots as data: where each line, tick and word of them lies, in units of the picture. The templates write them as SVG."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from client.privacy.course import Point

WIDTH, HEIGHT = 720.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 708.0, 34.0, 256.0
"""Of the field that is drawn in."""
ROOM = 1.1
"""The field is so much higher than what is in it."""
CHARACTER = 6.6
"""Of a run's name, at most, in width."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    at: float
    words: str


@dataclass(frozen=True, kw_only=True)
class Band:
    """The charges of one run, next to each other."""

    start: float
    end: float
    tinted: bool
    name: str
    """Cut where there is no room for it; empty where there is none at all."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    line: str
    """Points, as a polyline has them."""
    end: tuple[float, float]
    budget: float | None
    """Where its line is; None without one."""
    down: tuple[Tick, ...]
    """Of the vertical axis, and of the horizontal."""
    along: tuple[Tick, ...]
    bands: tuple[Band, ...]


def curve(points: Sequence[Point], limit: float | None) -> Curve:
    count = max((point.charges for point in points), default=1)
    top = ROOM * max([limit or 0.0, *(point.epsilon for point in points), 0.01])

    def across(charges: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * charges / count, 1)

    def up(epsilon: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * epsilon / top, 1)

    places = [(across(0), up(0)), *((across(point.charges), up(point.epsilon)) for point in points)]
    return Curve(
        line=" ".join(f"{x},{y}" for x, y in places),
        end=places[-1],
        budget=up(limit) if limit is not None else None,
        down=tuple(Tick(at=up(value), words=f"{value:g}") for value in steps(top)),
        along=tuple(Tick(at=across(value), words=f"{value:g}") for value in steps(count) if value == int(value)),
        bands=tuple(_bands(points, across)),
    )


def _bands(points: Sequence[Point], across: Callable[[float], float]) -> list[Band]:
    ends = [list(group)[-1] for _, group in groupby(points, key=lambda point: point.run)]
    edges = [0, *(point.charges for point in ends)]
    found = []
    for number, ((start, end), last) in enumerate(zip(pairwise(edges), ends, strict=True)):
        left, right = across(start), across(end)
        found.append(Band(start=left, end=right, tinted=number % 2 == 0, name=_cut(last.run, int((right - left) / CHARACTER))))
    return found


def _cut(name: str, room: int) -> str:
    if len(name) <= room:
        return name
    return f"{name[: room - 1]}…" if room > 3 else ""


def steps(top: float) -> list[float]:
    """From 0 to `top` at most, five or so, of numbers that people count in."""
    raw = top / 5
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    return [round(step * number, 10) for number in range(int(top / step) + 1)]
