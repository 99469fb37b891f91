"""What the papers claim of single rules, and what must not hold of them."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rainhill.adapter import Adapter, Pair
from strategies._factors import compress, gram, svd
from strategies.fedrot import FedRot
from tests.strategies.world import Shapes, World, compose, draw, world

shapes = st.tuples(st.integers(5, 9), st.integers(5, 9), st.integers(1, 3))
seeds = st.integers(0, 2**32 - 1)
several = st.integers(2, 5)
MODULE = "block.q"


def rotation(rng: np.random.Generator, rank: int) -> np.ndarray:
    """Orthogonal, and never near the identity: its determinant is -1 for rank 1 and its trace is small."""
    q, _ = np.linalg.qr(rng.normal(size=(rank, rank)))
    return -q if np.trace(q) > 0 else q


def turned(adapter: Adapter, turn: np.ndarray) -> Adapter:
    """The same function in another basis: (B R)(R^T A)."""
    return adapter.replace(
        {f"{MODULE}.lora_A": turn.T @ adapter[f"{MODULE}.lora_A"], f"{MODULE}.lora_B": adapter[f"{MODULE}.lora_B"] @ turn}
    )


def with_one_turned(here: World, seed: int) -> list:
    rank = here.adapter.pairs()[MODULE].rank
    other = turned(here.trained[0], rotation(np.random.default_rng(seed), rank))
    return [here.sent_by(0, other), *here.updates[1:]]


@given(seed=seeds, shape=shapes, count=several)
def test_fedit_misses_the_mean_product_by_the_covariance_of_the_factors(seed: int, shape: Shapes, count: int) -> None:
    """Mean B @ mean A - mean(B A) = -sum w_i (B_i - mean B)(A_i - mean A), and pairwise -sum_{i<j} w_i w_j (B_i - B_j)(A_i - A_j)."""
    here = world(compose("fedavg"), seed, shape, count)
    shares, pairs = here.shares(), [one.pairs()[MODULE] for one in here.trained]
    merged = here.step()[0].pairs()[MODULE]
    error = here.mean_product() - merged.product()
    covariance = sum(w * (pair.b - merged.b) @ (pair.a - merged.a) for w, pair in zip(shares, pairs, strict=True))
    pairwise = sum(
        shares[i] * shares[j] * (pairs[i].b - pairs[j].b) @ (pairs[i].a - pairs[j].a) for i in range(count) for j in range(i + 1, count)
    )
    np.testing.assert_allclose(error, covariance, atol=1e-9)
    np.testing.assert_allclose(error, pairwise, atol=1e-9)
    assert np.abs(error).max() > 1e-12


@pytest.mark.parametrize("common", ["A", "B"])
@given(seed=seeds, shape=shapes, count=several)
def test_fedit_is_exact_where_all_sites_share_a_factor(common: str, seed: int, shape: Shapes, count: int) -> None:
    here = world(compose("fedavg"), seed, shape, count)
    name = f"{MODULE}.lora_{common}"
    trained = tuple(one.replace({name: here.adapter[name]}) for one in here.trained)
    here = replace(here, trained=trained, updates=tuple(here.sent_by(i, one) for i, one in enumerate(trained)))
    np.testing.assert_allclose(here.step()[0].product(MODULE), here.mean_product(), atol=1e-9)


@given(seed=seeds, shape=shapes, count=several)
def test_a_weight_in_both_stacks_counts_squared(seed: int, shape: Shapes, count: int) -> None:
    """Why `svd` weights one stack only: with w_i in both, the stacked product is sum w_i^2 B_i A_i, and that is not the mean."""
    here = world(compose("flora"), seed, shape, count)
    pairs, shares = [one.pairs()[MODULE] for one in here.trained], here.shares()
    both = sum(((w * pair.b) @ (w * pair.a) for w, pair in zip(shares, pairs, strict=True)), np.zeros(()))
    np.testing.assert_allclose(both, sum(w**2 * pair.product() for w, pair in zip(shares, pairs, strict=True)), atol=1e-9)
    assert np.abs(both - here.mean_product()).max() > 1e-3
    right = compress(pairs, shares)
    np.testing.assert_allclose(right.product(), here.mean_product(), atol=1e-9)


@given(seed=seeds, shape=shapes, count=several)
def test_the_residual_of_fedex_is_the_covariance_and_of_rank_n_minus_1_times_r(seed: int, shape: Shapes, count: int) -> None:
    here = world(compose("fedex"), seed, shape, count)
    after, state = here.step()
    mean_of_factors = world(compose("fedavg"), seed, shape, count).step()[0]
    assert after.pairs()[MODULE].product() == pytest.approx(mean_of_factors.product(MODULE))
    np.testing.assert_allclose(after.residuals()[MODULE].product(), here.mean_product() - mean_of_factors.product(MODULE), atol=1e-9)
    assert state.log["residual_rank"] == after.residuals()[MODULE].rank <= min((count - 1) * shape[2], shape[0], shape[1])


@given(seed=seeds, count=several)
def test_rounding_to_float32_does_not_raise_the_rank_of_the_residual(seed: int, count: int) -> None:
    here = world(compose("fedex"), seed, (40, 30, 2), count, dtype=np.float32)
    after, _ = here.step()
    assert after.residuals()[MODULE].rank <= (count - 1) * 2
    np.testing.assert_allclose(after.product(MODULE), here.mean_product(), atol=2e-5)


@given(seed=seeds)
def test_a_cap_on_the_residual_of_fedex_leaves_its_tail_out(seed: int) -> None:
    whole, cut = (world(compose("fedex", **options), seed, (9, 8, 3), 3) for options in ({}, {"residual_rank": 2}))
    exact = whole.step()[0].residuals()[MODULE].product()
    kept = cut.step()[0].residuals()[MODULE]
    assert kept.rank == 2
    tail = np.linalg.svd(exact, compute_uv=False)[2:]
    assert np.linalg.norm(kept.product() - exact) == pytest.approx(np.linalg.norm(tail), abs=1e-9)


@given(seed=seeds, shape=shapes, count=several)
def test_the_spectrum_by_qr_is_the_one_of_the_dense_product(seed: int, shape: Shapes, count: int) -> None:
    here = world(compose("flexlora"), seed, shape, count)
    u, spectrum, vt = svd([one.pairs()[MODULE] for one in here.trained], here.shares())
    dense = np.linalg.svd(here.mean_product(), compute_uv=False)
    np.testing.assert_allclose(spectrum[: len(dense)], dense[: len(spectrum)], atol=1e-9)
    np.testing.assert_allclose(u * spectrum @ vt, here.mean_product(), atol=1e-9)


@given(seed=seeds, shape=shapes, count=several)
def test_flexlora_logs_the_share_of_the_energy_that_its_rank_held(seed: int, shape: Shapes, count: int) -> None:
    here = world(compose("flexlora"), seed, shape, count)
    squares = np.linalg.svd(here.mean_product(), compute_uv=False) ** 2
    assert here.step()[1].log["energy_kept"] == pytest.approx(squares[: shape[2]].sum() / squares.sum(), abs=1e-9)


@settings(max_examples=20)
@given(seed=seeds, count=st.integers(1, 4))
def test_flexlora_is_exact_when_its_rank_holds_every_site(seed: int, count: int) -> None:
    """r' = n r: sites of rank 1, merged at rank n."""
    ranks = {f"s{i}": 1 for i in range(count)}
    start = draw(np.random.default_rng(seed), (8, 7, count))
    start = start.replace({f"{MODULE}.lora_B": np.zeros((8, count))})
    here = world(compose("flexlora", ranks=ranks), seed, (8, 7, count), count, adapter=start)
    after, state = here.step()
    np.testing.assert_allclose(after.product(MODULE), here.mean_product(), atol=1e-9)
    assert state.log["energy_kept"] == pytest.approx(1.0)


