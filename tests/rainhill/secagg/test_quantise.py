"""Rounding, and that no sum can wrap around."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainhill.adapter import Adapter
from rainhill.errors import RefusedError
from rainhill.secagg import Layout, Quantiser
from rainhill.secagg.quantise import MOST_LEVELS, largest


def one(*values: float) -> Adapter:
    return Adapter({"v": np.array(values, np.float32)})


def flat(count: int) -> Layout:
    return Layout(shapes={"v": (count,)})


@given(
    count=st.integers(3, 60),
    bound=st.sampled_from([1e-3, 0.5, 1.0, 1e3]),
    levels=st.integers(1, 2**20),
    ring=st.sampled_from([32, 64]),
    seed=st.integers(0, 99),
)
def test_the_sum_of_n_is_off_by_n_half_steps_at_most_and_the_mean_by_half_a_step(
    count: int, bound: float, levels: int, ring, seed: int
) -> None:
    quantiser = Quantiser(bound=bound, levels=levels, total_weight=count, ring=ring)
    values = np.random.default_rng(seed).uniform(-bound, bound, (count, 17)).astype(np.float32)
    total = sum(
        quantiser.encode(Adapter({"v": row}), flat(17), weight=1)
        for row in np.clip(values, -np.float32(bound) * 0.999, np.float32(bound) * 0.999)
    )
    plain = np.sum(np.clip(values, -np.float32(bound) * 0.999, np.float32(bound) * 0.999), axis=0, dtype=np.float64)
    apart = np.abs(quantiser.decode(quantiser.whole(total)) - plain)
    assert quantiser.error_bound(count) == count * quantiser.step / 2
    assert apart.max() <= quantiser.error_bound(count) * (1 + 1e-6) + 1e-12 * bound
    assert (apart / count).max() <= quantiser.step / 2 * (1 + 1e-6) + 1e-12 * bound


@given(total_weight=st.integers(1, 10**6), ring=st.sampled_from([32, 64]))
def test_the_finest_never_wraps_around(total_weight: int, ring) -> None:
    quantiser = Quantiser.finest(bound=1.0, total_weight=total_weight, ring=ring)
    assert quantiser.levels * total_weight < 2 ** (ring - 1)
    whole = np.array([quantiser.levels * total_weight, -quantiser.levels * total_weight], np.int64)
    np.testing.assert_array_equal(quantiser.whole(whole.astype(quantiser.dtype)), whole)


@pytest.mark.parametrize(
    ("levels", "total_weight", "ring"),
    [(1, 2**31 - 1, 32), (2**31 - 1, 1, 32), (127, (2**63 - 1) // 127, 64)],
)
def test_the_bound_of_the_ring_is_reached_exactly_and_one_above_is_refused(levels: int, total_weight: int, ring) -> None:
    full = Quantiser(bound=0.5, levels=levels, total_weight=total_weight, ring=ring)
    assert levels * total_weight == largest(ring)
    for sign in (1, -1):
        sent = full.encode(one(sign * 0.5), flat(1), weight=total_weight)
        assert full.whole(sent)[0] == sign * largest(ring)
    for more in ({"levels": levels + 1, "total_weight": total_weight}, {"levels": levels, "total_weight": total_weight + 1}):
        with pytest.raises(
            RefusedError, match=rf"times total weight .* is not one of 1 to {largest(ring)}, so that a sum could wrap around"
        ):
            Quantiser(bound=0.5, ring=ring, **more)


def test_the_bound_of_the_range_is_taken_exactly_and_the_next_float_above_is_refused() -> None:
    quantiser = Quantiser.finest(bound=0.5, total_weight=3)
    assert quantiser.whole(quantiser.encode(one(0.5, -0.5, 0.0), flat(3), weight=1)).tolist() == [quantiser.levels, -quantiser.levels, 0]
    above = np.nextafter(np.float32(0.5), np.float32(1))
    with pytest.raises(RefusedError, match="v: holds 0.50000006, the range that secure aggregation was set up for is ±0.5"):
        quantiser.encode(one(0.0, -above), flat(2), weight=1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bound": 0.0}, "bound 0.0 is not a positive number"),
        ({"bound": float("nan")}, "bound nan is not a positive number"),
        ({"levels": 0}, f"levels 0 is not one of 1 to {MOST_LEVELS}"),
        ({"levels": MOST_LEVELS + 1}, f"levels {MOST_LEVELS + 1} is not one of 1 to {MOST_LEVELS}"),
        ({"total_weight": 0}, "levels 10 times total weight 0"),
    ],
)
def test_what_is_no_range_is_refused(change, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        Quantiser(**{"bound": 1.0, "levels": 10, "total_weight": 3, **change})


def test_a_hand_computed_case() -> None:
    # step 0.25: 0.6 -> 2 steps, -0.9 -> -4 of -3.6, times the weight 3; modulo 2^32.
    quantiser = Quantiser(bound=1.0, levels=4, total_weight=5)
    assert quantiser.encode(one(0.6, -0.9), flat(2), weight=3).tolist() == [6, 2**32 - 12]
    assert quantiser.decode(np.array([6, -12])).tolist() == [1.5, -3.0]


def test_a_layout_puts_tensors_in_the_order_of_their_names() -> None:
    adapter = Adapter({"b": np.array([[1, 2], [3, 4]], np.float32), "a": np.array(0, np.float32)})
    layout = Layout(shapes={"b": (2, 2), "a": ()})
    assert layout.size == 5
    assert layout.flatten(adapter).tolist() == [0, 1, 2, 3, 4]
    assert layout.unflatten(layout.flatten(adapter)) == adapter
