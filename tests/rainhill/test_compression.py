import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rainhill.adapter import Adapter
from rainhill.compression import lossy, pack, unpack
from rainhill.errors import ProtocolError

finite = hnp.arrays(
    np.float32, hnp.array_shapes(max_dims=2, max_side=6), elements=st.floats(-(2.0**60), 2.0**60, width=32, allow_subnormal=False)
)
encodings = st.sampled_from(["float32", "bf16", "int8", "top_k"])


@given(finite, encodings, st.floats(0.01, 1))
def test_what_arrives_has_the_names_shapes_and_dtype_of_what_was_sent(values: np.ndarray, encoding: str, share: float) -> None:
    adapter = Adapter({"m.lora_A" if values.ndim == 2 else "head.bias": values})
    arrived = lossy(adapter, encoding, share=share)
    assert {name: (array.shape, array.dtype) for name, array in arrived.items()} == {
        name: (array.shape, array.dtype) for name, array in adapter.items()
    }


@given(finite, encodings, st.floats(0.01, 1))
def test_applied_twice_it_is_the_same_as_once(values: np.ndarray, encoding: str, share: float) -> None:
    once = lossy(Adapter({"a": values}), encoding, share=share)["a"]
    np.testing.assert_allclose(lossy(Adapter({"a": once}), encoding, share=share)["a"], once, rtol=3e-7)


@given(finite)
def test_float32_loses_nothing_and_the_others_little(values: np.ndarray) -> None:
    adapter = Adapter({"a": values})
    np.testing.assert_array_equal(lossy(adapter, "float32")["a"], values)
    # bfloat16 has 8 bits of significand: half a unit in the last place is 2^-9 of the value.
    np.testing.assert_allclose(lossy(adapter, "bf16")["a"], values, rtol=2.0**-8, atol=0)
    # int8: half a step of 1/127 of the largest.
    np.testing.assert_allclose(lossy(adapter, "int8")["a"], values, rtol=0, atol=0.5001 * np.abs(values).max(initial=0) / 127 + 1e-30)


@given(finite, st.floats(0.01, 1))
def test_top_k_keeps_the_largest_entries_as_they_are(values: np.ndarray, share: float) -> None:
    arrived = lossy(Adapter({"a": values}), "top_k", share=share)["a"].ravel()
    count = max(1, int(np.ceil(share * values.size)))
    kept = np.flatnonzero(arrived)
    assert len(kept) <= count
    np.testing.assert_array_equal(arrived[kept], values.ravel()[kept])
    lost = np.delete(np.abs(values.ravel()), kept)
    assert lost.max(initial=0.0) <= np.abs(arrived[kept]).min(initial=np.inf) or np.count_nonzero(values) <= count


def test_bf16_rounds_to_the_nearest_and_ties_to_even() -> None:
    """1 + 2^-8 is half way between 1 and 1 + 2^-7: to the even one, 1. 1 + 3 * 2^-8 is half way too: up, to 1 + 2^-6."""
    values = np.array([1.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-8 + 2.0**-20, -3.0], np.float32)
    np.testing.assert_array_equal(lossy(Adapter({"a": values}), "bf16")["a"], [1, 1, 1 + 2.0**-6, 1 + 2.0**-7, -3])


def test_infinities_and_nan_stay_visible_in_bf16() -> None:
    values = np.array([np.inf, -np.inf, np.nan, np.finfo(np.float32).max], np.float32)
    arrived = lossy(Adapter({"a": values}), "bf16")["a"]
    assert arrived[0] == np.inf and arrived[1] == -np.inf and np.isnan(arrived[2])


def test_each_takes_fewer_bytes() -> None:
    adapter = Adapter({"m.lora_A": np.random.default_rng(0).normal(size=(8, 384)).astype(np.float32)})
    sizes = {encoding: sum(array.nbytes for array in pack(adapter, encoding).values()) for encoding in ("float32", "bf16", "int8", "top_k")}
    assert sizes["bf16"] * 2 == sizes["float32"]
    assert sizes["int8"] == sizes["float32"] // 4 + 4
    # A tenth of the entries, each with its place.
    assert sizes["top_k"] < sizes["float32"] // 4


PLACES = {"a#places": np.array([0, 3], np.uint32), "a#values": np.ones(2, np.float32), "a#shape": np.array([2, 2], np.uint32)}


@pytest.mark.parametrize(
    ("encoding", "packed", "message"),
    [
        ("bf16", {"a#bf16": np.zeros(2, np.float32)}, "a#bf16: dtype float32 is not uint16"),
        ("int8", {"a#int8": np.zeros(2, np.int8)}, "a#scale: missing"),
        ("int8", {"a#int8": np.zeros(2, np.int8), "a#scale": np.zeros(2, np.float32)}, r"a#scale: shape \(2,\) is not \(1,\)"),
        ("float32", {"a#zip": np.zeros(2, np.float32)}, "a#zip: is not of encoding float32"),
        ("top_k", {**PLACES, "a#places": np.array([0, 4], np.uint32)}, "places up to 4, or twice the same, among 4 entries"),
        ("top_k", {**PLACES, "a#places": np.array([3, 3], np.uint32)}, "twice the same"),
        ("top_k", {**PLACES, "a#values": np.ones(3, np.float32)}, r"\(3,\) values at \(2,\) places"),
        ("top_k", {**PLACES, "a#shape": np.array([2**31, 2**31], np.uint32)}, "are less than a share of 0.001"),
        # 8 bytes that stand for a gigabyte.
        ("top_k", {**PLACES, "a#shape": np.array([2**28], np.uint32)}, r"a: 2 of 2.684e\+08 entries are less than a share of 0.001"),
        ("int8", {"a#int8": np.zeros((0, 2**62), np.int8), "a#scale": np.ones(1, np.float32)}, "a#int8: shape .* is of more than"),
        ("bf16", {"a#bf16": np.zeros((0, 2**61), np.uint16)}, "a#bf16: shape .* is of more than"),
        # One name in two encodings: which is meant?
        ("float32", {"a": np.zeros(2, np.float32), "a#bf16": np.ones(2, np.uint16)}, "a#bf16: is not of encoding float32"),
        ("bf16", {"a": np.zeros(2, np.float32), "a#bf16": np.ones(2, np.uint16)}, "a: is not of encoding bf16"),
        ("top_k", {**PLACES, "b#shape": np.zeros(2, np.uint32)}, "b#places: missing, and b#shape is there"),
    ],
)
def test_what_pack_does_not_make_is_refused(encoding: str, packed: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        unpack(packed, encoding)


def test_no_share_is_packed_that_a_reader_would_not_take() -> None:
    values = Adapter({"a": np.arange(10_001, dtype=np.float32)})
    for share in (0.001, 0.0015, 1.0):
        assert lossy(values, "top_k", share=share)["a"].shape == (10_001,)
    with pytest.raises(ProtocolError, match="share 0.0009 is not one of 0.001 to 1"):
        pack(values, "top_k", share=0.0009)


def test_a_scale_beyond_all_numbers_gives_no_number_and_no_warning() -> None:
    assert np.isinf(unpack({"a#int8": np.full(1, 127, np.int8), "a#scale": np.full(1, 3e38, np.float32)}, "int8")["a"]).all()
