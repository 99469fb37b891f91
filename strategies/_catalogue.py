"""Every rule, server optimiser, robust rule and personalisation mode as data: what crosses, and what each can and cannot do.

Bytes are counted on the tensors themselves: one module of the given width and rank goes through one round, and the count is multiplied.
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import strategies
from rainhill import plugins
from rainhill.adapter import A_SUFFIX, B_SUFFIX, Adapter
from rainhill.messages import Update
from rainhill.recipe import PartSection, StrategySection
from strategies import Strategy

MODULE = "m"
AROUND = {"server_optimizer": "fedavg", "robust": "flexlora", "personal": "fedavg"}
"""The rule beside which a part of another kind is shown: robust rules go with exact ones."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    name: str
    kind: str
    """rule, server_optimizer, robust or personal: the key of `[strategy]` that it is named under."""
    summary: str
    source: str
    uplink_bytes: int
    """A site sends in a round; of a part other than a rule, with `fedavg`, of a robust one with `flexlora`. The mean of two rounds."""
    downlink_bytes: int
    """A site is sent in the second round."""
    exact: bool | None
    """Whether a rule merges products exactly (before it cuts them to a rank); None of other kinds."""
    linear: bool
    """Whether secure aggregation can hide single updates from the server."""
    needs_single_updates: bool
    keeps_basis: bool
    """Whether A and B of one round may be held against those of the next, entry by entry."""
    min_sites: int
    mixed_ranks: bool
    noise: str
    """What noise on the sites' tensors does to the product."""
    options: dict[str, Any]
    """Further keys of its table, and what they are where not given."""
    void: bool
    """Whether it voids a privacy guarantee of the shared adapter, since parts that stay train along with it."""


def catalogue(*, width: int = 384, rank: int = 8, modules: int = 24, sites: int = 2) -> list[Entry]:
    """By default the sizes of a ViT-S with LoRA on q and v of its 12 blocks, and two sites (or as many as a part needs)."""
    entries = []
    # Random factors have no leading directions, which a rule that cuts them would warn of.
    logging.disable(logging.WARNING)
    try:
        for kind, package in strategies.PACKAGES.items():
            for name in plugins.names(package):
                parts = {"rule": name} if kind == "rule" else {"rule": AROUND[kind], kind: PartSection(name=name)}
                section = StrategySection.model_validate(parts)
                entries.append(_entry(name, kind, strategies.from_section(section), width=width, rank=rank, modules=modules, sites=sites))
    finally:
        logging.disable(logging.NOTSET)
    return entries


def as_rows(entries: list[Entry]) -> list[dict[str, Any]]:
    return [asdict(entry) for entry in entries]


def _entry(name: str, kind: str, strategy: Strategy, *, width: int, rank: int, modules: int, sites: int) -> Entry:
    traits = strategy.rule.traits
    parts: dict[str, Any] = {"rule": strategy.rule, "server_optimizer": strategy.optimizer, "robust": strategy.robust}
    plugin = (parts | {"personal": strategy.personal})[kind]
    part = traits if kind == "rule" else plugin
    count = max(sites, strategy.min_sites())
    up, down = zip(*_two_rounds(strategy, width=width, rank=rank, count=count), strict=True)
    return Entry(
        name=name,
        kind=kind,
        summary=part.summary,
        source=part.source,
        uplink_bytes=modules * sum(up) // 2,
        downlink_bytes=modules * down[1],
        exact=traits.exact if kind == "rule" else None,
        linear=strategy.linear,
        needs_single_updates=not strategy.linear,
        keeps_basis=traits.factors,
        min_sites=strategy.min_sites(),
        mixed_ranks=traits.mixed_ranks and strategy.personal.mixed_ranks and not (strategy.optimizer and strategy.optimizer.variates),
        noise=traits.noise,
        options=plugin.model_dump(mode="json"),
        void=traits.void or strategy.personal.void,
    )


def _two_rounds(strategy: Strategy, *, width: int, rank: int, count: int) -> Iterator[tuple[int, int]]:
    """Bytes up and down of one site in each of two rounds of random training."""
    rng = np.random.default_rng(0)
    drawn = {MODULE + A_SUFFIX: rng.normal(size=(rank, width)), MODULE + B_SUFFIX: np.zeros((width, rank))}
    adapter = strategy.first(Adapter({name: array.astype(np.float32) for name, array in drawn.items()}))
    state = strategy.init(adapter)
    for _ in range(2):
        updates = []
        for number in range(count):
            site = f"site_{number}"
            sent, further = strategy.down(adapter, state, site), strategy.choices(adapter, state, site)
            rule = strategy.local(sent, state, site)
            trained = Adapter(
                {name: array + rng.normal(size=array.shape).astype(np.float32) * rule.trains(name) for name, array in sent.items()}
            )
            delta = strategy.encode(sent, trained, rule, state.round + 1)
            variate = delta if rule.variate else None
            updates.append(Update(run="", round=state.round + 1, site=site, delta=delta, patients=1, steps=1, loss=0.0, variate=variate))
        correction = rule.correction.nbytes if rule.correction is not None else 0
        down = sent.nbytes + sum(one.nbytes for one in further) + correction
        yield delta.nbytes + (variate.nbytes if variate else 0), down
        adapter, state = strategy.step(adapter, updates, state)
