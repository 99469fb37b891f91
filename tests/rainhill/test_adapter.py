import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rainhill.adapter import Adapter, factor
from rainhill.errors import ProtocolError

arrays = st.dictionaries(
    st.sampled_from(["a", "head.weight", "z.bias"]),
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=2, max_side=4), elements=st.floats(-1e3, 1e3, width=32)),
)


def pair(rank: int = 2) -> dict[str, np.ndarray]:
    return {"m.lora_A": np.ones((rank, 3), np.float32), "m.lora_B": np.ones((4, rank), np.float32)}


@given(arrays)
def test_bytes_and_back_is_the_same_adapter(values: dict[str, np.ndarray]) -> None:
    adapter = Adapter(values)
    again = Adapter.from_bytes(adapter.to_bytes())
    assert again == adapter
    assert again.fingerprint() == adapter.fingerprint()


@given(arrays)
def test_what_is_added_can_be_taken_away(values: dict[str, np.ndarray]) -> None:
    adapter = Adapter(values)
    assert (adapter + adapter).max_abs_difference(adapter * 2.0) == 0.0
    assert (adapter - adapter).norm() == 0.0


def test_the_order_of_names_does_not_change_the_fingerprint() -> None:
    one = {"a": np.zeros(2, np.float32), "b": np.ones(3, np.float32)}
    assert Adapter(one).fingerprint() == Adapter(dict(reversed(one.items()))).fingerprint()
    assert Adapter(one).fingerprint() != Adapter({**one, "b": np.zeros(3, np.float32)}).fingerprint()


def test_an_adapter_shares_no_memory_and_cannot_be_written() -> None:
    source = np.zeros(2, np.float32)
    adapter = Adapter({"a": source})
    source[0] = 1
    assert adapter["a"][0] == 0
    with pytest.raises(ValueError, match="read-only"):
        adapter["a"][0] = 1


def test_pairs_are_found_and_multiply() -> None:
    adapter = Adapter(pair() | {"head.bias": np.zeros(1, np.float32)})
    assert list(adapter.pairs()) == ["m"]
    np.testing.assert_array_equal(adapter.pairs()["m"].product(), np.full((4, 3), 2))
    assert adapter.pairs()["m"].rank == 2
    assert [factor(name) for name in adapter] == ["", "A", "B"]


def test_ranks_that_do_not_meet_are_refused() -> None:
    with pytest.raises(ProtocolError, match="m: rank 3 of lora_A is not rank 2 of lora_B"):
        Adapter({"m.lora_A": np.ones((3, 3), np.float32), "m.lora_B": np.ones((4, 2), np.float32)})
    with pytest.raises(ProtocolError, match="two dimensions, not 1"):
        Adapter({"m.lora_A": np.ones(3, np.float32)})


def test_arithmetic_refuses_another_set_of_names_or_shapes() -> None:
    adapter = Adapter(pair())
    with pytest.raises(ProtocolError, match=r"m.lora_A: shape \(3, 3\) is not \(2, 3\)"):
        adapter + Adapter(pair(rank=3))
    with pytest.raises(ProtocolError, match="m.lora_B: missing"):
        adapter - adapter.only(lambda name: name.endswith("A"))
    with pytest.raises(ProtocolError, match="extra: not a declared tensor"):
        adapter + adapter.replace({"extra": np.zeros(1, np.float32)})


def test_integers_and_rubbish_are_no_adapter() -> None:
    with pytest.raises(ProtocolError, match="dtype int64"):
        Adapter({"a": np.zeros(2, np.int64)})
    with pytest.raises(ProtocolError, match="not a safetensors adapter"):
        Adapter.from_bytes(b"nothing of the kind")


def test_a_repr_says_how_large_it_is_and_which() -> None:
    assert repr(Adapter(pair())).startswith("Adapter(2 arrays, 56 bytes, ")
    assert len({Adapter(pair()), Adapter(pair())}) == 1
