"""A site's journal: the book of what it was asked, what people there decided, and what left."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from client import chain
from client.book import Book
from client.chain import Event, kinds_of
from rainhill.config import Positive
from rainhill.enrolment import Line, ShortName, Utc
from rainhill.offer import RunId
from rainhill.recipe import Sha256
from rainhill.told import Told

HELD = "held"
"""Folder beside a journal of updates that wait for a person's word."""
Person = Annotated[Line, Field(min_length=1)]
"""Somebody at the site, as they are known there."""
Words = Annotated[str, Field(min_length=1)]
Round = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=0)]
Spent = Annotated[float, Field(ge=0)]


class Opened(chain.Opened):
    """The first entry of every journal: whose it is, and that it is no other book."""

    book: Literal["journal"] = "journal"


class Offered(Event):
    """The site was asked to take part in a run."""

    kind = "offered"
    run: RunId
    recipe: Sha256
    offer: Sha256
    """Of what was signed."""
    consortium: ShortName
    by: Line
    """The operator who asks."""
    adapter: Sha256
    """Fingerprint of the one that round 1 begins from."""
    rounds: int = Field(ge=1)
    """Of the whole run."""
    epsilon: Positive | None
    """Of the whole run, at most; None where its recipe asks for no privacy."""
    until: Utc
    """After this it can be approved no more."""


class Approved(Event):
    """The site takes part in a run: a person says so now, or said so of its recipe beforehand."""

    kind = "approved"
    run: RunId
    recipe: Sha256
    offer: Sha256
    by: Person
    """With `envelope`, who gave the approval that this one is a repeat of."""
    rounds: int = Field(ge=1)
    """So many of the run, and no more."""
    until: Utc
    """After this it approves nothing more: no round, and no further run."""
    repeats: int = Field(ge=0)
    """So many further runs of the same recipe are approved beforehand."""
    envelope: bool
    """True where it is a repeat of an earlier approval, and nobody was asked now."""

    @model_validator(mode="after")
    def _repeats_only_what_a_person_said(self) -> "Approved":
        if self.envelope and self.repeats:
            raise ValueError(f"a repeat of an earlier approval grants none itself, not {self.repeats}")
        return self


class Declined(Event):
    """The site takes no part in a run, or no longer: takes back an approval, with the repeats that it granted."""

    kind = "declined"
    run: RunId
    recipe: Sha256
    offer: Sha256
    by: Person
    reason: Words


class Left(Event):
    """One update left the site: all that can be told of it afterwards."""

    kind = "left"
    run: RunId
    round: Round
    recipe: Sha256
    plan: Sha256
    """That it answers."""
    to: ShortName
    """The consortium."""
    approved_by: Person
    update: Sha256
    """Of the bytes that left."""
    size: Size
    """In bytes."""
    tensors: dict[str, tuple[Size, ...]]
    """Name -> shape."""
    norm: float = Field(ge=0)
    """L2, over all tensors."""
    numbers: dict[str, float]
    """What left beside the tensors, by name: loss, metrics, patients."""
    epsilon: Spent | None
    """That the update tells its site's patients spend in the whole run at most; None says that the fit was not private."""


class Said(Event):
    """A refusal left instead of an update."""

    kind = "said"
    # As the plan has them, which may be of a run that nobody ever offered.
    run: str
    round: int
    reason: str


class OutcomeTold(Event):
    """What a run came to here was told, because the site's file says so."""

    kind = "told"
    run: RunId
    recipe: Sha256
    to: ShortName
    """The consortium."""
    outcome: Told


class Held(Event):
    """An update is finished, and waits for a person."""

    kind = "held"
    run: RunId
    round: Round
    update: Sha256
    """Of the bytes that are to leave."""


class Released(Event):
    """A person lets an update leave that was held."""

    kind = "released"
    run: RunId
    round: Round
    update: Sha256
    by: Person


class Withheld(Event):
    """A person has an update that was held never leave."""

    kind = "withheld"
    run: RunId
    round: Round
    update: Sha256
    by: Person
    reason: Words


class Paused(Event):
    """Nothing is worked on, until a person says so."""

    kind = "paused"
    by: Person


class Resumed(Event):
    """The site goes on after a pause."""

    kind = "resumed"
    by: Person


Decision = Approved | Declined
Hold = Held | Released | Withheld
Kind = TypeVar("Kind", bound=Event)


class Journal(Book):
    stem = "journal"
    first = Opened
    kinds = kinds_of(Opened, Offered, Approved, Declined, Left, Said, OutcomeTold, Held, Released, Withheld, Paused, Resumed)
    traces = (HELD,)
    lost = (
        "is gone, though {traces} is there, with updates that wait for a person's word in it. With a new one, nobody could tell who "
        "approved what and what has left: put the old one back with its journal.head, or move {traces} away and approve anew"
    )


def decision(events: Iterable[Event], run: str) -> Decision | None:
    """The newest on the run."""
    return _newest(event for event in events if isinstance(event, Approved | Declined) and event.run == run)


def rounds_left(events: Iterable[Event], run: str) -> int:
    """How many updates more may leave under the run's newest approval; the answer to one plan counts once. 0 where there is none."""
    events = tuple(events)
    newest = decision(events, run)
    if not isinstance(newest, Approved):
        return 0
    # By the plan: of one round, another adapter asks for another look at the patients.
    left = {event.plan for event in events if isinstance(event, Left) and event.run == run}
    # A person may have approved fewer anew than had left by then.
    return max(newest.rounds - len(left), 0)


def envelope(events: Iterable[Event], recipe: str, now: datetime) -> Approved | None:
    """A person's approval by which another run of the same recipe is approved at `now` (aware), to be written before it is used again.

    Of several, the one that lasts longest. Whether that other run was itself declined is for `decision` to tell.
    """
    found = _longest(_unused(event for event in events if isinstance(event, Approved | Declined)), recipe)
    return found if found is not None and now <= found.until else None


def standing_hold(events: Iterable[Event], run: str, round: int, update: str) -> Hold | None:  # noqa: A002
    """The newest word on this very update; None where it was never held."""
    holds = (event for event in events if isinstance(event, Held | Released | Withheld))
    return _newest(event for event in holds if (event.run, event.round, event.update) == (run, round, update))


def _unused(decisions: Iterable[Decision]) -> dict[str, tuple[Approved, int]]:
    """Run -> the newest approval that a person gave, where it stands, and how many of its repeats are left."""
    found: dict[str, tuple[Approved, int]] = {}
    for event in decisions:
        if isinstance(event, Declined):
            found.pop(event.run, None)
        elif not event.envelope:
            found[event.run] = event, event.repeats
        else:
            # An entry does not say which approval it repeats. The one that lasts longest is the same at any time at which it is not over,
            # so that what is found here, without a clock, is what `envelope` gave then.
            drawn = _longest(found, event.recipe)
            if drawn is not None:
                found[drawn.run] = drawn, found[drawn.run][1] - 1
    return found


def _longest(unused: dict[str, tuple[Approved, int]], recipe: str) -> Approved | None:
    able = (approval for approval, repeats in unused.values() if repeats and approval.recipe == recipe)
    return max(able, key=lambda approval: approval.until, default=None)


def _newest(events: Iterable[Kind]) -> Kind | None:
    found = tuple(events)
    return found[-1] if found else None
