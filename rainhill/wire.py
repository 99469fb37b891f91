"""The wire form of messages: one safetensors blob each, scalars as JSON in its header. Never pickle.

What arrives is checked here and nowhere else: kind, version, names, shapes, dtype, finiteness, and that the answer fits what was asked.
"""

import json
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ValidationError
from safetensors.numpy import save

from rainhill.adapter import Adapter, check_shapes
from rainhill.config import Section
from rainhill.errors import ProtocolError
from rainhill.messages import Evaluation, Factor, LocalRule, Plan, Refusal, Update

if TYPE_CHECKING:
    from flwr.app import RecordDict

VERSION = 1
_HEADER = "rainhill"
_RECORD = "rainhill"
_CORRECTION = "correction/"
_ADAPTER = "adapter/"


class _PlanHeader(Section):
    kind: Literal["plan"] = "plan"
    version: int = VERSION
    run: str
    recipe: str
    round: int
    site: str
    train: tuple[Factor, ...]
    send: tuple[Factor, ...]
    mu: float


class _EvaluationHeader(Section):
    patients: int
    metrics: dict[str, float]


class _UpdateHeader(Section):
    kind: Literal["update"] = "update"
    version: int = VERSION
    run: str
    round: int
    site: str
    patients: int
    steps: int
    loss: float
    epsilon: float | None
    evaluation: _EvaluationHeader | None


class _RefusalHeader(Section):
    kind: Literal["refusal"] = "refusal"
    version: int = VERSION
    run: str
    round: int
    site: str
    reason: str


def plan_to_bytes(plan: Plan) -> bytes:
    rule = plan.rule
    header = _PlanHeader(
        run=plan.run,
        recipe=plan.recipe,
        round=plan.round,
        site=plan.site,
        train=tuple(sorted(rule.train)),
        send=tuple(sorted(rule.send)),
        mu=rule.mu,
    )
    arrays = {_ADAPTER + name: array for name, array in plan.adapter.items()}
    if rule.correction is not None:
        arrays |= {_CORRECTION + name: array for name, array in rule.correction.items()}
    return _to_bytes(header, arrays)


def plan_from_bytes(blob: bytes) -> Plan:
    header, arrays = _from_bytes(blob, _PlanHeader)
    adapter = _named(arrays, _ADAPTER)
    correction = _named(arrays, _CORRECTION)
    _check_tensors(adapter, {name: array.shape for name, array in adapter.items()})
    rule = LocalRule(train=frozenset(header.train), send=frozenset(header.send), mu=header.mu, correction=correction or None)
    return Plan(run=header.run, recipe=header.recipe, round=header.round, site=header.site, adapter=adapter, rule=rule)


def answer_to_bytes(answer: Update | Refusal) -> bytes:
    if isinstance(answer, Refusal):
        return _to_bytes(_RefusalHeader(run=answer.run, round=answer.round, site=answer.site, reason=answer.reason), {})
    evaluation = answer.evaluation
    header = _UpdateHeader(
        run=answer.run,
        round=answer.round,
        site=answer.site,
        patients=answer.patients,
        steps=answer.steps,
        loss=_finite(answer.loss, f"{answer.site}: loss"),
        epsilon=answer.epsilon,
        evaluation=evaluation and _EvaluationHeader(patients=evaluation.patients, metrics=dict(evaluation.metrics)),
    )
    return _to_bytes(header, dict(answer.delta))


def answer_from_bytes(blob: bytes) -> Update | Refusal:
    """The message as sent; `check_answer` then holds it against the Plan that it answers."""
    if _kind(blob) == "refusal":
        refusal, _ = _from_bytes(blob, _RefusalHeader)
        return Refusal(run=refusal.run, round=refusal.round, site=refusal.site, reason=refusal.reason)
    header, arrays = _from_bytes(blob, _UpdateHeader)
    evaluation = header.evaluation
    return Update(
        run=header.run,
        round=header.round,
        site=header.site,
        delta=Adapter(arrays),
        patients=header.patients,
        steps=header.steps,
        loss=header.loss,
        epsilon=header.epsilon,
        evaluation=evaluation and Evaluation(patients=evaluation.patients, metrics=evaluation.metrics),
    )


def check_answer(answer: Update | Refusal, plan: Plan) -> None:
    """Raises ProtocolError unless the answer is one to this plan, with exactly the tensors it asked for."""
    for what, got, expected in (("run", answer.run, plan.run), ("round", answer.round, plan.round), ("site", answer.site, plan.site)):
        if got != expected:
            raise ProtocolError(f"{plan.site}: answer is for {what} {got!r}, asked was {expected!r}")
    if isinstance(answer, Update):
        expected_shapes = {name: array.shape for name, array in plan.adapter.items() if plan.rule.sends(name)}
        _check_tensors(answer.delta, expected_shapes)
        if answer.patients < 1:
            raise ProtocolError(f"{plan.site}: patients {answer.patients} is not at least 1")


def to_record(blob: bytes) -> "RecordDict":
    """One packed array: Flower makes an HTTP request for every array of a message."""
    from flwr.app import Array, ArrayRecord, RecordDict

    return RecordDict({_RECORD: ArrayRecord({_RECORD: Array(np.frombuffer(blob, dtype=np.uint8))})})


def from_record(record: "RecordDict") -> bytes:
    try:
        return bytes(record.array_records[_RECORD][_RECORD].numpy().tobytes())
    except KeyError as error:
        raise ProtocolError(f"a message without the record {_RECORD!r}: {', '.join(record) or 'empty'}") from error


def _to_bytes(header: Section, arrays: dict[str, Any]) -> bytes:
    tensors = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    return bytes(save(tensors, metadata={_HEADER: header.model_dump_json()}))


def _raw_header(blob: bytes) -> dict[str, Any]:
    # safetensors: 8 bytes of little-endian length, then a JSON object whose "__metadata__" is ours.
    try:
        length = int.from_bytes(blob[:8], "little")
        metadata = json.loads(blob[8 : 8 + length])["__metadata__"]
        header = json.loads(metadata[_HEADER])
    except (ValueError, KeyError, TypeError) as error:
        raise ProtocolError(f"not a Rainhill message ({len(blob)} bytes): {error}") from error
    if not isinstance(header, dict):
        raise ProtocolError(f"not a Rainhill message ({len(blob)} bytes): its header is no object")
    if header.get("version") != VERSION:
        raise ProtocolError(f"message version {header.get('version')!r} is not {VERSION}")
    return header


def _kind(blob: bytes) -> object:
    return _raw_header(blob).get("kind")


def _from_bytes(blob: bytes, model: type[Any]) -> tuple[Any, Adapter]:
    raw = _raw_header(blob)
    try:
        header = model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ProtocolError(f"message header, {key} = {first['input']!r}: {first['msg']}") from error
    return header, Adapter.from_bytes(blob)


def _named(arrays: Adapter, prefix: str) -> Adapter:
    return Adapter({name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)})


def _check_tensors(adapter: Adapter, expected: dict[str, tuple[int, ...]]) -> None:
    check_shapes(adapter, expected)
    for name, array in adapter.items():
        if array.dtype != np.float32:
            raise ProtocolError(f"{name}: dtype {array.dtype} is not float32")
        if not np.isfinite(array).all():
            bad = int(np.size(array) - np.count_nonzero(np.isfinite(array)))
            raise ProtocolError(f"{name}: {bad} of {array.size} values are not finite")


def _finite(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise ProtocolError(f"{what} {value} is not finite")
    return value
