"""The live form of `Collect`: each site is asked until it has answered or the deadline has passed, whatever happens to it meanwhile.

A message that a site loses when it is restarted is sent again when Flower says that the site is back. A site that asks for time, because
somebody there has yet to decide, is asked again. What a site says counts only with its own signature.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rainhill import wire
from rainhill.errors import CredentialError, ProtocolError
from rainhill.messages import Plan, Receipt, Refusal, SiteId, Update, Waiting
from rainhill.stamp import ANSWER, PLAN, stamped, unstamped
from rainhill.versions import VERSIONS, agreed
from server.rounds import Collect

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.serverapp import Grid

log = logging.getLogger(__name__)

TRAIN = "train"
LOOK_S = (0.02, 1.0)
"""Between two looks for answers: right after one or after a question, and at most."""
SLOWER = 0.02
"""Of the time that was waited in vain for an answer, is waited until the next look: an answer that took long may lie for as much longer."""
PRESENCE_S = 1.0
"""Between two looks at who is in contact."""
RETRY_S = 5.0
"""Before a site whose process failed is asked again."""
SPARE_S = 60.0
"""A message outlives the deadline by so much, so that Flower does not call one expired that is just being answered."""
TOO_LARGE_WORDS = "its answer is larger than any that the run can want"
TRIES = 3
"""How often a site's process may fail in one round."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A site that takes part in a run."""

    node: int
    """Flower's number of its SuperNode."""
    signing_key: bytes
    """Ed25519, by which its answers are known."""
    protocols: tuple[int, ...] = VERSIONS
    """Versions of the wire form that it said it speaks."""


@dataclass(kw_only=True)
class _Asked:
    """One site in one round."""

    plan: Plan
    member: Member
    due: float = 0.0
    """time.monotonic() before which it is not asked."""
    ids: set[str] = field(default_factory=set)
    """Of the messages that are on their way to it."""
    activated: str = ""
    """When its node was last started, as of the last message."""
    failures: int = 0
    waits_for: str = ""
    """What it last asked for time for."""
    words: str = "is not in contact"
    """Why there is no answer yet."""


def collect_live(
    grid: "Grid",
    members: Mapping[SiteId, Member],
    *,
    key: bytes,
    deadline_s: float,
    meanwhile: Callable[[], None] = lambda: None,
    waits: Callable[[SiteId, str], None] = lambda *_: None,
) -> Collect:
    """`key` is the consortium's Ed25519 private key. A site that is no member is refused by name.

    `meanwhile` is called at every look for answers; what it raises ends the round, which is then done again another time. `waits` is told
    of a site that asks for time, and why.
    """

    def collect(plans: Mapping[SiteId, Plan]) -> Iterable[Update | Refusal]:
        for plan, answer in _exchanged(grid, members, plans, key=key, deadline_s=deadline_s, meanwhile=meanwhile, waits=waits):
            yield answer if not isinstance(answer, Receipt) else _refusal(plan, "its answer is a receipt, and no update")

    return collect


