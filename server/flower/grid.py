"""The live form of `Collect`: plans pushed over a Flower grid, answers pulled until all are there or the deadline has passed."""

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from rainhill import wire
from rainhill.errors import ProtocolError
from rainhill.messages import Plan, Refusal, SiteId, Update
from server.rounds import Collect
from server.secure import Exchange

log = logging.getLogger(__name__)

HELLO = "query.hello"
TRAIN = "train"
SECURE = "query.secure"
POLL_S = 0.1


def find_nodes(grid: Grid, sites: set[SiteId], *, deadline_s: float) -> dict[SiteId, int]:
    """Asks every connected node which site it is, until all that are wanted have answered or the deadline has passed."""
    known: dict[int, SiteId] = {}
    stop = time.monotonic() + deadline_s
    while time.monotonic() < stop and not sites <= set(known.values()):
        new = [node for node in grid.get_node_ids() if node not in known]
        questions = {node: RecordDict({"hello": ConfigRecord()}) for node in new}
        for node, reply in exchanged(grid, questions, HELLO, within_s=min(30.0, max(1.0, stop - time.monotonic()))):
            if not reply.has_error():
                known[node] = str(reply.content.config_records["hello"]["site"])
        if not new:
            time.sleep(POLL_S)
    return {site: node for node, site in known.items() if site in sites}


def collect_over(grid: Grid, nodes: Mapping[SiteId, int], *, deadline_s: float) -> Collect:
    def collect(plans: Mapping[SiteId, Plan]) -> Iterable[Update | Refusal]:
        present = {nodes[site]: plan for site, plan in plans.items() if site in nodes}
        for plan in plans.values():
            if plan.site not in nodes:
                yield _refusal(plan, "is not connected")
        questions = {node: wire.to_record(wire.plan_to_bytes(plan)) for node, plan in present.items()}
        for node, reply in exchanged(grid, questions, TRAIN, within_s=deadline_s):
            plan = present[node]
            if reply.has_error():
                # The text of the error was written at the site and may hold what must not travel; its number does not.
                yield _refusal(plan, f"its process failed (Flower error {reply.error.code})")
                continue
            try:
                answer = wire.answer_from_bytes(wire.from_record(reply.content))
            except ProtocolError as error:
                yield _refusal(plan, str(error))
                continue
            # A node speaks for its own site, whatever its message says.
            yield answer if answer.site == plan.site else _refusal(plan, f"its answer is for site {answer.site!r}")

    return collect


def exchange_over(grid: Grid, nodes: Mapping[SiteId, int], *, deadline_s: float) -> Exchange:
    """The messages of secure aggregation. A site whose process failed gives no answer."""

    def exchange(blobs: Mapping[SiteId, bytes]) -> Iterable[tuple[SiteId, bytes]]:
        sites = {nodes[site]: site for site in blobs if site in nodes}
        records = {node: wire.to_record(blobs[site]) for node, site in sites.items()}
        for node, reply in exchanged(grid, records, SECURE, within_s=deadline_s):
            if reply.has_error():
                log.warning("%s: its process failed in secure aggregation (Flower error %d)", sites[node], reply.error.code)
            else:
                yield sites[node], wire.from_record(reply.content)

    return exchange


def exchanged(grid: Grid, questions: Mapping[int, RecordDict], kind: str, *, within_s: float) -> Iterable[tuple[int, Message]]:
    """Node and its reply, as they come in. An error reply bears another sender, so replies are matched by what they answer.

    A question's time begins when it is sent: where there are many, the last is sent long after the first.
    """
    ahead, waiting = deque(questions), dict[str, tuple[int, float]]()
    looked = time.monotonic()
    while ahead or waiting:
        if ahead:
            node = ahead.popleft()
            (name,) = grid.push_messages([Message(questions[node], dst_node_id=node, message_type=kind, ttl=within_s)])
            # An empty id: the node is not known any more.
            if name:
                waiting[name] = node, time.monotonic() + within_s
        if ahead and time.monotonic() - looked < POLL_S:
            continue
        looked = time.monotonic()
        replies = list(grid.pull_messages(list(waiting))) if waiting else []
        for reply in replies:
            yield waiting.pop(reply.metadata.reply_to_message_id)[0], reply
        waiting = {name: (node, stop) for name, (node, stop) in waiting.items() if looked < stop}
        if waiting and not ahead and not replies:
            time.sleep(POLL_S)


def _refusal(plan: Plan, reason: str) -> Refusal:
    return Refusal(run=plan.run, round=plan.round, site=plan.site, reason=reason)
