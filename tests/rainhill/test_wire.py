"""The validation boundary: what a broken or hostile peer may send, and the sentence that refuses it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from rainhill import wire
from rainhill.adapter import Adapter
from rainhill.compression import lossy
from rainhill.errors import ProtocolError
from rainhill.messages import Evaluation, LocalRule, Plan, Receipt, Refusal, Update, Waiting
from rainhill.told import Gains, Interval, Levels, Told

ADAPTER = Adapter({"m.lora_A": np.ones((2, 3), np.float32), "m.lora_B": np.zeros((4, 2), np.float32), "head.bias": np.zeros(2, np.float32)})
PLAN = Plan(run="r", recipe="f" * 64, round=3, site="aintree", adapter=ADAPTER, rule=LocalRule(train=frozenset("B"), send=frozenset("B")))
EXPECTED = {name: array.shape for name, array in ADAPTER.items() if PLAN.rule.sends(name)}
UPDATE = Update(
    run="r",
    round=3,
    site="aintree",
    delta=Adapter({"m.lora_B": np.ones((4, 2), np.float32), "head.bias": np.ones(2, np.float32)}),
    patients=40,
    steps=7,
    loss=0.25,
    evaluation=Evaluation(patients=9, metrics={"auroc": 0.75}),
)


def test_a_plan_crosses_unchanged() -> None:
    for rule in (PLAN.rule, LocalRule(mu=0.5, correction=ADAPTER * 0.5)):
        plan = replace(PLAN, rule=rule)
        assert wire.plan_from_bytes(wire.plan_to_bytes(plan)) == plan


@given(st.floats(allow_nan=False, allow_infinity=False), st.none() | st.floats(0, 10), st.integers(1, 10**6))
def test_an_update_crosses_unchanged(loss: float, epsilon: float | None, patients: int) -> None:
    update = replace(UPDATE, loss=loss, epsilon=epsilon, patients=patients)
    assert wire.answer_from_bytes(wire.answer_to_bytes(update)) == update


@pytest.mark.parametrize("encoding", ["bf16", "int8", "top_k"])
def test_a_packed_update_crosses_as_what_it_holds(encoding: str) -> None:
    rng = np.random.default_rng(0)
    delta = lossy(
        Adapter({name: rng.normal(size=array.shape).astype(np.float32) for name, array in UPDATE.delta.items()}), encoding, share=0.5
    )
    update = replace(UPDATE, delta=delta, encoding=encoding, share=0.5)
    arrived = wire.answer_from_bytes(wire.answer_to_bytes(update))
    assert arrived.delta.max_abs_difference(delta) < 1e-6
    wire.check_answer(arrived, PLAN, EXPECTED)
    assert replace(arrived, delta=delta) == update


def test_a_site_over_the_network_may_ask_for_time_and_one_of_a_simulation_may_not() -> None:
    waiting = Waiting(run="r", round=3, site="bury", reason="waits for approval", retry_s=30.0)
    blob = wire.answer_to_bytes(waiting)
    assert wire.live_answer_from_bytes(blob) == waiting
    with pytest.raises(ProtocolError, match="kind = 'waiting'"):
        wire.answer_from_bytes(blob)
    refusal = Refusal(run="r", round=3, site="bury", reason="no")
    assert wire.live_answer_from_bytes(wire.answer_to_bytes(refusal)) == refusal
    with pytest.raises(ValueError, match="retry_s"):
        wire.answer_to_bytes(replace(waiting, retry_s=-1.0))


GAIN = Interval(value=0.05, low=-0.01, high=0.1)
TOLD = Told(confidence=0.95, measure="label_f1", levels=Levels(base=None, shared=GAIN, private=GAIN), gain=Gains(shared=GAIN, private=None))
RECEIPT = Receipt(run="r", round=3, site="aintree", adapter="f" * 64, told=TOLD)


@pytest.mark.parametrize("told", [None, TOLD, TOLD.model_copy(update={"measure": "auroc"})])
def test_what_a_run_came_to_crosses_with_its_measure(told: Told | None) -> None:
    receipt = replace(RECEIPT, told=told)
    assert wire.live_answer_from_bytes(wire.answer_to_bytes(receipt)) == receipt


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measure": "dice"}, "told.measure = 'dice': Input should be 'auroc' or 'label_f1'"),
        ({"measure": None}, "told.measure = None: Input should be 'auroc' or 'label_f1'"),
        ({"levels": {"base": None}}, "told.levels.shared = .*: Field required"),
        ({"auroc": {"base": None, "shared": None, "private": None}}, "told.auroc = .*: Extra inputs are not permitted"),
    ],
)
def test_an_outcome_of_another_form_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    told = TOLD.model_dump(mode="json") | changes
    header = {"kind": "receipt", "version": 3, "run": "r", "round": 3, "site": "aintree", "adapter": "f" * 64, "told": told}
    with pytest.raises(ProtocolError, match=f"message header, {message}"):
        wire.live_answer_from_bytes(save({}, metadata={"rainhill": json.dumps(header)}))


def test_a_refusal_crosses_unchanged() -> None:
    refusal = Refusal(run="r", round=3, site="aintree", reason="no patient to train on")
    assert wire.answer_from_bytes(wire.answer_to_bytes(refusal)) == refusal


def test_a_flower_record_holds_one_packed_array() -> None:
    blob = wire.answer_to_bytes(UPDATE)
    record = wire.to_record(blob)
    assert wire.from_record(record) == blob
    assert [len(arrays) for arrays in record.array_records.values()] == [1]
    del record["rainhill"]
    with pytest.raises(ProtocolError, match="without the record 'rainhill'"):
        wire.from_record(record)


def test_an_answer_to_the_plan_is_accepted() -> None:
    wire.check_answer(UPDATE, PLAN, EXPECTED)


@pytest.mark.parametrize(
    ("delta", "message"),
    [
        ({"m.lora_B": np.full((4, 2), np.nan, np.float32)}, "m.lora_B: 8 of 8 values are not finite"),
        ({"m.lora_B": np.full((4, 2), np.inf, np.float32)}, "m.lora_B: 8 of 8 values are not finite"),
        ({"m.lora_B": np.ones((4, 3), np.float32)}, r"m.lora_B: shape \(4, 3\) is not \(4, 2\)"),
        ({"m.lora_B": np.ones((4, 2), np.float64)}, "m.lora_B: dtype float64 is not float32"),
        ({"m.lora_B": np.ones((4, 2), np.float16)}, "m.lora_B: dtype float16 is not float32"),
        ({"m.lora_A": np.ones((2, 3), np.float32)}, "m.lora_A: not a declared tensor"),
        ({"m.lora_B": np.full((4, 2), -3e7, np.float32)}, r"m.lora_B: holds 3e\+07, values above 1e\+06 are not taken"),
    ],
)
def test_an_update_with_other_tensors_is_refused_by_name(delta: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        wire.check_answer(replace(UPDATE, delta=UPDATE.delta.replace(delta)), PLAN, EXPECTED)


def test_an_update_with_a_missing_tensor_is_refused_by_name() -> None:
    with pytest.raises(ProtocolError, match=r"m.lora_B: missing, expected shape \(4, 2\)"):
        wire.check_answer(replace(UPDATE, delta=UPDATE.delta.only(lambda name: name == "head.bias")), PLAN, EXPECTED)


@pytest.mark.parametrize(("field", "value"), [("site", "broadgreen"), ("round", 2), ("run", "other")])
def test_an_answer_to_something_else_is_refused_with_both_values(field: str, value: object) -> None:
    with pytest.raises(ProtocolError, match=f"{field} {value!r}, asked was {getattr(PLAN, field)!r}"):
        wire.check_answer(replace(UPDATE, **{field: value}), PLAN, EXPECTED)


def test_an_update_of_no_patients_is_refused() -> None:
    with pytest.raises(ProtocolError, match="patients 0 is not at least 1"):
        wire.check_answer(replace(UPDATE, patients=0), PLAN, EXPECTED)


def test_a_loss_that_is_no_number_does_not_leave() -> None:
    with pytest.raises(ProtocolError, match="aintree: loss nan is not finite"):
        wire.answer_to_bytes(replace(UPDATE, loss=float("nan")))


def forged(**header: object) -> bytes:
    whole = {
        "kind": "update",
        "version": wire.VERSION,
        "run": "r",
        "round": 1,
        "site": "s",
        "patients": 1,
        "steps": 1,
        "loss": 0.0,
        "epsilon": None,
        "choice": 0,
        "encoding": "float32",
        "share": 1.0,
        "evaluation": None,
    }
    return save({"x": np.zeros(1, np.float32)}, metadata={"rainhill": json.dumps({**whole, **header})})


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "not a Rainhill message"),
        (b"\xff" * 64, "not a Rainhill message"),
        (save({"x": np.zeros(1, np.float32)}), "not a Rainhill message"),
        (save({"x": np.zeros(1, np.float32)}, metadata={"rainhill": "[]"}), "its header is no object"),
        (forged(version=1), "message version 1 is not 2 or 3: update Rainhill where it was written: pip install -U rainhill"),
        (forged(patients="many"), "patients = 'many'"),
        (forged(loss=float("inf")), "loss = inf"),
        (forged(image="pixels"), "image = 'pixels'"),
        (forged(kind="plan"), "kind = 'plan'"),
        (forged()[:-2], "not a safetensors message"),
        (forged(patients=10**400), "patients = "),
        (forged(patients=-1), "patients = -1"),
        (forged(share=1e308), "share = 1e\\+308"),
        (forged(share=0.0), "share = 0.0"),
        (forged().replace(b'"dtype":"F32"', b'"dtype":"BF8"'), "not a safetensors message"),
        (forged().replace(b'"dtype":"F32","shape":[1]', b'"dtype":"BF16","shape":[2]'), "not a safetensors message"),
        ((10**6).to_bytes(8, "little") + b"[" * 10**6, "not a Rainhill message"),
    ],
)
def test_a_broken_message_is_refused_in_one_line(blob: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message) as refused:
        wire.answer_from_bytes(blob)
    assert "\n" not in str(refused.value)


@given(st.binary(max_size=200))
def test_no_bytes_whatever_raise_anything_else(blob: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.answer_from_bytes(blob)


def test_a_plan_with_a_correction_of_another_shape_is_refused_at_the_site() -> None:
    for array, message in ((np.ones(3, np.float32), r"head.bias: shape \(3,\) is not"), (np.full(2, np.inf, np.float32), "not finite")):
        bad = replace(PLAN, rule=replace(PLAN.rule, correction=Adapter({"head.bias": array})))
        with pytest.raises(ProtocolError, match=message):
            wire.plan_from_bytes(wire.plan_to_bytes(bad))


def test_a_plan_with_a_poisoned_adapter_is_refused_at_the_site() -> None:
    bad = replace(PLAN, adapter=ADAPTER.replace({"head.bias": np.array([np.nan, 0], np.float32)}))
    with pytest.raises(ProtocolError, match="head.bias: 1 of 2 values are not finite"):
        wire.plan_from_bytes(wire.plan_to_bytes(bad))