@given(seed=seeds, shape=shapes, count=several)
def test_fedsvd_changes_the_basis_of_a_and_never_its_row_space(seed: int, shape: Shapes, count: int) -> None:
    here = world(compose("fedsvd"), seed, shape, count)
    after = here.step()[0].pairs()[MODULE]
    before = here.adapter.pairs()[MODULE]
    np.testing.assert_allclose(after.a @ after.a.T, np.eye(shape[2]), atol=1e-9)
    np.testing.assert_allclose(after.a.T @ after.a, np.linalg.pinv(before.a) @ before.a, atol=1e-8)


@given(seed=seeds, shape=st.tuples(st.integers(14, 20), st.integers(14, 20), st.integers(1, 2)), count=st.integers(2, 3))
def test_a_double_sketch_is_exact_from_n_r_columns_on_and_not_with_r(seed: int, shape: Shapes, count: int) -> None:
    """From B = 0 the change of the mean has rank n r. The result is then FlexLoRA's, from sums alone."""
    d_out, _, rank = shape
    start = draw(np.random.default_rng(seed), shape)
    start = start.replace({f"{MODULE}.lora_B": np.zeros((d_out, rank))})
    wanted = world(compose("flexlora"), seed, shape, count, adapter=start, scale=1.0).step()[0].product(MODULE)
    enough, few = (
        world(compose("double_sketch", size=size), seed, shape, count, adapter=start, scale=1.0).step()[0].product(MODULE)
        for size in (count * rank, rank)
    )
    assert np.linalg.norm(enough - wanted) < 1e-8 * np.linalg.norm(wanted)
    assert np.linalg.norm(few - wanted) > 1e-3 * np.linalg.norm(wanted)


