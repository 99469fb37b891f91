"""What a clause says of a finding: whether it is there, on which side, how severe. A cue reaches to the end of its clause, as in ConText.

Harkema, Dowling, Thornblade, Chapman 2009, J Biomed Inform 42, doi:10.1016/j.jbi.2009.05.002.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

from client.data.vocabulary import Kind, Meaning

State = Literal["positive", "negative", "uncertain"]
Side = Literal["left", "right", "both", ""]
Severity = Literal["mild", "moderate", "severe", ""]
REACH = 9
"""Words between a subject and what is said of it, and between a mention and a cue after it."""
NEAR = 4
"""Words between a mention and its severity."""
OTHER = "other"
"""In place of a finding: an abnormality of none of the classes."""


@dataclass(slots=True)
class Item:
    """A phrase in a sentence."""

    meanings: tuple[Meaning, ...]
    first: int
    last: int
    """Of its tokens."""

    def has(self, *kinds: Kind) -> bool:
        return any(kind in kinds for kind, _ in self.meanings)

    def value(self, kind: Kind) -> str:
        return next((value for own, value in self.meanings if own == kind), "")


@dataclass(slots=True)
class Claim:
    """A finding with the items that speak of it."""

    finding: str
    at: int
    """Place of the item that decides: the words, or what is said of a subject."""
    begin: int
    """Place of the first item."""
    absent: bool


def claims(items: list[Item]) -> Iterator[Claim]:
    for place, item in enumerate(items):
        for kind, finding in item.meanings:
            if kind in ("finding", "absent"):
                yield Claim(finding, place, place, kind == "absent")
            elif kind == "other":
                yield Claim(OTHER, place, place, False)
            elif kind == "subject":
                claim = _said_of(items, place, finding)
                if claim is not None:
                    yield claim


def _said_of(items: list[Item], subject: int, finding: str) -> Claim | None:
    """The first thing that is said of a subject in its clause; None where nothing is."""
    for place in range(subject + 1, len(items)):
        item = items[place]
        if item.has("stop") or item.first - items[subject].last > REACH:
            return None
        if ("predicate", finding) in item.meanings:
            return Claim(finding, place, subject, False)
        if item.has("normal"):
            return Claim(finding, place, subject, True)
        if item.has("finding", "absent") and not item.has("subject"):
            return None
    return None


def state_of(items: list[Item], claim: Claim) -> tuple[State, Item | None]:
    first = reached(items, claim, ("uncertain_first",)) or _followed(items, claim, ("uncertain_first",))
    if first is not None:
        return "uncertain", first
    negated, uncertain = reached(items, claim, ("negated_before",)), reached(items, claim, ("uncertain_before",))
    if negated is not None and uncertain is not None and negated.last + 1 < uncertain.first:
        # The nearer one, unless it is itself negated.
        negated = None
    if claim.absent:
        # What is not normal is taken for what it is not.
        return ("positive", negated) if negated is not None else ("negative", None)
    negated = negated or _followed(items, claim, ("negated_after",))
    if negated is not None:
        return "negative", negated
    uncertain = uncertain or _followed(items, claim, ("uncertain_after",))
    return ("uncertain", uncertain) if uncertain is not None else ("positive", None)


def reached(items: list[Item], claim: Claim, kinds: tuple[Kind, ...]) -> Item | None:
    """The nearest cue of these kinds before the claim that reaches it."""
    for place in range(claim.at - 1, -1, -1):
        item = items[place]
        if place < claim.begin < claim.at:
            # Of a subject something is said between it and its predicate.
            return None
        if item.has("stop"):
            return None
        if item.has(*kinds) and (_begins(items, place) or not item.has("negated_after", "uncertain_after")):
            return item
        if "uncertain_before" in kinds and _leads(items, place):
            return item
        if "negated_before" in kinds or "history" in kinds:
            if item.has("comma") and "history" in kinds:
                return None
            if item.has("and", "comma") and _own_size(items, place, claim.at) and not _goes_on(items, place):
                return None
    return None


def _followed(items: list[Item], claim: Claim, kinds: tuple[Kind, ...]) -> Item | None:
    """The first cue of these kinds after the claim that reaches back to it."""
    mention, comma = False, False
    for place in range(claim.at, len(items)):
        item = items[place]
        if item.has("stop") or item.first - items[claim.at].last > REACH or (mention and comma):
            return None
        if item.has(*kinds) and (place == claim.at or not (_begins(items, place) or _leads(items, place))):
            return item
        if place > claim.at:
            mention, comma = mention or item.has("finding", "absent", "subject"), comma or item.has("comma")
            # `A, B and C are absent` is a list.
            comma = comma and not item.has("and", "or")
    return None


def _begins(items: list[Item], place: int) -> bool:
    """Whether a cue that may stand before or after a mention stands before one."""
    if not items[place].has("negated_before", "uncertain_before"):
        return False
    for item in items[place + 1 :]:
        if item.has("comma", "stop"):
            return False
        if item.has("finding", "other", "subject"):
            return True
    return False


def _leads(items: list[Item], place: int) -> bool:
    """Whether an uncertainty that stands after a mention has another right behind it, as in `opacity is likely pneumonia`."""
    if not items[place].has("uncertain_after") or place + 1 == len(items):
        return False
    following = items[place + 1]
    return following.has("finding", "other") and following.first - items[place].last <= 2


def _own_size(items: list[Item], place: int, claim: int) -> bool:
    return place + 1 < claim and items[place + 1].has("severity")


def _goes_on(items: list[Item], place: int) -> bool:
    """Whether a list has an `or` after this place."""
    for item in items[place + 1 :]:
        if item.has("stop"):
            return False
        if item.has("or"):
            return True
    return False


def side_of(items: list[Item], claim: Claim) -> Side:
    """What is said of it before, and else after; what stands nearer to another mention is said of that one."""
    for places in (range(claim.at - 1, -1, -1), range(claim.at + 1, len(items))):
        found: set[str] = set()
        for place in places:
            item = items[place]
            if item.has("finding", "other", "stop"):
                break
            if item.has("comma", "and") and _of_another(items, place, before=place < claim.at):
                break
            if item.has("side"):
                found.add(item.value("side"))
        if found:
            return cast("Side", "both" if len(found) > 1 else found.pop())
    return ""


def _of_another(items: list[Item], place: int, *, before: bool) -> bool:
    """Whether there is a mention on the far side of this place, in its part of the clause."""
    for item in items[place - 1 :: -1] if before else items[place + 1 :]:
        if item.has("comma", "stop"):
            return False
        if item.has("finding", "other"):
            return True
    return False


def severity_of(items: list[Item], claim: Claim) -> Severity:
    for place in (*range(claim.at - 1, -1, -1), *range(claim.at + 1, len(items))):
        item = items[place]
        if not item.has("severity") or max(items[claim.at].first - item.last, item.first - items[claim.at].last) > NEAR:
            continue
        between = items[min(place, claim.at) + 1 : max(place, claim.at)]
        if not any(one.has("finding", "other", "stop") for one in between):
            return cast("Severity", item.value("severity"))
    return ""