def deliver_live(
    grid: "Grid",
    members: Mapping[SiteId, Member],
    plans: Mapping[SiteId, Plan],
    *,
    key: bytes,
    deadline_s: float,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterable[Receipt | Refusal]:
    """What a run came to, brought to the sites: plans that follow the last round. As `collect_live` otherwise."""
    asked = _exchanged(grid, members, plans, key=key, deadline_s=deadline_s, meanwhile=meanwhile, waits=lambda *_: None)
    for plan, answer in asked:
        if isinstance(answer, Receipt) and answer.adapter != plan.adapter.fingerprint():
            yield _refusal(plan, f"has adapter {answer.adapter[:12]}, and was brought {plan.adapter.fingerprint()[:12]}")
        else:
            yield answer if not isinstance(answer, Update) else _refusal(plan, "its answer is an update, and no receipt")


def _exchanged(
    grid: "Grid",
    members: Mapping[SiteId, Member],
    plans: Mapping[SiteId, Plan],
    *,
    key: bytes,
    deadline_s: float,
    meanwhile: Callable[[], None],
    waits: Callable[[SiteId, str], None],
) -> Iterable[tuple[Plan, Update | Receipt | Refusal]]:
    """Each plan with its one answer, as they come in."""
    stop = time.monotonic() + deadline_s
    asked: dict[SiteId, _Asked] = {}
    for site, plan in plans.items():
        if site not in members:
            yield plan, _refusal(plan, "takes no part in this run")
            continue
        try:
            wire.check_plan(plan, version=agreed(members[site].protocols))
        except ProtocolError as error:
            yield plan, _refusal(plan, str(error))
            continue
        asked[site] = _Asked(plan=plan, member=members[site])
    looked, moved = -PRESENCE_S, time.monotonic()
    while asked and time.monotonic() < stop:
        meanwhile()
        now = time.monotonic()
        if now - looked >= PRESENCE_S:
            if _send_where_due(grid, asked.values(), now, key=key, ttl=stop - now + SPARE_S):
                moved = time.monotonic()
            looked = now
        for one, answer in _answers(grid, asked.values(), waits):
            moved = time.monotonic()
            # A second one comes with the first where a site that was restarted was asked again: they are of the same plan.
            if asked.pop(one.plan.site, None) is not None:
                yield one.plan, answer
        if asked:
            time.sleep(min(max(SLOWER * (time.monotonic() - moved), LOOK_S[0]), LOOK_S[1]))
    yield from ((one.plan, _refusal(one.plan, f"{one.words}; waited {deadline_s:g} s")) for one in asked.values())


def _send_where_due(grid: "Grid", asked: Iterable[_Asked], now: float, *, key: bytes, ttl: float) -> bool:
    """To those in contact that have not been asked since they were last started, and are not to be left alone. Whether there was one."""
    from flwr.app import Message

    there, sent = {node.node_id: node for node in grid.get_nodes()}, False
    for one in asked:
        node = there.get(one.member.node)
        if node is None or node.status != "online":
            if one.ids:
                one.words = "has lost contact"
            continue
        if now >= one.due and (not one.ids or node.last_activated_at != one.activated):
            one.activated, one.words, sent = node.last_activated_at, one.waits_for or "has not answered", True
            # One after the other: memory holds one plan as it is sent, and not one for each site.
            blob = stamped(wire.plan_to_bytes(one.plan, version=agreed(one.member.protocols)), key, purpose=PLAN)
            message = Message(wire.to_record(blob), dst_node_id=one.member.node, message_type=TRAIN, ttl=ttl)
            # An empty id: the node is not known any more.
            one.ids |= {name for name in grid.push_messages([message]) if name}
            if time.monotonic() - now > PRESENCE_S:
                # The others after a look at what has come meanwhile.
                break
    return sent


def _answers(
    grid: "Grid", asked: Iterable[_Asked], waits: Callable[[SiteId, str], None]
) -> Iterable[tuple[_Asked, Update | Receipt | Refusal]]:
    """What came in and is an answer; what asks for time or failed is noted, to be asked again."""
    waiting = {name: one for one in asked for name in one.ids}
    # One at a time, which is taken before the next is fetched: memory need not hold them all.
    for reply in grid.pull_messages(list(waiting)) if waiting else ():
        one = waiting[reply.metadata.reply_to_message_id]
        one.ids.discard(reply.metadata.reply_to_message_id)
        answer = _read(reply, one)
        if answer is not None:
            yield one, answer
        elif one.waits_for:
            waits(one.plan.site, one.waits_for)


def _read(reply: "Message", one: _Asked) -> Update | Receipt | Refusal | None:
    site, now = one.plan.site, time.monotonic()
    if reply.has_error():
        return _failed(reply.error, one, now)
    try:
        answer = wire.live_answer_from_bytes(unstamped(wire.from_record(reply.content), one.member.signing_key, purpose=ANSWER))
    except (ProtocolError, CredentialError) as error:
        return _refusal(one.plan, str(error))
    if (answer.run, answer.round, answer.site) != (one.plan.run, one.plan.round, site):
        return _refusal(one.plan, f"its answer is of {answer.site} for round {answer.round} of run {answer.run}")
    if isinstance(answer, Waiting):
        one.due, one.words, one.waits_for = now + answer.retry_s, answer.reason, answer.reason
        return None
    return answer


def _failed(error: Any, one: _Asked, now: float) -> Refusal | None:
    from flwr.common.constant import ErrorCode

    from server.flower.live_grid import TOO_LARGE

    one.due = now + RETRY_S
    if error.code == TOO_LARGE:
        return _refusal(one.plan, TOO_LARGE_WORDS)
    if error.code == ErrorCode.NODE_UNAVAILABLE:
        one.words = "has lost contact"
        return None
    if error.code in {ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE}:
        # Lost on the way, or too old: nobody's failure.
        return None
    one.failures += 1
    # The text of the error was written at the site and may hold what must not travel; its number does not.
    one.words = f"its process failed (Flower error {error.code})"
    return _refusal(one.plan, f"{one.words}, {one.failures} times") if one.failures >= TRIES else None


def _refusal(plan: Plan, reason: str) -> Refusal:
    return Refusal(run=plan.run, round=plan.round, site=plan.site, reason=reason)
