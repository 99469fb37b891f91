"""Laws that every rule obeys, over random shapes, ranks, numbers of sites and weights, in float64 where exactness is claimed."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies as package
from rainhill import plugins
from rainhill.adapter import Adapter
from rainhill.messages import Update
from rainhill.recipe import StrategySection
from strategies import Rule, State, from_section

RULES = plugins.names(package)

Shapes = tuple[int, int, int]
shapes = st.tuples(st.integers(2, 9), st.integers(2, 9), st.integers(1, 4))
counts = st.integers(1, 5)
seeds = st.integers(0, 2**32 - 1)


def adapter_of(rng: np.random.Generator, shape: Shapes, *, dtype: type = np.float64) -> Adapter:
    d_out, d_in, rank = shape
    return Adapter(
        {
            "block.q.lora_A": rng.normal(size=(rank, d_in)).astype(dtype),
            "block.q.lora_B": rng.normal(size=(d_out, rank)).astype(dtype),
            "head.bias": rng.normal(size=3).astype(dtype),
        }
    )


def update_of(
    rng: np.random.Generator, adapter: Adapter, rule: Rule, state: State, *, site: str = "a", patients: int = 10, scale: float = 0.1
) -> Update:
    sends = rule.local(state, site).sends
    delta = Adapter({name: (rng.normal(size=array.shape) * scale).astype(array.dtype) for name, array in adapter.items() if sends(name)})
    return Update(run="r", round=state.round + 1, site=site, delta=delta, patients=patients, steps=1, loss=0.0)


def world(rule: Rule, seed: int, shape: Shapes, count: int, *, rounds_before: int = 0) -> tuple[Adapter, list[Update], State]:
    rng = np.random.default_rng(seed)
    adapter = adapter_of(rng, shape)
    state = dataclasses.replace(rule.init(adapter), round=rounds_before)
    return adapter, [update_of(rng, adapter, rule, state, site=f"s{i}", patients=int(rng.integers(1, 50))) for i in range(count)], state


def function(adapter: Adapter) -> dict[str, np.ndarray]:
    """What the adapter does to a model: the products, which no change of basis between the factors moves, and whole tensors."""
    return {module: pair.product() for module, pair in adapter.pairs().items()} | {"head.bias": adapter["head.bias"]}


def assert_same_function(one: Adapter, other: Adapter, tolerance: float = 1e-9) -> None:
    for name, value in function(one).items():
        np.testing.assert_allclose(value, function(other)[name], atol=tolerance, rtol=0)


each_rule = pytest.mark.parametrize("rule", [from_section(StrategySection(rule=name, weights="patients")) for name in RULES], ids=RULES)


@each_rule
@given(seed=seeds, shape=shapes, count=counts, before=st.integers(0, 1))
def test_zero_updates_leave_the_adapter_alone(rule: Rule, seed: int, shape: Shapes, count: int, before: int) -> None:
    adapter, updates, state = world(rule, seed, shape, count, rounds_before=before)
    still = [dataclasses.replace(update, delta=update.delta * 0.0) for update in updates]
    assert_same_function(rule.step(adapter, still, state)[0], adapter)


@each_rule
@given(seed=seeds, shape=shapes, before=st.integers(0, 1))
def test_one_site_gets_back_what_it_sent(rule: Rule, seed: int, shape: Shapes, before: int) -> None:
    adapter, [update], state = world(rule, seed, shape, 1, rounds_before=before)
    moved = adapter.replace({name: adapter[name] + change for name, change in update.delta.items()})
    assert_same_function(rule.step(adapter, [update], state)[0], moved)


@each_rule
@given(seed=seeds, shape=shapes, count=counts, before=st.integers(0, 1))
def test_identical_sites_are_a_fixed_point(rule: Rule, seed: int, shape: Shapes, count: int, before: int) -> None:
    adapter, updates, state = world(rule, seed, shape, 1, rounds_before=before)
    many = [dataclasses.replace(updates[0], site=f"s{i}") for i in range(count)]
    assert_same_function(rule.step(adapter, many, state)[0], rule.step(adapter, updates, state)[0])


@each_rule
@given(seed=seeds, shape=shapes, count=counts, before=st.integers(0, 1), data=st.data())
def test_the_order_of_sites_does_not_matter(rule: Rule, seed: int, shape: Shapes, count: int, before: int, data: st.DataObject) -> None:
    adapter, updates, state = world(rule, seed, shape, count, rounds_before=before)
    shuffled: Sequence[Update] = data.draw(st.permutations(updates))
    assert_same_function(rule.step(adapter, shuffled, state)[0], rule.step(adapter, updates, state)[0])


@each_rule
@given(seed=seeds, shape=shapes, count=counts, before=st.integers(0, 1))
def test_a_site_twice_is_a_site_of_double_weight(rule: Rule, seed: int, shape: Shapes, count: int, before: int) -> None:
    adapter, updates, state = world(rule, seed, shape, count, rounds_before=before)
    twice = [*updates, dataclasses.replace(updates[0], site="again")]
    heavier = [dataclasses.replace(updates[0], patients=2 * updates[0].patients), *updates[1:]]
    assert_same_function(rule.step(adapter, twice, state)[0], rule.step(adapter, heavier, state)[0])


@each_rule
@given(seed=seeds, shape=shapes, count=counts)
def test_a_step_mutates_nothing_and_counts_the_round(rule: Rule, seed: int, shape: Shapes, count: int) -> None:
    adapter, updates, state = world(rule, seed, shape, count)
    before = adapter.fingerprint(), [update.delta.fingerprint() for update in updates], dataclasses.replace(state)
    after, following = rule.step(adapter, updates, state)
    assert (adapter.fingerprint(), [update.delta.fingerprint() for update in updates], state) == before
    assert following.round == state.round + 1
    assert {name: array.shape for name, array in after.items()} == {name: array.shape for name, array in adapter.items()}


@each_rule
@given(seed=seeds, shape=shapes, count=counts)
def test_float32_stays_float32(rule: Rule, seed: int, shape: Shapes, count: int) -> None:
    rng = np.random.default_rng(seed)
    adapter = adapter_of(rng, shape, dtype=np.float32)
    state = rule.init(adapter)
    updates = [update_of(rng, adapter, rule, state, site=f"s{i}") for i in range(count)]
    assert {array.dtype for array in rule.step(adapter, updates, state)[0].values()} == {np.dtype(np.float32)}


def moved(adapter: Adapter, update: Update) -> Adapter:
    return adapter.replace({name: adapter[name] + change for name, change in update.delta.items()})


def mean_product(adapter: Adapter, updates: Sequence[Update], shares: Sequence[float]) -> np.ndarray:
    return sum(share * moved(adapter, update).pairs()["block.q"].product() for share, update in zip(shares, updates, strict=True))


@pytest.mark.parametrize("name", ["ffa", "alternating"])
@given(seed=seeds, shape=shapes, count=counts, before=st.integers(0, 1))
def test_rules_that_move_one_factor_average_the_product_exactly(name: str, seed: int, shape: Shapes, count: int, before: int) -> None:
    one_factor = from_section(StrategySection(rule=name))
    adapter, updates, state = world(one_factor, seed, shape, count, rounds_before=before)
    after, _ = one_factor.step(adapter, updates, state)
    np.testing.assert_allclose(after.pairs()["block.q"].product(), mean_product(adapter, updates, one_factor.shares(updates)), atol=1e-9)


@given(seed=seeds, shape=shapes, count=st.integers(2, 5))
def test_fedit_misses_the_mean_product_by_the_covariance_of_the_factors(seed: int, shape: Shapes, count: int) -> None:
    """Mean B @ mean A - mean(B A) = -sum w_i (B_i - mean B)(A_i - mean A), and pairwise -sum_{i<j} w_i w_j (B_i - B_j)(A_i - A_j)."""
    fedavg = from_section(StrategySection(rule="fedavg", weights="patients"))
    adapter, updates, state = world(fedavg, seed, shape, count)
    shares = fedavg.shares(updates)
    after, _ = fedavg.step(adapter, updates, state)
    pairs = [moved(adapter, update).pairs()["block.q"] for update in updates]
    merged = after.pairs()["block.q"]
    error = mean_product(adapter, updates, shares) - merged.product()
    covariance = sum(w * (pair.b - merged.b) @ (pair.a - merged.a) for w, pair in zip(shares, pairs, strict=True))
    pairwise = sum(
        shares[i] * shares[j] * (pairs[i].b - pairs[j].b) @ (pairs[i].a - pairs[j].a) for i in range(count) for j in range(i + 1, count)
    )
    np.testing.assert_allclose(error, covariance, atol=1e-9)
    np.testing.assert_allclose(error, pairwise, atol=1e-9)
    assert np.abs(error).max() > 1e-12


@given(seed=seeds, shape=shapes, count=counts)
def test_flexlora_keeps_the_best_rank_r_and_loses_the_tail_of_the_spectrum(seed: int, shape: Shapes, count: int) -> None:
    flexlora = from_section(StrategySection(rule="flexlora", weights="patients"))
    adapter, updates, state = world(flexlora, seed, shape, count)
    exact = mean_product(adapter, updates, flexlora.shares(updates))
    after, following = flexlora.step(adapter, updates, state)
    spectrum = np.linalg.svd(exact, compute_uv=False)
    rank = shape[2]
    lost = np.linalg.norm(after.pairs()["block.q"].product() - exact)
    assert lost == pytest.approx(np.sqrt(np.sum(spectrum[rank:] ** 2)), abs=1e-9)
    assert following.log["energy_kept"] == pytest.approx(np.sum(spectrum[:rank] ** 2) / np.sum(spectrum**2), abs=1e-9)


@given(seed=seeds, shape=shapes, count=st.integers(2, 4))
def test_flexlora_does_not_see_the_basis_of_a_sites_factors_and_fedit_does(seed: int, shape: Shapes, count: int) -> None:
    flexlora, fedavg = (from_section(StrategySection(rule=name)) for name in ("flexlora", "fedavg"))
    adapter, updates, state = world(flexlora, seed, shape, count)
    rng = np.random.default_rng(seed + 1)
    rotation, _ = np.linalg.qr(rng.normal(size=(shape[2], shape[2])))
    rotation[:, 0] *= -1
    pair = moved(adapter, updates[0]).pairs()["block.q"]
    delta = updates[0].delta.replace(
        {"block.q.lora_A": rotation.T @ pair.a - adapter["block.q.lora_A"], "block.q.lora_B": pair.b @ rotation - adapter["block.q.lora_B"]}
    )
    turned = [dataclasses.replace(updates[0], delta=delta), *updates[1:]]
    assert_same_function(flexlora.step(adapter, turned, state)[0], flexlora.step(adapter, updates, state)[0])
    difference = function(fedavg.step(adapter, turned, state)[0])["block.q"] - function(fedavg.step(adapter, updates, state)[0])["block.q"]
    assert np.abs(difference).max() > 1e-9


@settings(max_examples=20)
@given(seed=seeds, count=st.integers(1, 4))
def test_flexlora_is_exact_when_the_rank_holds_every_site(seed: int, count: int) -> None:
    """r' = n r: sites of rank 1, kept at rank n."""
    rng = np.random.default_rng(seed)
    d_out, d_in = 8, 7
    flexlora = from_section(StrategySection(rule="flexlora"))
    adapter = Adapter({"m.lora_A": rng.normal(size=(count, d_in)), "m.lora_B": np.zeros((d_out, count)), "head.bias": np.zeros(3)})
    updates = []
    for site in range(count):
        b = np.zeros((d_out, count))
        b[:, site] = rng.normal(size=d_out)
        delta = Adapter({"m.lora_A": rng.normal(size=(count, d_in)), "m.lora_B": b, "head.bias": np.zeros(3)})
        updates.append(Update(run="r", round=1, site=f"s{site}", delta=delta, patients=1, steps=1, loss=0.0))
    exact = sum(moved(adapter, update).pairs()["m"].product() for update in updates) / count
    after, state = flexlora.step(adapter, updates, State())
    np.testing.assert_allclose(after.pairs()["m"].product(), exact, atol=1e-9)
    assert state.log["energy_kept"] == pytest.approx(1.0)
