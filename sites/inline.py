"""The inline engine: every site in this process, one after the other, over one frozen base. Messages keep their wire form."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from client.secure import respond
from client.training.answer import LocalData, answer
from client.training.memory import Memory
from client.workbench import Bench
from rainhill import wire
from rainhill.messages import Plan, Refusal, SiteId, Update
from rainhill.recipe import Recipe
from server.rounds import Collect
from server.secure import Secure
from sites.guards import guard_of, masker_of, pinned_keys


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
                masker=masker_of(bench.recipe, site, sites=list(data), memory=memory),
            )
            yield wire.answer_from_bytes(wire.answer_to_bytes(given))

    return collect


def secure_inline(recipe: Recipe, sites: Sequence[SiteId], memory: Path) -> Secure | None:
    """The exchanges of secure aggregation with sites in this process; None where the recipe asks for none."""
    if recipe.secure_aggregation is None:
        return None

    def exchange(blobs: Mapping[SiteId, bytes]) -> Iterable[tuple[SiteId, bytes]]:
        for site, blob in blobs.items():
            masker = masker_of(recipe, site, sites=sites, memory=memory)
            assert masker is not None
            yield site, respond(blob, masker)

    return Secure(exchange=exchange, pinned=pinned_keys(recipe, sites))
