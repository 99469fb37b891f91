"""Robust rules: on products, whatever the basis of the factors, and against a hostile site."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rainhill import plugins
from rainhill.adapter import Adapter
from rainhill.messages import Update
from strategies import State, robust
from tests.strategies.world import Shapes, World, compose, world

ROBUST = plugins.names(robust)
RULES = ("flexlora", "alternating", "ffa", "flora", "fedsb")
each_robust = pytest.mark.parametrize("name", ROBUST)
seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(st.integers(4, 8), st.integers(4, 8), st.integers(1, 3))
MODULE = "block.q"


def function(adapter: Adapter) -> np.ndarray:
    return np.concatenate([adapter.product(MODULE).ravel(), adapter["head.bias"]])


def honest_mean(here: World, count: int) -> np.ndarray:
    return np.mean([function(one) for one in here.trained[:count]], axis=0)


def _turned(adapter: Adapter, seed: int) -> Adapter:
    a, b = (adapter[f"{MODULE}.lora_{factor}"] for factor in "AB")
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(a), len(a))))
    turn = -turn if np.trace(turn) > 0 else turn
    return adapter.replace({f"{MODULE}.lora_A": turn.T @ a, f"{MODULE}.lora_B": b @ turn})


@pytest.mark.parametrize("rule", RULES)
@each_robust
@given(seed=seeds, shape=shapes)
@settings(max_examples=15)
def test_identical_sites_are_a_fixed_point(rule: str, name: str, seed: int, shape: Shapes) -> None:
    here = world(compose(rule, weights="equal", robust=name), seed, shape, 1)
    many = [replace(here.updates[0], site=f"s{i}") for i in range(6)]
    np.testing.assert_allclose(function(here.step(many)[0]), function(here.trained[0]), atol=1e-7)


@each_robust
@given(seed=seeds, shape=shapes, data=st.data())
@settings(max_examples=15)
def test_the_order_of_sites_does_not_matter(name: str, seed: int, shape: Shapes, data: st.DataObject) -> None:
    here = world(compose("flexlora", weights="equal", robust=name), seed, shape, 6)
    shuffled = data.draw(st.permutations(here.updates))
    np.testing.assert_allclose(function(here.step(shuffled)[0]), function(here.step()[0]), atol=1e-7)


@each_robust
@given(seed=seeds, shape=shapes)
@settings(max_examples=15)
def test_turning_one_sites_factors_does_not_move_the_result(name: str, seed: int, shape: Shapes) -> None:
    """(B R)(R^T A) is the same adapter, so a robust rule must not tell it apart from B A."""
    here = world(compose("flexlora", weights="equal", robust=name), seed, shape, 6)
    turned = _turned(here.trained[0], seed)
    other = here.step([here.sent_by(0, turned), *here.updates[1:]])[0]
    np.testing.assert_allclose(function(other), function(here.step()[0]), atol=1e-7)


@given(seed=seeds, shape=shapes)
@settings(max_examples=15)
def test_a_median_of_factors_would_tell_two_forms_of_one_adapter_apart(seed: int, shape: Shapes) -> None:
    """Why robust rules work on products: turning two of three sites moves the median of the factors, and not the median of the products."""
    here = world(compose("flexlora", weights="equal", robust="median"), seed, shape, 3)
    turned = [_turned(one, seed) if place else one for place, one in enumerate(here.trained)]
    by_factor = [
        np.median([one[f"{MODULE}.lora_B"] for one in some], axis=0) @ np.median([one[f"{MODULE}.lora_A"] for one in some], axis=0)
        for some in (here.trained, turned)
    ]
    assert np.abs(by_factor[0] - by_factor[1]).max() > 1e-6
    after = here.step([here.sent_by(place, one) for place, one in enumerate(turned)])[0]
    np.testing.assert_allclose(function(after), function(here.step()[0]), atol=1e-7)


@pytest.mark.parametrize("rule", RULES)
@each_robust
@given(seed=seeds)
@settings(max_examples=15)
def test_a_hostile_site_moves_the_result_little_and_the_plain_mean_far(rule: str, name: str, seed: int) -> None:
    """Five sites learn nearly the same; the sixth sends ten times the opposite."""
    guarded, plain = (world(compose(rule, weights="equal", **parts), seed, (8, 7, 2), 1, scale=0.3) for parts in ({"robust": name}, {}))
    rng = np.random.default_rng(seed)
    goal = plain.updates[0].delta
    crowd = [
        replace(plain.updates[0], site=f"s{i}", delta=Adapter({k: v * (1 + 0.02 * rng.normal(size=v.shape)) for k, v in goal.items()}))
        for i in range(5)
    ]
    hostile = replace(plain.updates[0], site="s5", delta=goal * -10.0)
    honest = function(plain.step(crowd)[0])
    went = np.linalg.norm(honest - function(plain.adapter))
    off = np.linalg.norm(function(guarded.step([*crowd, hostile])[0]) - honest)
    off_plain = np.linalg.norm(function(plain.step([*crowd, hostile])[0]) - honest)
    # Norm bounding lets the hostile site turn its own bounded share around: a third of the way, where the others bound it to far less.
    assert off < (0.5 if name in ("norm_bound", "centred_clipping") else 0.2) * went
    assert off_plain > went


@pytest.mark.parametrize("rule", ["flexlora", "flora", "fedex"])
@each_robust
@given(seed=seeds)
@settings(max_examples=15)
def test_a_site_cannot_hide_behind_the_scale_of_its_factors(rule: str, name: str, seed: int) -> None:
    """(1e4 B)(A / 1e4) is B A: a robust rule sees an honest product, and the merge must not see anything else."""
    here = world(compose(rule, weights="equal", robust=name), seed, (8, 7, 2), 6)
    a, b = (here.trained[0][f"{MODULE}.lora_{factor}"] for factor in "AB")
    scaled = here.trained[0].replace({f"{MODULE}.lora_A": a / 1e4, f"{MODULE}.lora_B": b * 1e4})
    other = here.step([here.sent_by(0, scaled), *here.updates[1:]])[0]
    np.testing.assert_allclose(function(other), function(here.step()[0]), atol=1e-5)


def test_a_weak_direction_does_not_blow_a_fitted_factor_up() -> None:
    """In a round that trains A, a direction in which B is a millionth has nothing to say of where A should go."""
    strategy = compose("alternating", weights="equal", robust="median")
    rng = np.random.default_rng(0)
    b = rng.normal(size=(8, 2)) * [1.0, 1e-6]
    adapter = Adapter({"m.lora_A": rng.normal(size=(2, 7)), "m.lora_B": b})
    sites = [
        Update(run="r", round=2, site=f"s{i}", delta=Adapter({"m.lora_A": rng.normal(size=(2, 7))}), patients=1, steps=1, loss=0.0)
        for i in range(5)
    ]
    after, _ = strategy.step(adapter, sites, State(round=1))
    assert np.linalg.norm(after["m.lora_A"] - adapter["m.lora_A"]) < 10


def scalar(site: str, value: float) -> Update:
    return Update(run="r", round=1, site=site, delta=Adapter({"m.lora_B": np.array([[float(value)]])}), patients=1, steps=1, loss=0.0)


ONE = Adapter({"m.lora_A": np.array([[2.0]]), "m.lora_B": np.array([[0.0]])})


def merged(name: str, *values: float, **options: object) -> float:
    """B of the (1, 1) product 2 B, after sites moved it by `values`."""
    strategy = compose("ffa", weights="equal", robust={"name": name, **options})
    return float(strategy.step(ONE, [scalar(f"s{i}", value) for i, value in enumerate(values)], State())[0]["m.lora_B"][0, 0])


def test_the_median_is_the_middle_site() -> None:
    assert merged("median", 1, 2, 100) == pytest.approx(2)


def test_the_trimmed_mean_leaves_the_extremes_out() -> None:
    """Of -50, 1, 2, 6, 100 the middle three: (1 + 2 + 6) / 3 = 3."""
    assert merged("trimmed_mean", -50, 1, 2, 6, 100) == pytest.approx(3)


def test_krum_takes_the_site_nearest_to_its_neighbours() -> None:
    """n = 5, f = 1: each site's two nearest. Squared distances of B: 0 -> 1 + 4, 1 -> 1 + 1, 2 -> 1 + 4, so site 1 of 0, 1, 2, 9, 50."""
    assert merged("krum", 0, 1, 2, 9, 50) == pytest.approx(1)


