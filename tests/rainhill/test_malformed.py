"""What a broken or hostile peer may send: refused by every reader in Rainhill's own words, in bounded time and memory."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from perf import _mutants as spoil
from perf._mutants import Parts, Tensor
from perf._readers import ADAPTER, EXPECTED, PLAN_SENT, Reader, every_reader
from perf.malformed import run, table
from rainhill import wire
from rainhill.adapter import Adapter
from rainhill.errors import ProtocolError, RainhillError
from rainhill.messages import Refusal, Update
from rainhill.secagg import Terms

UPDATE = Update(run="spring", round=3, site="bury", delta=ADAPTER.only(lambda name: name in EXPECTED), patients=40, steps=7, loss=0.25)
ANSWER, PLAN = wire.answer_to_bytes(UPDATE), wire.plan_to_bytes(PLAN_SENT)


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reader, ...]:
    return every_reader(tmp_path_factory.mktemp("readers"))


def with_header(blob: bytes, **changes: object) -> bytes:
    parts = Parts.of(blob)
    return replace(parts, header=json.dumps({**json.loads(parts.header), **changes})).written()


def test_a_thousand_malformed_messages_are_all_refused() -> None:
    trials = run(1000, seed=1)
    bad = [trial for trial in trials if trial.outcome in ("accepted", "crashed")]
    assert not bad, "\n".join(f"{trial.outcome}: {trial.reader}, {trial.kind}: {trial.words}" for trial in bad)
    assert Counter(trial.outcome for trial in trials)["refused"] > 900
    assert len({trial.reader for trial in trials}) == 21 and "| all | " in table(trials)


def test_every_good_message_is_read(readers: tuple[Reader, ...]) -> None:
    """Or what is refused above would prove nothing."""
    for reader in readers:
        for message in reader.messages:
            reader.read(message)


@given(data=st.binary(max_size=300), at=st.integers(0, 400))
def test_arbitrary_bytes_are_refused_by_every_reader(readers: tuple[Reader, ...], data: bytes, at: int) -> None:
    for reader in readers:
        with pytest.raises(RainhillError):
            reader.read(data)
        # And behind the beginning of a good one.
        with pytest.raises(RainhillError):
            reader.read(reader.messages[0][:at] + data + b"\xff")


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(document=documents, field=st.sampled_from(sorted(json.loads(Parts.of(ANSWER).header))))
def test_whatever_json_stands_in_a_header_is_refused_or_well_formed(document: object, field: str) -> None:
    blob = with_header(ANSWER, **{field: document})
    try:
        read = wire.answer_from_bytes(blob)
    except ProtocolError:
        pass
    else:
        assert json.loads(Parts.of(wire.answer_to_bytes(read)).header)[field] == document


# What was found, one by one.


def test_a_plan_of_a_billion_choices_is_refused_at_once() -> None:
    for choices in (10**9, 1001):
        with pytest.raises(ProtocolError, match=f"choices = {choices}: Input should be less than or equal to 1000"):
            wire.plan_from_bytes(with_header(PLAN, choices=choices))
    with pytest.raises(ProtocolError, match="head.bias: missing"):
        wire.plan_from_bytes(with_header(PLAN, choices=3))


@pytest.mark.parametrize(
    ("field", "value"),
    [("round", -1), ("round", 10**30), ("kept_first", -1), ("kept_first", 10**30), ("mu", -1.0), ("round", True), ("mu", "1")],
)
def test_a_number_of_a_plan_that_means_nothing_is_refused(field: str, value: object) -> None:
    with pytest.raises(ProtocolError, match=f"message header, {field} = "):
        wire.plan_from_bytes(with_header(PLAN, **{field: value}))


@pytest.mark.parametrize(
    ("field", "value"), [("patients", True), ("patients", "40"), ("patients", 40.0), ("loss", "0.25"), ("loss", True), ("reason", "\ud800")]
)
def test_a_value_of_another_type_is_not_made_to_fit(field: str, value: object) -> None:
    blob = wire.answer_to_bytes(Refusal(run="spring", round=3, site="bury", reason="no")) if field == "reason" else ANSWER
    with pytest.raises(ProtocolError, match="message header, "):
        wire.answer_from_bytes(with_header(blob, **{field: value}))


def test_a_field_that_stands_there_twice_is_refused() -> None:
    parts = Parts.of(ANSWER)
    twice = replace(parts, header=parts.header.replace('"patients":40', '"patients":40,"patients":4000')).written()
    with pytest.raises(ProtocolError, match="a key stands there twice"):
        wire.answer_from_bytes(twice)


def test_a_tensor_that_a_message_has_no_place_for_is_refused() -> None:
    image = Tensor.of(np.ones(4, np.float32))
    for name in ("image", "choice-9/m.lora_B", "choice-10/m.lora_B"):
        with pytest.raises(ProtocolError, match=f"{name}: a plan of 2 choices has no such tensor"):
            wire.plan_from_bytes(Parts.of(PLAN).with_tensor(name, image if name == "image" else Tensor.of(ADAPTER["m.lora_B"])).written())
    refusal = wire.answer_to_bytes(Refusal(run="spring", round=3, site="bury", reason="no"))
    with pytest.raises(ProtocolError, match="image: a refusal holds no tensor"):
        wire.answer_from_bytes(Parts.of(refusal).with_tensor("image", image).written())


def test_a_factor_of_no_dimension_beside_its_other_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"m.lora_B: a LoRA factor has two dimensions, not 0"):
        Adapter({"m.lora_A": np.ones((2, 3), np.float32), "m.lora_B": np.float32(1)})


def test_an_adapter_in_a_dtype_that_numpy_does_not_have_is_refused() -> None:
    with pytest.raises(ProtocolError, match="not a safetensors adapter"):
        Adapter.from_bytes(save({"x": np.zeros(2, np.float32)}).replace(b'"F32","shape":[2]', b'"BF16","shape":[4]'))


def test_terms_of_numbers_without_end_are_refused() -> None:
    terms = Terms(**_terms())
    text = terms.to_bytes().decode()
    for old, new in (
        (f'"round":{terms.round}', '"round":1' + "0" * 4000),
        ('"s0":1', '"s0":' + "9" * 4300),
        ("[2,3]", f"[{'9' * 4000},{'9' * 4000}]"),
    ):
        assert old in text
        with pytest.raises(ProtocolError, match="not terms of secure aggregation"):
            Terms.from_bytes(text.replace(old, new).encode())


def _terms() -> dict[str, object]:
    from rainhill.secagg import Layout, agree

    made = agree(run="r", round=1, weights=dict.fromkeys(("s0", "s1", "s2"), 1), layout=Layout(shapes=dict(EXPECTED, x=(2, 3))), bound=1.0)
    return {name: getattr(made, name) for name in ("run", "round", "weights", "layout", "quantiser", "quorum", "degree", "threshold")}


def test_few_entries_do_not_stand_for_a_gigabyte() -> None:
    sparse = wire.answer_to_bytes(replace(UPDATE, encoding="top_k", share=0.5))
    assert any(name.endswith("#shape") for name in load(sparse))
    for seed in range(20):
        spoilt = spoil.sparse_huge(sparse, Random(seed))
        assert spoilt is not None
        with pytest.raises(ProtocolError):
            wire.answer_from_bytes(spoilt)


def test_a_declared_gigabyte_is_not_allocated() -> None:
    """In a process of its own that may have half a gigabyte more than it has: what Rust allocates counts too."""
    script = f"""
import json
import resource
from perf._mutants import Parts
from rainhill import wire
from rainhill.errors import ProtocolError
answer, plan = {ANSWER!r}, {PLAN!r}
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
for blob, read in ((answer, wire.answer_from_bytes), (plan, wire.plan_from_bytes)):
    parts = Parts.of(blob)
    name = sorted(parts.tensors)[-1]
    for length in (10**8, 2**30, 2**40, 2**63, 2**64 - 1):
        declared = parts.outer()
        declared[name]["shape"], declared[name]["data_offsets"][1] = [length // 4], length
        for spoilt in (length.to_bytes(8, "little") + blob[8:], parts.written(json.dumps(declared))):
            try:
                read(spoilt)
            except ProtocolError:
                continue
            raise SystemExit("was read")
print("refused", end="")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("refused", 0), done.stderr
