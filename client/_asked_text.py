"""What a site is asked, and what its journal holds, in words that a governance lead reads."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from client.asked import Asked, Leaves
from client.chain import Event
from client.journal import Approved, Declined, Held, Left, Offered, Opened, Released, Said, Withheld
from client.privacy._text import cost_text

WIDTH = 110
SHOWN = 6
"""Tensors that are named; of more, only how many."""


def asked_text(one: Asked) -> str:
    return "\n".join(_asked(one)) + "\n"


def _asked(one: Asked) -> Iterator[str]:
    yield f"Run {one.run}: {one.title}"
    yield from _row(
        "asked by", f"{one.by} of {one.consortium}, on {one.made:%Y-%m-%d}; can be approved until {one.until:%Y-%m-%d %H:%M} UTC"
    )
    yield from _row("state", f"{one.state}: {one.reason}" if one.reason else one.state)
    yield from _row("sites asked", ", ".join(one.sites))
    yield from _row("task", f"{one.task}, by {one.rule}, on base model {one.base}")
    known = "which cannot be counted" if one.patients is None else f"{one.patients} training patients"
    yield from _row("your data", f"{one.data or 'none'}, {known}; films and reports stay here")
    yield from _row("work", f"{one.rounds} rounds of {one.steps} steps")
    if one.leaves is not None:
        yield from _row("what leaves", _leaves(one.leaves, one.rounds))
        yield from _row("and beside it", one.leaves.numbers)
    if one.cost is not None:
        yield from _row("privacy cost", cost_text(one.cost))
    yield from _row("recipe", f"sha256 {one.recipe}")
    yield from _row("code", f"{one.software}, as installed here; nothing of the coordinator's is run")
    if one.changes is None:
        yield from _row("before", "no recipe of this name was approved here yet")
    else:
        told = "; ".join(f"{change.key}: {change.before} -> {change.now}" for change in one.changes) or "nothing"
        yield from _row("changed", f"since the last one approved: {told}")
    for reason in one.refusals:
        yield from _row("REFUSED", reason)


def _leaves(leaves: Leaves, rounds: int) -> str:
    names = list(leaves.tensors)
    some = ", ".join(f"{name} {'x'.join(map(str, leaves.tensors[name]))}" for name in names[:SHOWN])
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    size, whole = leaves.bytes / 1024, leaves.bytes * rounds / 2**20
    return f"{leaves.values} numbers in {len(names)} tensors ({some}{more}), {size:.0f} KiB a round, {whole:.1f} MiB in all"


def _row(name: str, text: str) -> Iterator[str]:
    lines = [line for part in text.splitlines() for line in textwrap.wrap(part, WIDTH - 16) or [""]]
    yield from (f"{name if not number else '':14}  {line}" for number, line in enumerate(lines))


def outcome_text(one: Mapping[str, Any]) -> str:
    return "\n".join(_outcome(one)) + "\n"


def _outcome(one: Mapping[str, Any]) -> Iterator[str]:
    interval = f"{100 * one['confidence']:g} % interval"
    yield f"Run {one['run']}: mean AUROC over findings, {interval}, on {one['patients']} patients of the site's {one['held_out']} part"
    for arm, words in (("base", "the base model"), ("shared", "with the shared adapter"), ("private", "with the site's own part too")):
        gain = one["gain"].get(arm)
        more = f", {_measured(gain, signed=True)} over the base" if gain else ""
        yield f"  {words:30} {_measured(one['auroc'][arm])}{more}"
    if not one["private_steps"]:
        yield "  No own part did better on the validation patients than the shared adapter alone: there is none but a temperature."
    if one["left_out"]:
        yield from _row("  left out", f"{', '.join(one['left_out'])}: too few patients with and without")


def _measured(value: Mapping[str, float] | None, *, signed: bool = False) -> str:
    if value is None:
        return "cannot be measured"
    sign = "+" if signed else ""
    return f"{value['value']:{sign}.3f} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"


def entry_text(time: str, event: Event) -> str:
    return f"{time[:19].replace('T', ' ')} UTC  {_told(event)}"


def _told(event: Event) -> str:
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
            numbers = ", ".join(f"{name} {value:g}" for name, value in event.numbers.items())
            return (
                f"{event.run} round {event.round}: update {event.update[:12]} left for {event.to}, approved by {event.approved_by}: "
                f"{len(event.tensors)} tensors, {event.size} bytes, l2 norm {event.norm:.4g}{cost}; beside it: {numbers or 'nothing'}"
            )
        case Said():
            return f"{event.run} round {event.round}: said instead of an update: {event.reason}"
        case Held():
            return f"{event.run} round {event.round}: update {event.update[:12]} is held"
        case Released():
            return f"{event.run} round {event.round}: update {event.update[:12]} released by {event.by}"
        case Withheld():
            return f"{event.run} round {event.round}: update {event.update[:12]} withheld by {event.by}: {event.reason}"
        case _:
            return event.body()
