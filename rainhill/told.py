"""What a run came to at a site, where its own file lets it be told: its task's measure, on patients that no fit has seen."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from rainhill.toml import Section

Verdict = Literal["better", "not distinguishable", "worse", "not measured"]
Measure = Literal["auroc", "label_f1"]
"""What the models of a task are compared by: more is better."""
MEASURES: Mapping[str, str] = {"auroc": "AUROC", "label_f1": "label F1"}
"""Each measure, and what people call it."""
TITLES: Mapping[Measure, str] = {"auroc": "AUROC, mean over findings", "label_f1": "label F1 of drafts"}
"""The same with what it is of."""
ARMS = {"base": "the base model alone", "shared": "with the shared adapter", "private": "with the site's own part too"}
"""Models that are measured at a site, and what people call them."""


class Interval(Section):
    """A measured value with its bootstrap interval over patients."""

    value: Annotated[float, Field(ge=-1, le=1)]
    low: Annotated[float, Field(ge=-1, le=1)]
    high: Annotated[float, Field(ge=-1, le=1)]

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def signed(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


class Levels(Section):
    """None for want of patients of both classes, or of reports."""

    base: Interval | None
    shared: Interval | None
    private: Interval | None


class Gains(Section):
    """A level less the base's, on the same patients."""

    shared: Interval | None
    private: Interval | None


class Told(Section):
    confidence: Annotated[float, Field(gt=0, lt=1)]
    """Of the intervals."""
    measure: Measure
    levels: Levels
    gain: Gains

    @classmethod
    def of(cls, outcome: Mapping[str, Any]) -> Self:
        """From what a site keeps of a run's outcome, which says more."""
        return cls(confidence=outcome["confidence"], measure=outcome["measure"], levels=outcome["levels"], gain=outcome["gain"])

    @property
    def name(self) -> str:
        """Of the measure, as people call it."""
        return MEASURES[self.measure]

    @property
    def title(self) -> str:
        """Of the measure, with what it is of."""
        return TITLES[self.measure]

    def lines(self) -> Iterator[str]:
        """One of each model."""
        for arm, words in ARMS.items():
            gain = getattr(self.gain, arm, None)
            more = f", {gain.signed} over the base: {verdict(gain)}" if gain else ""
            yield f"{words:30} {getattr(self.levels, arm) or 'cannot be measured'}{more}"


def verdict(gain: Interval | None) -> Verdict:
    """An interval that touches 0 tells of no difference."""
    if gain is None:
        return "not measured"
    if gain.low > 0:
        return "better"
    return "worse" if gain.high < 0 else "not distinguishable"
