"""Laws that every rule obeys, over random shapes, ranks, numbers of sites and weights, in float64 where exactness is claimed."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies as package
from rainhill import plugins
from rainhill.adapter import Adapter
from server import checkpoint
from server.checkpoint import Checkpoint
from tests.strategies.world import Shapes, Strategy, World, compose, train, world

RULES = plugins.names(package)
OPTIONS = {"double_sketch": {"size": 40}}
EXACT = [name for name in RULES if compose(name).rule.traits.exact]

shapes = st.tuples(st.integers(4, 9), st.integers(4, 9), st.integers(1, 4))
counts = st.integers(1, 5)
seeds = st.integers(0, 2**32 - 1)
before = st.integers(0, 1)

each_rule = pytest.mark.parametrize("rule", [compose(name, **OPTIONS.get(name, {})) for name in RULES], ids=RULES)


def function(adapter: Adapter) -> dict[str, np.ndarray]:
    """What the adapter does to a model: the products, which no change of basis between the factors moves, and whole tensors."""
    return {module: adapter.product(module) for module in adapter.pairs()} | {"head.bias": adapter["head.bias"]}


def assert_same_function(one: Adapter, other: Adapter, tolerance: float = 1e-8) -> None:
    for name, value in function(one).items():
        np.testing.assert_allclose(value, function(other)[name], atol=tolerance, rtol=0)


def arrived(here: World, site: int) -> Adapter:
    """Where the site ended, as far as the server may know: tensors that it keeps are as they were sent."""
    rule = here.strategy.local(here.adapter, here.state, here.updates[site].site)
    return here.adapter.replace({name: array for name, array in here.trained[site].items() if rule.sends(name)})


@each_rule
@given(seed=seeds, shape=shapes, count=counts, before=before)
def test_sites_that_learned_nothing_leave_the_adapter_alone(rule: Strategy, seed: int, shape: Shapes, count: int, before: int) -> None:
    here = world(rule, seed, shape, count, rounds_before=before, scale=0.0)
    assert_same_function(here.step()[0], here.adapter)


@each_rule
@given(seed=seeds, shape=shapes, before=before)
def test_one_site_gets_back_what_it_learned(rule: Strategy, seed: int, shape: Shapes, before: int) -> None:
    here = world(rule, seed, shape, 1, rounds_before=before)
    assert_same_function(here.step()[0], arrived(here, 0))


@each_rule
@given(seed=seeds, shape=shapes, count=counts, before=before)
def test_identical_sites_are_a_fixed_point(rule: Strategy, seed: int, shape: Shapes, count: int, before: int) -> None:
    here = world(rule, seed, shape, 1, rounds_before=before)
    many = [dataclasses.replace(here.updates[0], site=f"s{i}") for i in range(count)]
    assert_same_function(here.step(many)[0], here.step()[0])


@each_rule
@given(seed=seeds, shape=shapes, count=counts, before=before, data=st.data())
def test_the_order_of_sites_does_not_matter(rule: Strategy, seed: int, shape: Shapes, count: int, before: int, data: st.DataObject) -> None:
    here = world(rule, seed, shape, count, rounds_before=before)
    assert_same_function(here.step(data.draw(st.permutations(here.updates)))[0], here.step()[0])


@each_rule
@given(seed=seeds, shape=shapes, count=counts, before=before)
def test_a_site_twice_is_a_site_of_double_weight(rule: Strategy, seed: int, shape: Shapes, count: int, before: int) -> None:
    here = world(rule, seed, shape, count, rounds_before=before)
    first, *others = here.updates
    twice = [first, *others, dataclasses.replace(first, site="again")]
    heavier = [dataclasses.replace(first, patients=2 * first.patients), *others]
    assert_same_function(here.step(twice)[0], here.step(heavier)[0])


@each_rule
@given(seed=seeds, shape=shapes, count=counts)
def test_a_step_mutates_nothing_and_counts_the_round(rule: Strategy, seed: int, shape: Shapes, count: int) -> None:
    here = world(rule, seed, shape, count)
    prints = here.adapter.fingerprint(), [update.delta.fingerprint() for update in here.updates], dataclasses.replace(here.state)
    after, following = here.step()
    assert (here.adapter.fingerprint(), [update.delta.fingerprint() for update in here.updates], here.state) == prints
    assert following.round == here.state.round + 1
    assert {name: after[name].shape for name in here.adapter} == {name: array.shape for name, array in here.adapter.items()}
    assert all(".residual_" in name for name in after.keys() - here.adapter.keys())


@each_rule
@given(seed=seeds, shape=shapes, count=counts)
def test_float32_stays_float32(rule: Strategy, seed: int, shape: Shapes, count: int) -> None:
    here = world(rule, seed, shape, count, dtype=np.float32)
    assert {array.dtype for array in here.step()[0].values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", EXACT)
@given(seed=seeds, shape=shapes, count=counts, before=before)
def test_an_exact_rule_gives_the_mean_of_the_products(name: str, seed: int, shape: Shapes, count: int, before: int) -> None:
    """Next round's model computes what the sites' models compute on average: to rounding, or to the tail of the spectrum past rank r."""
    here = world(compose(name, **OPTIONS.get(name, {})), seed, shape, count, rounds_before=before)
    after, state = here.step()
    exact = here.mean_product()
    lost = np.linalg.norm(after.product("block.q") - exact)
    tail = np.linalg.svd(exact, compute_uv=False)[shape[2] :] if "energy_kept" in state.log else []
    assert lost == pytest.approx(np.linalg.norm(tail), abs=1e-8)


@each_rule
@given(seed=seeds, shape=shapes)
def test_the_state_survives_a_checkpoint_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, rule: Strategy, seed: int, shape: Shapes
) -> None:
    """Three rounds in one go end where one round, a checkpoint, and two more do."""
    here = world(rule, seed, shape, 2)
    ends = []
    for stop in (False, True):
        adapter, state = here.adapter, here.state
        rng = np.random.default_rng(seed)
        for number in range(3):
            updates = [train(rng, rule, rule.down(adapter, state, site), state, site)[1] for site in ("a", "b")]
            adapter, state = rule.step(adapter, updates, state)
            if stop and number == 0:
                saved = Checkpoint(recipe="f" * 64, run="r", adapter=adapter, state=state, history=())
                found = checkpoint.load(checkpoint.save(tmp_path_factory.mktemp("run"), saved))
                adapter, state = found.adapter, found.state
        ends.append((adapter, state))
    assert ends[0][0] == ends[1][0]
    assert {name: array.tobytes() for name, array in ends[0][1].arrays.items()} == {
        name: array.tobytes() for name, array in ends[1][1].arrays.items()
    }


MIXED = [name for name in RULES if compose(name).rule.traits.mixed_ranks]


@pytest.mark.parametrize("name", MIXED)
@given(seed=seeds, before=before)
def test_sites_of_lower_rank_that_learned_nothing_leave_the_adapter_alone(name: str, seed: int, before: int) -> None:
    mixed = compose(name, ranks={"s0": 1, "s2": 2}, **OPTIONS.get(name, {}))
    here = world(mixed, seed, (9, 8, 4), 3, rounds_before=before, scale=0.0)
    assert [len(one["block.q.lora_A"]) for one in here.trained] == [1, 4, 2]
    assert_same_function(here.step()[0], here.adapter)


@pytest.mark.parametrize("name", [name for name in MIXED if compose(name).rule.traits.exact])
@given(seed=seeds, before=before)
def test_what_sites_of_any_rank_learned_is_added_exactly(name: str, seed: int, before: int) -> None:
    """P + sum w_i (P_i - what site i was sent of P)."""
    mixed = compose(name, ranks={"s0": 1, "s2": 2}, **OPTIONS.get(name, {}))
    here = world(mixed, seed, (9, 8, 4), 3, rounds_before=before)
    after, state = here.step()
    exact = here.adapter.product("block.q") + sum(
        share * (one.product("block.q") - mixed.down(here.adapter, here.state, update.site).product("block.q"))
        for share, one, update in zip(here.shares(), here.trained, here.updates, strict=True)
    )
    tail = np.linalg.svd(exact, compute_uv=False)[4:] if "energy_kept" in state.log else []
    assert np.linalg.norm(after.product("block.q") - exact) == pytest.approx(np.linalg.norm(tail), abs=1e-8)
