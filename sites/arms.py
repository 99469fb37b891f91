"""The five arms that are compared, each with the same number of training steps: base, local, shared, private, pooled."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from client.training import features, lora
from client.training.answer import LocalData, own_view, site_seed
from client.training.fit import fit
from client.training.memory import Memory
from client.training.personal import Private, personalise
from client.workbench import Bench
from rainhill.adapter import Adapter
from rainhill.messages import RoundRecord, SiteId
from rainhill.recipe import CompressionSection, Recipe
from server import checkpoint
from server.checkpoint import Checkpoint
from server.rounds import Collect, run_rounds
from server.secure import Secure
from sites.bench import SiteData
from sites.inline import collect_inline
from strategies import State, Strategy
from strategies.fedavg import FedAvg

Arm = Literal["base", "local", "shared", "private", "pooled"]
ARMS: tuple[Arm, ...] = ("base", "local", "shared", "private", "pooled")

POOLED = "pooled"

OnRound = Callable[[str, RoundRecord], None]
"""Called after each round with the name of the arm (`local/liverpool`) and what happened."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What an arm ends with: adapters that would travel, private parts that would not, and the rounds that led there."""

    adapters: Mapping[str, Adapter]
    private: Mapping[str, Private] = field(default_factory=dict)
    history: Mapping[str, tuple[RoundRecord, ...]] = field(default_factory=dict)


def train_shared(
    bench: Bench, first: Adapter, *, sites: list[SiteId], collect: Collect, folder: Path, on_round: OnRound, secure: Secure | None = None
) -> Checkpoint:
    """The federation itself."""
    return run_rounds(
        bench.recipe,
        bench.strategy,
        bench.strategy.first(first),
        run=bench.recipe.name,
        sites=sites,
        collect=collect,
        folder=folder / "shared",
        on_round=lambda record: on_round("shared", record),
        secure=secure,
    )


def train_local(bench: Bench, first: Adapter, data: Mapping[SiteId, SiteData], *, folder: Path, on_round: OnRound) -> Trained:
    """Each site alone: the same rounds with nobody else in them, stopped where its validation patients say, then the same private part.

    Without privacy, whatever the recipe asks: what never leaves the site needs none, and that is what a site alone would do.
    """
    adapters: dict[str, Adapter] = {}
    private: dict[str, Private] = {}
    history: dict[str, tuple[RoundRecord, ...]] = {}
    alone = replace(bench, recipe=_for_one(bench.recipe, times=1), strategy=Strategy(rule=FedAvg(), ranks=bench.strategy.ranks))
    for site, own in data.items():
        done = run_rounds(
            alone.recipe,
            alone.strategy,
            first,
            run=f"{bench.recipe.name}/local/{site}",
            sites=[site],
            collect=collect_inline(alone, {site: replace(own, privacy=None)}, memory_of(folder, "local")),
            folder=folder / "local" / site,
            on_round=lambda record, site=site: on_round(f"local/{site}", record),  # type: ignore[misc]
        )
        adapters[site], history[site] = _best(alone, first, done, site=site, data=own, folder=folder / "local" / site), done.history
        private[site] = personalise(adapters[site], site=site, recipe=bench.recipe, net=bench.net, task=bench.task, data=own)
    return Trained(adapters=adapters, private=private, history=history)


def train_private(bench: Bench, shared: Mapping[SiteId, Adapter], data: Mapping[SiteId, SiteData]) -> dict[SiteId, Private]:
    """What each site adds to the shared adapter, as `own_views` has it there, for itself."""
    return {
        site: personalise(
            shared[site], site=site, recipe=bench.recipe, net=bench.net, task=bench.task, data=own, mode=bench.strategy.personal
        )
        for site, own in data.items()
    }


def own_views(bench: Bench, shared: Checkpoint, sites: Iterable[SiteId], *, folder: Path) -> dict[SiteId, Adapter]:
    """The shared adapter as each site has it after the last round: with the tensors that its strategy lets it keep, at its own rank."""
    views = {}
    for site in sites:
        sent = bench.strategy.final(shared.adapter, shared.state, site)
        rule = bench.strategy.local(sent, shared.state, site)
        views[site] = own_view(sent, rule, Memory(memory_of(folder, "shared") / site), shared.state.round + 1)
    return views


