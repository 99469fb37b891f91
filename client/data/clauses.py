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
_CUES: tuple[Kind, ...] = ("uncertain_first", "negated_before", "uncertain_before", "uncertain_after", "history")
"""That reach a mention behind them."""
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


def told_apart(items: list[Item]) -> list[Item]:
    """With a stop where one side is done with and the other begins, and without negations that are themselves denied."""
    found: list[Item] = []
    doubted = False
    for place, item in enumerate(items):
        if item.has("stop"):
            doubted = False
        if item.has("comma", "and") and _turns(items, place):
            found.append(Item((("stop", ""),), item.first, item.last))
        elif item.has("doubt") and any(_only_after(one) for one in items[place + 1 :]):
            doubted = True
        elif not (doubted and _only_after(item)):
            found.append(item)
    return found


def _only_after(item: Item) -> bool:
    return item.has("negated_after") and not item.has("negated_before", "normal")


def _turns(items: list[Item], place: int) -> bool:
    """Whether one side is done with before this comma, and the other begins: `no effusion left, right small effusion`."""
    if not 0 < place < len(items) - 2 or not (items[place - 1].has("side") and items[place + 1].has("side")):
        return False
    if items[place - 1].value("side") == items[place + 1].value("side"):
        return False
    before = items[:place]
    denied = any(item.has("negated_before") for item in before) and any(item.has("finding") for item in before)
    following = (item for item in items[place + 2 :] if not item.has("severity"))
    return denied and next(following, items[place]).has("finding") and not any(item.has("or") for item in items[place + 2 :])


def starts(items: list[Item]) -> list[int]:
    """Of each place the first that can bear on a claim there: the nearest cue of each kind in its clause, or the finding before."""
    found: list[int] = []
    begun, cues = 0, dict[Kind, int]()
    for place, item in enumerate(items):
        found.append(min(begun, *cues.values()) if cues else begun)
        if item.has("stop"):
            begun, cues = place, {}
            continue
        # One that may stand behind its mention need not reach: the one before may.
        either = item.has("negated_after", "uncertain_after")
        for kind in (kind for kind in _CUES if item.has(kind)):
            cues[kind] = cues.get(kind, place) if either else place
        if item.has("finding", "other"):
            begun = place
    return found


def around(items: list[Item], claim: Claim, start: int) -> tuple[list[Item], Claim]:
    return items[start:] if start else items, Claim(claim.finding, claim.at - start, claim.begin - start, claim.absent)


def near(items: list[Item], claim: Claim) -> tuple[list[Item], Claim]:
    """As many items on either side as its severity can be away from it."""
    start = max(0, claim.at - NEAR - 1)
    return items[start : claim.at + NEAR + 2], Claim(claim.finding, claim.at - start, max(0, claim.begin - start), claim.absent)
