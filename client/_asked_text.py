"""What a site is asked, and what its journal holds, in words that a governance lead reads."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from client.asked import Asked, Leaves
from client.chain import Event
from client.egress import HeldUpdate
from client.journal import Approved, Declined, Held, Left, Offered, Opened, OutcomeTold, Paused, Released, Resumed, Said, Withheld
from client.privacy.statement import Claim
from client.privacy.what_if import Cost
from rainhill.text import one_line
from rainhill.told import ARMS, Told

WIDTH = 110
LABEL = 15
TIME = 25
"""Characters of an entry's time, and so the indent of its further lines."""
LONGEST = 3000
"""Characters of one text: what somebody else wrote must not push the rest off the screen."""
SHOWN = 6
"""Tensors that are named; of more, only how many."""
SITES = 20
"""The same of sites."""


def asked_text(one: Asked) -> str:
    return "\n".join(_asked(one)) + "\n"


def held_text(one: HeldUpdate, limit: float | None) -> str:
    """`limit` is the norm that the site's file lets out."""
    return "\n".join(_held(one, limit)) + "\n"


def _asked(one: Asked) -> Iterator[str]:
    yield f"Run {one.run}: {one_line(one.title, WIDTH - 10 - len(one.run))}"
    yield from _row("asked by", f"{one.by} of {one.consortium}, on {one.made:%Y-%m-%d}")
    yield from _row("answer by", f"{one.until:%Y-%m-%d %H:%M} UTC; after that it cannot be approved any more")
    yield from _row("state", f"{one.state}: {one.reason}" if one.reason else one.state)
    yield from _row("sites asked", f"{len(one.sites)}: {_some(one.sites, SITES)}")
    yield from _row("learns", f"{one.task}: {', '.join(one.learned)}" if one.learned else one.task)
    yield from _row("method", f"{one.rule}, on base model {one.base}")
    known = "training patients that cannot be counted" if one.patients is None else f"{one.patients} training patients"
    yield from _row("your data", f"{one.data or 'no manifest'}, {known}; films and reports stay here")
    yield from _row("work", f"{one.rounds} rounds of {one.steps} steps")
    if one.leaves is not None:
        yield from _row("what leaves", _leaves(one.leaves, one.rounds))
        yield from _row("and beside it", one.leaves.numbers)
    yield from _privacy(one)
    yield from _row("recipe", f"sha256 {one.recipe}")
    yield from _row("code", f"{one.software}, as installed here; nothing of the coordinator's is run")
    yield from _changes(one)
    for reason in one.refusals:
        yield from _row("REFUSED", reason)


def _privacy(one: Asked) -> Iterator[str]:
    """Each epsilon on a line of its own, with what it is of and what it is held against."""
    found = one.cost
    if found is None:
        return
    if found.cost is not None:
        yield from _cost(found.cost, one.allowed)
    elif not found.refused:
        yield from _row("privacy asked", "none")
    for note in found.notes:
        yield from _row("privacy note", note)


def _cost(cost: Cost, allowed: float | None) -> Iterator[str]:
    held = f"; your file allows {allowed:g} in one run" if allowed is not None else ""
    yield from _row("privacy asked", f"{_epsilon(cost.run)}, by this run as a whole{held}")
    terms = f"noise multiplier {cost.noise_multiplier:.4g}, sample rate {cost.sample_rate:.4g}"
    yield from _row("noise", f"{terms}, in each of {cost.steps} steps ({cost.rounds} rounds)")
    yield from _row("spent before", f"{_epsilon(cost.before)}, by the patient who has spent most in all runs so far")
    yield from _row("spent after", f"{_epsilon(cost.after)}, by the same patient with the whole of this run")
    if cost.budget is not None and cost.remaining is not None:
        yield from _row("budget", f"epsilon {cost.budget:g} for each patient, for good, in your file; {cost.remaining:.3f} would remain")
    if cost.year is not None:
        year = cost.year
        yield from _row("in a year", f"{_epsilon(year.before)}, spent in the last 365 days by the patient who spent most in them")
        held = f"your file allows {year.budget:g} over any 365 days; {year.remaining:.3f} would remain"
        yield from _row("", f"{_epsilon(year.after)}, with the whole of this run; {held}")
    if cost.unable:
        left_out = f"{cost.unable} patients charged before cannot afford all of it, and would be left out before its end"
        yield from _row("left out", left_out)


def _epsilon(claim: Claim) -> str:
    return f"epsilon {claim.epsilon:.3f} per {claim.unit} at delta {claim.delta:g} ({claim.neighbours})"


def _changes(one: Asked) -> Iterator[str]:
    if one.changes is None:
        yield from _row("before", "no recipe of this name was approved here yet")
        return
    told = [f"{change.key}: was {change.before}, is {change.now}" for change in one.changes]
    yield from _row("before", "a recipe of this name was approved here; since then " + ("changed:" if told else "nothing has changed"))
    for change in told:
        yield from _row("", change)