@given(seed=seeds, shape=shapes, count=several)
def test_a_double_sketch_needs_only_the_sum_of_what_sites_send(seed: int, shape: Shapes, count: int) -> None:
    """One update that holds the weighted mean of all, as secure aggregation would give it, leads to the same adapter."""
    here = world(compose("double_sketch", size=40), seed, shape, count)
    total = {
        name: sum(share * update.delta[name] for share, update in zip(here.shares(), here.updates, strict=True))
        for name in here.updates[0].delta
    }
    summed = dataclasses.replace(here.updates[0], delta=Adapter(total))
    np.testing.assert_allclose(here.step([summed])[0].product(MODULE), here.step()[0].product(MODULE), atol=1e-8)


@pytest.mark.parametrize("name", ["fedavg", "ffa", "alternating", "fedsvd", "double_sketch", "fedrot", "fedsb", "fedsa"])
@given(seed=seeds, shape=shapes, count=several)
def test_a_linear_rule_needs_only_the_weighted_sum(name: str, seed: int, shape: Shapes, count: int) -> None:
    here = world(compose(name), seed, shape, count)
    assert here.strategy.linear
    total = {
        name: sum(share * update.delta[name] for share, update in zip(here.shares(), here.updates, strict=True))
        for name in here.updates[0].delta
    }
    after, summed = here.step()[0], here.step([dataclasses.replace(here.updates[0], delta=Adapter(total))])[0]
    np.testing.assert_allclose(summed.product(MODULE), after.product(MODULE), atol=1e-8)


@pytest.mark.parametrize("name", ["fedex", "flexlora", "flora", "hetlora", "lora_fair"])
@given(seed=seeds, shape=shapes)
def test_a_rule_that_is_not_linear_cannot_do_with_the_sum(name: str, seed: int, shape: Shapes) -> None:
    here = world(compose(name), seed, shape, 3, scale=1.0)
    assert not here.strategy.linear
    total = {
        name: sum(share * update.delta[name] for share, update in zip(here.shares(), here.updates, strict=True))
        for name in here.updates[0].delta
    }
    after, summed = here.step()[0], here.step([dataclasses.replace(here.updates[0], delta=Adapter(total))])[0]
    assert np.abs(summed.product(MODULE) - after.product(MODULE)).max() > 1e-6


@pytest.mark.parametrize("name", ["flexlora", "fedex", "flora", "double_sketch", "fedrot"])
@given(seed=seeds, shape=shapes, count=several)
def test_a_rule_on_products_does_not_see_the_basis_of_a_sites_factors(name: str, seed: int, shape: Shapes, count: int) -> None:
    here = world(compose(name, **({"size": 40} if name == "double_sketch" else {})), seed, shape, count)
    after, other = here.step()[0], here.step(with_one_turned(here, seed))[0]
    np.testing.assert_allclose(other.product(MODULE), after.product(MODULE), atol=1e-7)


@given(seed=seeds, shape=shapes, count=several)
def test_fedit_sees_the_basis_of_a_sites_factors(seed: int, shape: Shapes, count: int) -> None:
    here = world(compose("fedavg"), seed, shape, count)
    assert np.abs(here.step(with_one_turned(here, seed))[0].product(MODULE) - here.step()[0].product(MODULE)).max() > 1e-6