def as_seen(bench: Bench, first: Adapter, shared: Checkpoint, data: Mapping[SiteId, SiteData], *, folder: Path) -> tuple[RoundRecord, ...]:
    """The rounds with every site's own validation numbers: a simulation may look up what sites withheld, noised, or took no part in."""
    history = []
    for record in shared.history:
        found = {site: metrics for site, metrics in record.evaluations.items() if bench.task.measure in metrics}
        missing = set(data) - set(found)
        if missing:
            before = _before(bench, first, record.round, folder / "shared")
            found |= {site: validated(bench, bench.strategy.down(*before, site), data[site]) for site in missing}
        history.append(replace(record, evaluations=found))
    return tuple(history)


def _before(bench: Bench, first: Adapter, number: int, folder: Path) -> tuple[Adapter, State]:
    """What round `number` began from."""
    if number == 1:
        start = bench.strategy.first(first)
        return start, bench.strategy.init(start)
    done = checkpoint.load(checkpoint.path_of(folder, number - 1))
    return done.adapter, done.state


def validated(bench: Bench, adapter: Adapter, own: LocalData) -> dict[str, float]:
    lora.write_adapter(bench.net, adapter, name=lora.SHARED)
    return dict(bench.task.validated(bench.net, own.val).metrics)


def memory_of(folder: Path, arm: Arm) -> Path:
    """Where, in the folder of a run's checkpoints, each site has a folder of its own for what it keeps and never sends."""
    return folder / "memory" / arm


def train_pooled(bench: Bench, first: Adapter, data: Mapping[SiteId, SiteData], *, folder: Path, on_round: OnRound) -> Adapter:
    """The upper bound that the real world forbids: all patients in one place, each step as large as all sites' steps together."""
    together = replace(bench, recipe=_for_one(bench.recipe, times=len(data)), strategy=Strategy(rule=FedAvg()))
    pooled = LocalData(
        train=features.concatenate([own.train for own in data.values()]), val=features.concatenate([own.val for own in data.values()])
    )
    done = run_rounds(
        together.recipe,
        together.strategy,
        first,
        run=f"{bench.recipe.name}/{POOLED}",
        sites=[POOLED],
        collect=collect_inline(together, {POOLED: pooled}, memory_of(folder, "pooled")),
        folder=folder / POOLED,
        on_round=lambda record: on_round(POOLED, record),
    )
    # As many steps more as the other arms have for their private part.
    best = _best(together, first, done, site=POOLED, data=pooled, folder=folder / POOLED)
    lora.write_adapter(bench.net, best, name=lora.SHARED)
    with_head = bench.recipe.lora.head == "shared"
    parameters = lora.trainable(bench.net, name=lora.SHARED, with_head=with_head)
    fit(bench.net, pooled.train, bench.task, together.recipe.private, parameters=parameters, seed=site_seed(bench.recipe.seed, POOLED, 0))
    return lora.read_adapter(bench.net, name=lora.SHARED, with_head=with_head)


def _best(bench: Bench, first: Adapter, done: Checkpoint, *, site: SiteId, data: LocalData, folder: Path) -> Adapter:
    """The adapter after the round with the lowest validation loss, which may be none: alone, a small site soon learns its films by heart.

    The federation gets no such choice, so that the arms it is held against are at their best.
    """
    last = validated(bench, done.adapter, data)["loss"]
    losses = [record.evaluations[site]["loss"] for record in done.history] + [last]
    after = int(np.argmin(losses))
    return checkpoint.load(checkpoint.path_of(folder, after)).adapter if after else first


def _for_one(recipe: Recipe, *, times: int) -> Recipe:
    """The recipe for a run with a single site, whose steps are so many times as large, and which needs neither wire nor privacy."""
    rounds, private = recipe.rounds, recipe.private
    return recipe.model_copy(
        update={
            "rounds": rounds.model_copy(update={"patients_per_step": rounds.patients_per_step * times, "quorum": 1}),
            "compression": CompressionSection(),
            "privacy": None,
            "secure_aggregation": None,
            "private": private.model_copy(update={"patients_per_step": private.patients_per_step * times}),
        }
    )
