"""A report as common data elements: each finding present, absent, uncertain or, where nothing is said of it, unspecified.

After the ACR and RSNA's common data elements (Rubin & Kahn 2017, Radiology 283(3)), of which the identifiers are not assigned here.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, TypedDict, TypeVar

from client.data.clauses import State
from client.data.labeler import Label, Mention, labels_of
from client.data.vocabulary import FINDINGS

Presence = Literal["present", "absent", "uncertain", "unspecified"]
_PRESENCE: Mapping[Label, Presence] = {
    "positive": "present",
    "negative": "absent",
    "uncertain": "uncertain",
    "unmentioned": "unspecified",
}
Where = Literal["left", "right", "both", "unspecified"]
HowMuch = Literal["mild", "moderate", "severe", "unspecified"]
_SIDES: tuple[Where, ...] = ("left", "right", "both")
_SEVERITIES: tuple[HowMuch, ...] = ("severe", "moderate", "mild")
Told = TypeVar("Told", Where, HowMuch)


class Element(TypedDict):
    finding: str
    presence: Presence
    side: Where
    severity: HowMuch
    """The most severe that is said."""
    words: list[str]
    """Of the report, that it rests on."""


def elements(mentions: Sequence[Mention]) -> list[Element]:
    """One of each finding in their order, to be written as JSON. What is absent was said to be; of the unspecified nothing was said."""
    labels = labels_of(mentions)
    return [_element(finding, labels[finding], [one for one in mentions if one.finding == finding]) for finding in FINDINGS]


def _element(finding: str, label: Label, mentions: Sequence[Mention]) -> Element:
    state: State | None = label if label != "unmentioned" else None
    of = [one for one in mentions if one.state == state]
    sides, severities = {one.side for one in of}, {one.severity for one in of}
    return Element(
        finding=finding,
        presence=_PRESENCE[label],
        side="both" if {"left", "right"} <= sides else _first(_SIDES, sides),
        severity=_first(_SEVERITIES, severities),
        words=[f"{one.cue} {one.words}".strip() for one in of],
    )


def _first(order: Sequence[Told], said: Collection[str]) -> Told:
    return next((one for one in order if one in said), "unspecified")
