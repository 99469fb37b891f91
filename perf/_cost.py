"""How many bytes a round costs one site, by direction, against those of the adapter's values that it is about."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from perf._fleet import Carried, calls_of, carried
from perf._tap import WAYS, Tap, Way
from rainhill import wire
from rainhill.messages import Plan, Update

STAMP = 64
"""Bytes before a message: its sender's signature."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one site, one round and one direction. Bytes."""

    site: str
    round: int
    way: Way
    adapter: int
    """Of the tensors' values in their encoding, without names and shapes."""
    message: int
    """As it was signed."""
    calls: int
    """HTTP calls that brought it, with their headers and with those that name and confirm it."""
    wire: int
    """All that crossed above TCP until the next plan came: TLS, polls, heartbeats and offers too."""
    polls: int
    """Calls in that time that brought nothing of the message."""
    seconds: float


def costs_of(site: str, tap: Tap, *, rounds: int) -> list[Cost]:
    """Both directions of every round. A round is taken to last from its plan to the next, and the last one to that of the result."""
    calls = sorted((call for one in tap.connections for call in calls_of(one)), key=lambda call: call.asked.at)
    messages = [one for one in carried(calls) if one.kind.startswith("train")]
    plans = _first(messages, "down", Plan)
    updates = _first(messages, "up", Update)
    found = []
    for number in range(1, rounds + 1):
        begun, over = plans[number].at, plans[number + 1].at
        meanwhile = [call for call in calls if begun <= call.asked.at < over]
        of: dict[Way, Carried] = {"up": updates[number], "down": plans[number]}
        for way, message in of.items():
            pieces = (piece for one in tap.connections for piece in one.sealed if piece.way == way)
            found.append(
                Cost(
                    site=site,
                    round=number,
                    way=way,
                    adapter=values_of(message.blob),
                    message=len(message.blob),
                    calls=sum(call.size(way) for call in message.calls),
                    wire=sum(len(piece.data) for piece in pieces if begun <= piece.at < over),
                    polls=sum(call not in message.calls for call in meanwhile),
                    seconds=over - begun,
                )
            )
    return found


def values_of(blob: bytes) -> int:
    """Bytes of the tensors of a stamped message: what stands behind its safetensors header."""
    return len(blob) - STAMP - 8 - int.from_bytes(blob[STAMP : STAMP + 8], "little")


def summed(costs: Iterable[Cost]) -> Mapping[Way, Mapping[str, float]]:
    """Means over sites and rounds."""
    listed = list(costs)
    return {
        way: {
            name: sum(getattr(cost, name) for cost in listed if cost.way == way) / sum(cost.way == way for cost in listed)
            for name in ("adapter", "message", "calls", "wire", "polls", "seconds")
        }
        for way in WAYS
    }


def _first(messages: Iterable[Carried], way: Way, kind: type) -> dict[int, Carried]:
    """Round -> the first message of it, in that direction and of that kind."""
    found: dict[int, Carried] = {}
    for one in messages:
        if one.way != way:
            continue
        blob = one.blob[STAMP:]
        said = wire.plan_from_bytes(blob) if way == "down" else wire.live_answer_from_bytes(blob)
        if isinstance(said, kind):
            found.setdefault(said.round, one)
    return found
