"""What a report says, as far as it is measured: labels, sides and severities of its findings, contradictions, words of comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from client.data.clauses import Severity, Side
from client.data.labeler import Label, Labeler, Mention, labels_of
from client.data.vocabulary import FINDINGS, PATHOLOGIES

CLASSES = (*PATHOLOGIES, "support_devices")
"""Findings that have a place and a size; `no_finding` has none."""
THERE: frozenset[Label] = frozenset({"positive", "uncertain"})
_SIZES: Mapping[Severity, int] = {"": 0, "mild": 1, "moderate": 2, "severe": 3}


@dataclass(frozen=True, kw_only=True)
class Reading:
    labels: Mapping[str, Label]
    sides: Mapping[str, frozenset[Side]]
    """Of each finding that is there, or may be: left, right, both of them, or none where no side is said."""
    severities: Mapping[str, Severity]
    """Of the same findings: the most severe that is said."""
    contradicted: tuple[str, ...]
    """Findings that the report has both there and not there, on the same side as far as it says."""
    comparisons: tuple[str, ...]
    """Words that hold the examination against an earlier one."""
    silent: bool
    """Whether it says of nothing that it is there or not, nor that all is well: then it is no normal report either."""


def findings_there(mentions: Sequence[Mention]) -> tuple[str, ...]:
    """That are there, or may be, in the order in which they are said."""
    return tuple(dict.fromkeys(one.finding for one in mentions if one.finding in CLASSES and one.state in THERE))


def reading(labeler: Labeler, text: str) -> Reading:
    mentions = labeler.mentions(text)
    silent = not mentions and labeler.is_silent(text)
    there = {finding: [one for one in mentions if one.finding == finding and one.state in THERE] for finding in CLASSES}
    return Reading(
        labels=labels_of(mentions) | ({"no_finding": "unmentioned"} if silent else {}),
        sides={finding: _sides(of) for finding, of in there.items() if of},
        severities={finding: max((one.severity for one in of), key=_SIZES.__getitem__) for finding, of in there.items() if of},
        contradicted=tuple(finding for finding in CLASSES if _contradicts([one for one in mentions if one.finding == finding])),
        comparisons=tuple(labeler.comparisons(text)),
        silent=silent,
    )


def _sides(mentions: Sequence[Mention]) -> frozenset[Side]:
    both: frozenset[Side] = frozenset({"left", "right"})
    return frozenset[Side]().union(*(both if one.side == "both" else frozenset({one.side} if one.side else ()) for one in mentions))


def _contradicts(mentions: Sequence[Mention]) -> bool:
    there, absent = ([one for one in mentions if one.state == state] for state in ("positive", "negative"))
    # "No effusion on the right. Left effusion." is none.
    return any(not (one.side and other.side) or _sides([one]) & _sides([other]) for one in there for other in absent)


def present(readings: Sequence[Reading]) -> list[list[bool]]:
    """(N, 14) in the order of `FINDINGS`: what is there or may be."""
    return [[one.labels[finding] in THERE for finding in FINDINGS] for one in readings]
