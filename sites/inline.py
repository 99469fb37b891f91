"""The inline engine: every site in this process, one after the other, over one frozen base. Messages keep their wire form."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from client.training.answer import LocalData, answer
from client.training.memory import Memory
from rainhill import wire
from rainhill.messages import Plan, Refusal, SiteId, Update
from server.rounds import Collect
from sites.bench import Bench
from sites.guards import guard_of


def collect_inline(bench: Bench, data: Mapping[SiteId, LocalData], memory: Path) -> Collect:
    """`memory` is the folder in which each site has one of its own, for what it keeps from round to round."""
    guards = {site: guard_of(bench, site, own, memory / site) for site, own in data.items()}

    def collect(plans: Mapping[SiteId, Plan]) -> Iterable[Update | Refusal]:
        for site, plan in plans.items():
            received = wire.plan_from_bytes(wire.plan_to_bytes(plan))
            given = answer(
                received,
                recipe=bench.recipe,
                strategy=bench.strategy,
                net=bench.net,
                task=bench.task,
                data=data[site],
                memory=Memory(memory / site),
                guard=guards[site],
            )
            yield wire.answer_from_bytes(wire.answer_to_bytes(given))

    return collect