def _leaves(leaves: Leaves, rounds: int) -> str:
    turns = ", some of them in one round and others in the next" if leaves.in_turn else ""
    sizes = f"{_size(leaves.bytes)} in a round and {_size(leaves.bytes * rounds)} in all {rounds}"
    return f"{_tensors(leaves.tensors)}{turns}: at most {leaves.values} numbers, {sizes}"


def _size(count: int) -> str:
    return f"{count / 1024:.1f} KiB" if count < 2**20 else f"{count / 2**20:.1f} MiB"


def _tensors(tensors: Mapping[str, tuple[int, ...]]) -> str:
    named = [f"{name} {'x'.join(map(str, shape))}" for name, shape in tensors.items()]
    return f"{len(tensors)} tensors ({_some(named, SHOWN)})"


def _some(names: Sequence[str], shown: int) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _held(one: HeldUpdate, limit: float | None) -> Iterator[str]:
    yield f"Run {one.run}, round {one.round}: an update waits to be released"
    yield from _row("update", f"sha256 {one.update}")
    yield from _row("holds", f"{one.size} bytes in {_tensors(one.tensors)}")
    yield from _row("length", f"l2 norm {one.norm:.4g}" + (f"; your file lets out at most {limit:g}" if limit is not None else ""))
    yield from _row("and beside it", _numbers(one.numbers))


def _numbers(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in numbers.items()) or "nothing"


def _row(name: str, text: str) -> Iterator[str]:
    """What the coordinator wrote is in the text: nothing of it begins a line of its own or moves the cursor."""
    lines = textwrap.wrap(one_line(text, LONGEST), WIDTH - LABEL - 1) or [""]
    yield from (f"{name if not number else '':{LABEL}} {line}" for number, line in enumerate(lines))


def outcome_text(one: Mapping[str, Any]) -> str:
    return "\n".join(_outcome(one)) + "\n"


def _outcome(one: Mapping[str, Any]) -> Iterator[str]:
    told = Told.of(one)
    interval = f"{100 * told.confidence:g} % interval"
    yield f"Run {one['run']}: {told.title}, {interval}, on {one['patients']} patients of the site's {one['held_out']} part"
    yield from (f"  {line}" for line in told.lines())
    if not one["private_steps"]:
        but = " but a temperature" if one["temperature"] != 1 else ""
        yield f"  No own part did better on the validation patients than the shared adapter alone: there is none{but}."
    if one["left_out"]:
        yield from _row("  left out", f"{', '.join(one['left_out'])}: too few patients with and without")


def entry_text(time: str, event: Event) -> str:
    told = f"{time[:19].replace('T', ' ')} UTC  {one_line(told_of(event), LONGEST)}"
    return "\n".join(textwrap.wrap(told, WIDTH, subsequent_indent=" " * TIME, break_on_hyphens=False))


def told_of(event: Event) -> str:
    match event:
        case Opened():
            return f"the journal of {event.site} begins"
        case Offered():
            cost = f"epsilon {event.epsilon:g}" if event.epsilon is not None else "no privacy"
            return f"{event.run}: asked by {event.by} of {event.consortium}: recipe {event.recipe[:12]}, {event.rounds} rounds, {cost}"
        case Approved():
            how = f"as {event.by} had allowed beforehand" if event.envelope else f"by {event.by}"
            more = f", and {event.repeats} further runs of it" if event.repeats else ""
            return f"{event.run}: approved {how}: recipe {event.recipe[:12]}, {event.rounds} rounds until {event.until:%Y-%m-%d}{more}"
        case Declined():
            return f"{event.run}: refused by {event.by}: {event.reason}"
        case Left():
            cost = f", epsilon {event.epsilon:g} of the whole run" if event.epsilon is not None else ""
            return (
                f"{event.run} round {event.round}: update {event.update[:12]} left for {event.to}, approved by {event.approved_by}: "
                f"{len(event.tensors)} tensors, {event.size} bytes, l2 norm {event.norm:.4g}{cost}; beside it: {_numbers(event.numbers)}"
            )
        case Said():
            return f"{event.run} round {event.round}: said instead of an update: {event.reason}"
        case OutcomeTold():
            told = event.outcome
            levels = "; ".join(f"{words}: {told.name} {getattr(told.levels, arm) or 'not measured'}" for arm, words in ARMS.items())
            return f"{event.run}: what it came to was told to {event.to}: {levels}"
        case Held():
            return f"{event.run} round {event.round}: update {event.update[:12]} is held"
        case Released():
            return f"{event.run} round {event.round}: update {event.update[:12]} released by {event.by}"
        case Withheld():
            return f"{event.run} round {event.round}: update {event.update[:12]} withheld by {event.by}: {event.reason}"
        case Paused():
            return f"the site has paused, by {event.by}"
        case Resumed():
            return f"the site goes on, by {event.by}"
        case _:
            return event.body()