@given(seed=seeds, shape=shapes)
def test_fedrot_recovers_an_adapter_that_all_sites_learned_in_another_basis(seed: int, shape: Shapes) -> None:
    """Two of three sites end at the sent adapter, rotated. Turned back, their mean is that adapter; the plain mean is far from it."""
    rng = np.random.default_rng(seed)
    here, plain = (world(compose(name, weights="equal"), seed, shape, 3, scale=0.0) for name in ("fedrot", "fedavg"))
    ended = [here.adapter, *(turned(here.adapter, rotation(rng, shape[2])) for _ in range(2))]
    after = here.step([here.sent_by(i, one) for i, one in enumerate(ended)])[0]
    np.testing.assert_allclose(after.product(MODULE), here.adapter.product(MODULE), atol=1e-8)
    naive = plain.step([plain.sent_by(i, one) for i, one in enumerate(ended)])[0].product(MODULE)
    assert np.linalg.norm(naive - here.adapter.product(MODULE)) > 0.05 * np.linalg.norm(here.adapter.product(MODULE))


@given(seed=seeds, shape=shapes)
def test_a_strong_pull_keeps_fedrot_from_turning(seed: int, shape: Shapes) -> None:
    rng = np.random.default_rng(seed)
    pairs = [Pair(a=rng.normal(size=(shape[2], shape[1])), b=rng.normal(size=(shape[0], shape[2]))) for _ in range(2)]
    np.testing.assert_allclose(FedRot(pull=1e9).rotation(*pairs), np.eye(shape[2]), atol=1e-6)


@given(seed=seeds, shape=shapes, count=several)
def test_the_ridge_of_lora_fair_goes_from_projection_to_fedit(seed: int, shape: Shapes, count: int) -> None:
    """l = 0: what is left is P (I - projection on the rows of mean A). l to infinity: the product of the mean factors."""
    none, huge, fedit = (
        world(compose(name, **options), seed, shape, count)
        for name, options in (("lora_fair", {"ridge": 0.0}), ("lora_fair", {"ridge": 1e12}), ("fedavg", {}))
    )
    exact, after = none.mean_product(), none.step()[0]
    a = after.pairs()[MODULE].a
    np.testing.assert_allclose(exact - after.product(MODULE), exact - exact @ np.linalg.pinv(a) @ a, atol=1e-8)
    np.testing.assert_allclose(huge.step()[0].product(MODULE), fedit.step()[0].product(MODULE), atol=1e-8)


@given(seed=seeds, shape=shapes, count=several)
def test_hetlora_weighs_by_the_norm_of_the_product(seed: int, shape: Shapes, count: int) -> None:
    here = world(compose("hetlora", weights="equal"), seed, shape, count)
    norms = np.array([np.linalg.norm(one.product(MODULE)) for one in here.trained])
    wanted = sum(norm / norms.sum() * one[f"{MODULE}.lora_B"] for norm, one in zip(norms, here.trained, strict=True))
    np.testing.assert_allclose(here.step()[0][f"{MODULE}.lora_B"], wanted, atol=1e-9)


@given(seed=seeds, shape=shapes)
def test_fedsb_moves_nothing_but_its_core(seed: int, shape: Shapes) -> None:
    assume(shape[2] <= min(shape[:2]))
    here = world(compose("fedsb"), seed, shape, 3)
    assert here.adapter.product(MODULE).any() == 0
    after, _ = here.step()
    assert {name for name in after if not np.array_equal(after[name], here.adapter[name])} == {f"{MODULE}.lora_R", "head.bias"}
    assert here.updates[0].delta[f"{MODULE}.lora_R"].shape == (shape[2], shape[2])


@given(seed=seeds, counts=st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_inner_products_of_products_are_those_of_the_dense_ones(seed: int, counts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    pairs = [Pair(a=rng.normal(size=(rank, 6)), b=rng.normal(size=(5, rank))) for rank in counts]
    dense = np.array([[np.sum(one.product() * other.product()) for other in pairs] for one in pairs])
    np.testing.assert_allclose(gram(pairs, pairs), dense, atol=1e-9)
