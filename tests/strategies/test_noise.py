"""What noise on the sites' tensors does to the merged product, measured on every rule and held against what the rule says of itself.

E|D|^2 = s^2 (d_out |A|^2 + d_in |B|^2) + s^4 d_out d_in r of one site; by n sites the first part shrinks as 1/n, the second as 1/n^2 where
factors are averaged, and as 1/n where products are.
"""

from functools import cache

import numpy as np
import pytest

import strategies
from rainhill import plugins
from rainhill.adapter import Adapter
from rainhill.messages import Update
from rainhill.recipe import StrategySection

D_OUT, D_IN, RANK = 24, 20, 3
RULES = plugins.names(strategies)


def product(adapter: Adapter) -> np.ndarray:
    pair, residual, core = adapter.pairs()["m"], adapter.residuals().get("m"), adapter.get("m.lora_R")
    merged = pair.b @ (pair.a if core is None else core @ pair.a)
    return merged if residual is None else merged + residual.product()


@cache
def energy(rule: str, sites: int, sigma: float) -> float:
    """Mean of |D|^2 over draws, where the sites send nothing but noise of that standard deviation."""
    strategy = strategies.from_section(StrategySection(rule=rule))
    found = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        arrays = {"m.lora_A": 3 * rng.normal(size=(RANK, D_IN)) / np.sqrt(D_IN), "m.lora_B": 0.3 * rng.normal(size=(D_OUT, RANK))}
        adapter = strategy.first(Adapter(arrays))
        state = strategy.init(adapter)
        noised, still = [], []
        for number in range(sites):
            site = f"site_{number}"
            sent = strategy.down(adapter, state, site)
            local = strategy.local(sent, state, site)
            moved = Adapter({name: array + sigma * rng.normal(size=array.shape) * local.trains(name) for name, array in sent.items()})
            for updates, trained in ((noised, moved), (still, sent)):
                delta = strategy.encode(sent, trained, local, 1)
                updates.append(Update(run="r", round=1, site=site, delta=delta, patients=1, steps=1, loss=0.0))
        with_noise, without = (strategy.step(adapter, updates, state)[0] for updates in (noised, still))
        found.append(np.sum((product(with_noise) - product(without)) ** 2))
    return float(np.mean(found))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("rule", RULES)
def test_noise_does_to_the_product_what_the_rule_says(rule: str) -> None:
    says = strategies.from_section(StrategySection(rule=rule)).rule.traits.noise
    doubled = energy(rule, 2, 4.0) / energy(rule, 2, 2.0)
    beside_averaged_factors = energy(rule, 8, 1.0) / energy("fedavg", 8, 1.0)
    if says == "linear":
        assert doubled == pytest.approx(4, rel=0.02)
        assert beside_averaged_factors < 0.9
    else:
        assert doubled > 10
        assert (beside_averaged_factors > 1.1) == (says == "amplified")


def test_averaged_factors_follow_the_formula() -> None:
    sigma, sites = 0.7, 4
    expected = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        a, b = 3 * rng.normal(size=(RANK, D_IN)) / np.sqrt(D_IN), 0.3 * rng.normal(size=(D_OUT, RANK))
        once = sigma**2 * (D_OUT * np.sum(a**2) + D_IN * np.sum(b**2)) / sites
        expected.append(once + sigma**4 * D_OUT * D_IN * RANK / sites**2)
    assert energy("fedavg", sites, sigma) == pytest.approx(np.mean(expected), rel=0.1)


def test_averaged_products_keep_the_quadratic_part_that_averaged_factors_lose() -> None:
    assert energy("flora", 2, 4.0) / energy("flora", 8, 4.0) == pytest.approx(4, rel=0.1)
    assert energy("fedavg", 2, 4.0) / energy("fedavg", 8, 4.0) > 12