def test_multi_krum_averages_all_but_the_farthest() -> None:
    assert merged("multi_krum", 0, 1, 2, 9, 50) == pytest.approx(3)


@pytest.mark.parametrize("far", [100, 1e4, 1e8, 1e12])
def test_the_geometric_median_on_a_line_is_the_median_however_far_one_is(far: float) -> None:
    assert merged("geometric_median", 1, 2, far) == pytest.approx(2, abs=0.1)
    assert merged("geometric_median", 1, 1.1, 1.2, 1.3, far) == pytest.approx(1.2, abs=0.02)


def test_a_norm_bound_scales_a_long_change_down() -> None:
    """The product is 2 B: norms 2, 4 and 200, bound 4. The third counts as 2 of 100: (1 + 2 + 2) / 3."""
    assert merged("norm_bound", 1, 2, 100, bound=4.0) == pytest.approx(5 / 3)
    # Without a bound, the median norm, which is 4 too.
    assert merged("norm_bound", 1, 2, 100) == pytest.approx(5 / 3)


def test_centred_clipping_pulls_by_at_most_the_radius() -> None:
    """From 0, radius 2 on the product, so 1 on B: (1 + 1 + 1) / 3 = 1. Then from 1: (0 + 1 + 1) / 3 more = 5/3."""
    assert merged("centred_clipping", 1, 2, 100, radius=2.0, steps=1) == pytest.approx(1)
    assert merged("centred_clipping", 1, 2, 100, radius=2.0, steps=2) == pytest.approx(5 / 3)


@pytest.mark.parametrize(
    ("name", "options", "count"), [("krum", {}, 5), ("krum", {"byzantine": 2}, 7), ("trimmed_mean", {"byzantine": 2}, 5), ("median", {}, 3)]
)
def test_each_says_how_many_sites_it_needs(name: str, options: dict[str, int], count: int) -> None:
    assert compose("ffa", weights="equal", robust={"name": name, **options}).min_sites() == count
