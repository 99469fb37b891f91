"""What a run came to at a site, as both consoles show it: each model's level, its gain over the base, and their intervals as pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rainhill.told import ARMS, Interval, Told, Verdict, verdict

BAR, MARGIN = 180.0, 8.0
"""Width of an interval's picture, and what stays free of it at both ends."""
KINDS: Mapping[Verdict, str] = {"better": "good", "not distinguishable": "", "worse": "bad", "not measured": ""}


@dataclass(frozen=True, kw_only=True)
class Whisker:
    """A value with its interval, on a line that others share."""

    low: float
    value: float
    high: float
    zero: float | None
    """Where nothing would be gained or lost; None where that is not on the line."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    words: str
    level: Interval | None
    """By the run's measure."""
    gain: Interval | None
    """Over the base; None of the base itself, and where it cannot be measured."""
    at: Whisker | None
    gained: Whisker | None
    verdict: Verdict | None
    """None of the base."""

    @property
    def kind(self) -> str:
        return KINDS[self.verdict] if self.verdict else ""


def arms_of(told: Told) -> tuple[Arm, ...]:
    """The base, the shared adapter, and what the site would use: the shared adapter with its own part."""
    level = [getattr(told.levels, arm) for arm in ARMS]
    gain = [getattr(told.gain, arm, None) for arm in ARMS]
    at, gained = whiskers(level), whiskers(gain, about_zero=True)
    return tuple(
        Arm(
            words=words,
            level=level[number],
            gain=gain[number],
            at=at[number],
            gained=gained[number],
            verdict=None if arm == "base" else verdict(gain[number]),
        )
        for number, (arm, words) in enumerate(ARMS.items())
    )


def whiskers(intervals: Sequence[Interval | None], *, about_zero: bool = False) -> list[Whisker | None]:
    """On one line for all of them, so that they can be compared; None where nothing could be measured."""
    known = [one for one in intervals if one is not None]
    edges = [edge for one in known for edge in (one.low, one.high)] + ([0.0] if about_zero else [])
    low, high = min(edges, default=0.0), max(edges, default=1.0)
    span = (high - low) or 1.0

    def at(value: float) -> float:
        return round(MARGIN + (BAR - 2 * MARGIN) * (value - low) / span, 1)

    return [
        Whisker(low=at(one.low), value=at(one.value), high=at(one.high), zero=at(0.0) if about_zero else None) if one is not None else None
        for one in intervals
    ]
