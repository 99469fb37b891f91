"""A world without training: adapters drawn at random, and sites that moved them at random."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

import strategies
from rainhill.adapter import Adapter
from rainhill.messages import SiteId, Update
from rainhill.recipe import StrategySection
from strategies import State, Strategy

Shapes = tuple[int, int, int]
"""d_out, d_in, rank"""


@dataclass(frozen=True, kw_only=True)
class World:
    """One round: what the server held, what each site was sent and ended with, and what it sent back."""

    strategy: Strategy
    adapter: Adapter
    state: State
    trained: tuple[Adapter, ...]
    updates: tuple[Update, ...]

    def step(self, updates: Sequence[Update] | None = None) -> tuple[Adapter, State]:
        return self.strategy.step(self.adapter, self.updates if updates is None else updates, self.state)

    def shares(self) -> list[float]:
        return self.strategy.shares(self.updates)

    def mean_product(self, module: str = "block.q") -> np.ndarray:
        """sum w_i (B_i A_i + residual), of what the sites ended with."""
        return sum(share * one.product(module) for share, one in zip(self.shares(), self.trained, strict=True))

    def sent_by(self, site: int, trained: Adapter) -> Update:
        """The update of a site that had ended as `trained`."""
        update = self.updates[site]
        sent = self.strategy.down(self.adapter, self.state, update.site)
        rule = self.strategy.local(sent, self.state, update.site)
        return replace(update, delta=self.strategy.encode(sent, trained, rule, update.round))


def compose(rule: str, *, weights: str = "patients", ranks: dict[SiteId, int] | None = None, **options: object) -> Strategy:
    return strategies.from_section(StrategySection(rule=rule, weights=weights, **options), ranks=ranks)


def draw(rng: np.random.Generator, shape: Shapes, *, dtype: type = np.float64, modules: Sequence[str] = ("block.q",)) -> Adapter:
    d_out, d_in, rank = shape
    arrays = {"head.bias": rng.normal(size=3).astype(dtype)}
    for module in modules:
        arrays[f"{module}.lora_A"] = rng.normal(size=(rank, d_in)).astype(dtype)
        arrays[f"{module}.lora_B"] = rng.normal(size=(d_out, rank)).astype(dtype)
    return Adapter(arrays)


def train(
    rng: np.random.Generator, strategy: Strategy, sent: Adapter, state: State, site: SiteId, *, scale: float = 0.1
) -> tuple[Adapter, Update]:
    """What a site might end with, and what it sends of it."""
    rule = strategy.local(sent, state, site)
    trained = Adapter(
        {name: array + (scale * rng.normal(size=array.shape) * rule.trains(name)).astype(array.dtype) for name, array in sent.items()}
    )
    delta = strategy.encode(sent, trained, rule, state.round + 1)
    assert {name: array.shape for name, array in delta.items()} == strategy.uplink(sent, rule)
    variate = Adapter({name: rng.normal(size=array.shape).astype(array.dtype) for name, array in sent.items() if rule.trains(name)})
    update = Update(
        run="r",
        round=state.round + 1,
        site=site,
        delta=delta,
        patients=int(rng.integers(1, 50)),
        steps=1,
        loss=0.0,
        variate=variate if rule.variate else None,
    )
    return trained, update


def world(
    strategy: Strategy,
    seed: int,
    shape: Shapes,
    count: int,
    *,
    rounds_before: int = 0,
    scale: float = 0.1,
    dtype: type = np.float64,
    adapter: Adapter | None = None,
) -> World:
    rng = np.random.default_rng(seed)
    first = strategy.first(adapter or draw(rng, shape, dtype=dtype))
    state = replace(strategy.init(first), round=rounds_before)
    sites = [f"s{number}" for number in range(count)]
    ended = [train(rng, strategy, strategy.down(first, state, site), state, site, scale=scale) for site in sites]
    return World(
        strategy=strategy,
        adapter=first,
        state=state,
        trained=tuple(trained for trained, _ in ended),
        updates=tuple(update for _, update in ended),
    )
