"""Intervals as pictures, and what a gain is called."""

from rainhill.console.arms import arms_of, whiskers
from rainhill.told import Gains, Interval, Levels, Told


def interval(low: float, value: float, high: float) -> Interval:
    return Interval(low=low, value=value, high=high)


def test_intervals_share_a_line_and_what_cannot_be_measured_has_none() -> None:
    first, none, last = whiskers([interval(0.0, 0.25, 0.5), None, interval(0.5, 0.75, 1.0)])
    assert none is None and first is not None and last is not None
    assert (first.low, first.value, first.high) == (8.0, 49.0, 90.0) and (last.low, last.high) == (90.0, 172.0)
    (gain,) = whiskers([interval(0.2, 0.3, 0.4)], about_zero=True)
    assert gain is not None and gain.zero == 8.0 and gain.low == 90.0


def test_a_gain_whose_interval_touches_zero_tells_of_no_difference() -> None:
    levels = Levels(base=interval(0.6, 0.7, 0.8), shared=interval(0.7, 0.8, 0.9), private=None)
    told = Told(confidence=0.95, measure="label_f1", levels=levels, gain=Gains(shared=interval(0.0, 0.1, 0.2), private=None))
    assert [arm.verdict for arm in arms_of(told)] == [None, "not distinguishable", "not measured"]
    assert [arm.level for arm in arms_of(told)] == [levels.base, levels.shared, None]
    for low, high, verdict, kind in ((0.01, 0.2, "better", "good"), (-0.2, -0.01, "worse", "bad")):
        changed = told.model_copy(update={"gain": Gains(shared=interval(low, (low + high) / 2, high), private=None)})
        shared = arms_of(changed)[1]
        assert (shared.verdict, shared.kind) == (verdict, kind)
