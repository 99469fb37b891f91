"""What is drawn of a run's rounds, as the points of an SVG: one small panel for each thing, and one scale for those that compare."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rainhill.messages import SiteId
from rainhill.told import MEASURES
from server.console.words import number, size
from server.history import Kept

WIDTH, HEIGHT = 280.0, 120.0
LEFT, RIGHT, TOP, BOTTOM = 6.0, 6.0, 10.0, 10.0
MOST = 400
"""Rounds that are drawn; of more, each so many-th."""
Series = Mapping[int, float]
"""Round -> value."""


@dataclass(frozen=True, kw_only=True)
class Stroke:
    name: str
    """Empty where the panel has one only."""
    dash: str
    """SVG's stroke-dasharray."""
    points: tuple[str, ...]
    """Of polylines: a value that is not finite breaks the line."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    title: str
    words: str
    """The same for who does not see it."""
    strokes: tuple[Stroke, ...]
    low: str
    high: str
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Panels that share a scale."""

    title: str
    hint: str
    panels: tuple[Panel, ...]


def curves_of(rounds: Sequence[Kept]) -> list[Curves]:
    """Of what the sites released, and of what the coordinator saw itself; nothing before there are two rounds."""
    drawn = rounds[:: math.ceil(len(rounds) / MOST)] if rounds else ()
    if len(drawn) < 2:
        return []
    told = "Released by the site's policy. One scale for all sites."
    losses: dict[SiteId, dict[int, float]] = {}
    for kept in drawn:
        for site, loss in kept.record.losses.items():
            losses.setdefault(site, {})[kept.record.round] = loss
    found = [_by_site("Training loss", f"Mean over the last steps of a round. {told}", losses)] if losses else []
    for metric in sorted({name for kept in drawn for one in kept.record.evaluations.values() for name in one}):
        values: dict[SiteId, dict[int, float]] = {}
        for kept in drawn:
            for site, one in kept.record.evaluations.items():
                if metric in one:
                    values.setdefault(site, {})[kept.record.round] = one[metric]
        name = MEASURES.get(metric, metric)
        found.append(_by_site(f"{name[:1].upper()}{name[1:]} on validation patients", told, values))
    return [*found, _of_rounds(drawn)]


def _by_site(title: str, hint: str, values: Mapping[SiteId, Series]) -> Curves:
    finite = [value for one in values.values() for value in one.values() if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    panels = [_panel(site, [(site, one)], low, high, number) for site, one in sorted(values.items())]
    return Curves(title=title, hint=hint, panels=tuple(panels))


def _of_rounds(drawn: Sequence[Kept]) -> Curves:
    seconds = {kept.record.round: kept.record.seconds for kept in drawn}
    down = {kept.record.round: float(sum(kept.record.down_bytes.values())) for kept in drawn}
    up = {kept.record.round: float(sum(kept.record.up_bytes.values())) for kept in drawn}
    most = max((*down.values(), *up.values()))
    panels = (
        _panel("Seconds", [("", seconds)], 0.0, max(seconds.values()), lambda value: f"{value:.0f} s"),
        _panel("Bytes", [("down", down), ("up", up)], 0.0, most, size),
    )
    return Curves(title="Time and traffic of each round", hint="Of all sites together; down are plans, up are updates.", panels=panels)


def _panel(title: str, lines: Sequence[tuple[str, Series]], low: float, high: float, told: Callable[[float], str]) -> Panel:
    rounds = sorted({key for _, values in lines for key in values})
    first, last = rounds[0], rounds[-1]
    strokes = [
        Stroke(
            name=name if len(lines) > 1 else "",
            dash="" if place == 0 else "6 4",
            points=tuple(_polylines(values, first, last, low, high)),
        )
        for place, (name, values) in enumerate(lines)
    ]
    words = "; ".join(
        f"{f'{stroke.name}: ' if stroke.name else ''}{_told(values, told)}" for stroke, (_, values) in zip(strokes, lines, strict=True)
    )
    return Panel(title=title, words=f"{title}: {words}", strokes=tuple(strokes), low=told(low), high=told(high), first=first, last=last)


def _told(values: Series, told: Callable[[float], str]) -> str:
    first, last = min(values), max(values)
    return f"{told(values[first])} in round {first}, {told(values[last])} in round {last}"


def _polylines(values: Series, first: int, last: int, low: float, high: float) -> list[str]:
    """In the panel's own units, y downwards."""
    pieces: list[list[str]] = [[]]
    for key, value in sorted(values.items()):
        if not math.isfinite(value):
            pieces.append([])
            continue
        x = LEFT + (WIDTH - LEFT - RIGHT) * (key - first) / max(last - first, 1)
        y = TOP + (HEIGHT - TOP - BOTTOM) * ((high - value) / (high - low) if high > low else 0.5)
        pieces[-1].append(f"{x:.1f},{y:.1f}")
    return [" ".join(piece) for piece in pieces if piece]
