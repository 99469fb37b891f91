"""The wire form of messages: one safetensors blob each, scalars as JSON in its header. Never pickle.

What arrives is checked here and nowhere else: kind, version, names, shapes, dtype, finiteness, and that the answer fits what was asked.
"""

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError
from pydantic_core import to_json
from safetensors import SafetensorError
from safetensors.numpy import load, save

from rainhill.adapter import Adapter, Array, check_shapes
from rainhill.compression import SMALLEST_SHARE, Encoding, pack, unpack
from rainhill.errors import ProtocolError
from rainhill.messages import Evaluation, Factor, LocalRule, Plan, Receipt, Refusal, SecureMessage, Update, Waiting
from rainhill.text import shown
from rainhill.told import Told
from rainhill.toml import Section
from rainhill.versions import VERSION as VERSION
from rainhill.versions import VERSIONS as VERSIONS
from rainhill.versions import agreed as agreed
from rainhill.versions import check_version, downgraded, upgraded

if TYPE_CHECKING:
    from flwr.app import RecordDict

LARGEST = 1e6
"""Of any value of a tensor: far above what training reaches, and far below where sums of squares of many sites overflow."""
_LARGEST_HEADER = 2**24
"""Bytes: of far more tensors than any adapter has. JSON takes many times its size when it is read."""
_HEADER = "rainhill"
_RECORD = "rainhill"
_CORRECTION = "correction/"
_ADAPTER = "adapter/"
_VARIATE = "variate/"
_BODY = "body"


Count = Annotated[int, Field(ge=0, le=10**9)]


class _PlanHeader(Section):
    kind: Literal["plan"] = "plan"
    version: int = VERSION
    run: str
    recipe: str
    round: Count
    site: str
    train: tuple[Factor, ...]
    send: tuple[Factor, ...]
    mu: Annotated[float, Field(ge=0)]
    keep: tuple[str, ...]
    alternate: bool
    variate: bool
    kept_first: Count
    choices: Annotated[int, Field(ge=0, le=1000)]


class _EvaluationHeader(Section):
    patients: Count | None
    metrics: dict[str, float]


class _UpdateHeader(Section):
    kind: Literal["update"] = "update"
    version: int = VERSION
    run: str
    round: Count
    site: str
    patients: Count | None
    steps: Count
    loss: float | None
    epsilon: Annotated[float, Field(ge=0)] | None
    encoding: Encoding
    share: Annotated[float, Field(ge=SMALLEST_SHARE, le=1)]
    choice: Count
    evaluation: _EvaluationHeader | None


class _RefusalHeader(Section):
    kind: Literal["refusal"] = "refusal"
    version: int = VERSION
    run: str
    round: Count
    site: str
    reason: str


class _WaitingHeader(Section):
    kind: Literal["waiting"] = "waiting"
    version: int = VERSION
    run: str
    round: Count
    site: str
    reason: str
    retry_s: Annotated[float, Field(ge=0, le=86_400)]


class _ReceiptHeader(Section):
    kind: Literal["receipt"] = "receipt"
    version: int = VERSION
    run: str
    round: Count
    site: str
    adapter: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    told: Told | None = None


class _SecureHeader(Section):
    kind: Literal["secure"] = "secure"
    version: int = VERSION
    run: str
    round: Count
    site: str
    phase: Annotated[int, Field(ge=0, le=4)]


def version_of(blob: bytes) -> int:
    """Of any message. An answer is written in the version that its plan came in."""
    return check_version(_raw_header(blob).get("version"))


def check_plan(plan: Plan, *, version: int) -> None:
    """As `plan_to_bytes`, without the bytes: ProtocolError that names the field where that version cannot say it."""
    downgraded(_plan_header(plan).model_dump(mode="json"), version)


def plan_to_bytes(plan: Plan, *, version: int = VERSION) -> bytes:
    """ProtocolError that names the field where an older version cannot say it; the same holds of the other writers."""
    rule = plan.rule
    arrays = {_ADAPTER + name: array for name, array in plan.adapter.items()}
    for number, choice in enumerate(plan.choices, start=1):
        arrays |= {_choice(number) + name: array for name, array in choice.items()}
    if rule.correction is not None:
        arrays |= {_CORRECTION + name: array for name, array in rule.correction.items()}
    return _to_bytes(_plan_header(plan), arrays, version)


def _plan_header(plan: Plan) -> _PlanHeader:
    rule = plan.rule
    return _PlanHeader(
        run=plan.run,
        recipe=plan.recipe,
        round=plan.round,
        site=plan.site,
        train=tuple(sorted(rule.train)),
        send=tuple(sorted(rule.send)),
        mu=rule.mu,
        keep=rule.keep,
        alternate=rule.alternate,
        variate=rule.variate,
        kept_first=rule.kept_first,
        choices=len(plan.choices),
    )


def plan_from_bytes(blob: bytes) -> Plan:
    header, packed = _from_bytes(blob, _PlanHeader)
    arrays = Adapter(packed)
    adapter = _named(arrays, _ADAPTER)
    correction = _named(arrays, _CORRECTION)
    _check_tensors(adapter, {name: array.shape for name, array in adapter.items()})
    _check_tensors(correction, {name: adapter[name].shape for name in correction if name in adapter})
    rule = LocalRule(
        train=frozenset(header.train),
        send=frozenset(header.send),
        mu=header.mu,
        keep=header.keep,
        alternate=header.alternate,
        variate=header.variate,
        kept_first=header.kept_first,
        correction=correction or None,
    )
    choices = tuple(_named(arrays, _choice(number)) for number in range(1, header.choices + 1))
    for choice in choices:
        _check_tensors(choice, {name: array.shape for name, array in adapter.items()})
    if len(adapter) + len(correction) + sum(map(len, choices)) < len(arrays):
        known = (_ADAPTER, _CORRECTION, *(_choice(number) for number in range(1, header.choices + 1)))
        unknown = next(name for name in arrays if not name.startswith(known))
        raise ProtocolError(f"{shown(unknown)}: a plan of {header.choices} choices has no such tensor")
    return Plan(run=header.run, recipe=header.recipe, round=header.round, site=header.site, adapter=adapter, rule=rule, choices=choices)


def answer_to_bytes(answer: Update | Refusal | Waiting | Receipt, *, version: int = VERSION) -> bytes:
    if isinstance(answer, Receipt):
        receipt = _ReceiptHeader(run=answer.run, round=answer.round, site=answer.site, adapter=answer.adapter, told=answer.told)
        return _to_bytes(receipt, {}, version)
    if isinstance(answer, Waiting):
        waiting = _WaitingHeader(run=answer.run, round=answer.round, site=answer.site, reason=answer.reason, retry_s=answer.retry_s)
        return _to_bytes(waiting, {}, version)
    if isinstance(answer, Refusal):
        return _to_bytes(_RefusalHeader(run=answer.run, round=answer.round, site=answer.site, reason=answer.reason), {}, version)
    evaluation = answer.evaluation
    header = _UpdateHeader(
        run=answer.run,
        round=answer.round,
        site=answer.site,
        patients=answer.patients,
        steps=answer.steps,
        loss=None if answer.loss is None else _finite(answer.loss, f"{answer.site}: loss"),
        epsilon=answer.epsilon,
        encoding=answer.encoding,
        share=answer.share,
        choice=answer.choice,
        evaluation=evaluation and _EvaluationHeader(patients=evaluation.patients, metrics=dict(evaluation.metrics)),
    )
    variate = {_VARIATE + name: array for name, array in (answer.variate or {}).items()}
    return _to_bytes(header, pack(answer.delta, answer.encoding, share=answer.share) | variate, version)


def answer_from_bytes(blob: bytes) -> Update | Refusal:
    """The message as sent; `check_answer` then holds it against the Plan that it answers."""
    if _kind(blob) == "refusal":
        refusal = _bare(blob, _RefusalHeader)
        return Refusal(run=refusal.run, round=refusal.round, site=refusal.site, reason=refusal.reason)
    header, packed = _from_bytes(blob, _UpdateHeader)
    delta = {name: array for name, array in packed.items() if not name.startswith(_VARIATE)}
    variate = {name.removeprefix(_VARIATE): array for name, array in packed.items() if name not in delta}
    evaluation = header.evaluation
    return Update(
        run=header.run,
        round=header.round,
        site=header.site,
        delta=unpack(delta, header.encoding),
        variate=Adapter(variate) if variate else None,
        patients=header.patients,
        steps=header.steps,
        loss=header.loss,
        epsilon=header.epsilon,
        encoding=header.encoding,
        share=header.share,
        choice=header.choice,
        evaluation=evaluation and Evaluation(patients=evaluation.patients, metrics=evaluation.metrics),
    )


def live_answer_from_bytes(blob: bytes) -> Update | Refusal | Waiting | Receipt:
    """As `answer_from_bytes`, of a site over the network, which may ask for time, or have what it was brought."""
    if _kind(blob) == "receipt":
        receipt = _bare(blob, _ReceiptHeader)
        return Receipt(run=receipt.run, round=receipt.round, site=receipt.site, adapter=receipt.adapter, told=receipt.told)
    if _kind(blob) != "waiting":
        return answer_from_bytes(blob)
    waiting = _bare(blob, _WaitingHeader)
    return Waiting(run=waiting.run, round=waiting.round, site=waiting.site, reason=waiting.reason, retry_s=waiting.retry_s)


def secure_to_bytes(message: SecureMessage, *, version: int = VERSION) -> bytes:
    header = _SecureHeader(run=message.run, round=message.round, site=message.site, phase=message.phase)
    return _to_bytes(header, {_BODY: np.frombuffer(message.body, dtype=np.uint8)}, version)


def secure_from_bytes(blob: bytes) -> SecureMessage | Refusal:
    """The message as sent; its body is read by `rainhill.secagg`, against the round's terms."""
    if _kind(blob) == "refusal":
        answer = answer_from_bytes(blob)
        assert isinstance(answer, Refusal)
        return answer
    header, packed = _from_bytes(blob, _SecureHeader)
    if set(packed) != {_BODY} or packed[_BODY].dtype != np.uint8 or packed[_BODY].ndim != 1:
        raise ProtocolError(f"{header.site}: a message of secure aggregation holds {', '.join(sorted(packed)) or 'nothing'}, not its body")
    return SecureMessage(run=header.run, round=header.round, site=header.site, phase=header.phase, body=packed[_BODY].tobytes())


def check_answer(answer: Update | Refusal, plan: Plan, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ProtocolError unless the answer is one to this plan, with exactly the tensors of these names and shapes."""
    for what, got, asked in (("run", answer.run, plan.run), ("round", answer.round, plan.round), ("site", answer.site, plan.site)):
        if got != asked:
            raise ProtocolError(f"{plan.site}: answer is for {what} {got!r}, asked was {asked!r}")
    if isinstance(answer, Update):
        _check_tensors(answer.delta, expected)
        variate = {name: array.shape for name, array in plan.adapter.items() if plan.rule.variate and plan.rule.sends(name)}
        _check_tensors(answer.variate or Adapter({}), variate)
        if not 0 <= answer.choice <= len(plan.choices):
            raise ProtocolError(f"{plan.site}: choice {answer.choice} is not one of 0 to {len(plan.choices)}")
        if answer.patients is not None and answer.patients < 1:
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


def _to_bytes(header: Section, arrays: dict[str, Any], version: int) -> bytes:
    tensors = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    written = to_json(downgraded(header.model_dump(mode="json"), version)).decode()
    return bytes(save(tensors, metadata={_HEADER: written}))


def _raw_header(blob: bytes) -> dict[str, Any]:
    # safetensors: 8 bytes of little-endian length, then a JSON object whose "__metadata__" is ours.
    length = int.from_bytes(blob[:8], "little")
    if length > _LARGEST_HEADER:
        raise ProtocolError(f"not a Rainhill message ({len(blob)} bytes): a header of {length} bytes is larger than {_LARGEST_HEADER}")
    try:
        metadata = json.loads(blob[8 : 8 + length], object_pairs_hook=_each_once)["__metadata__"]
        header = json.loads(metadata[_HEADER], object_pairs_hook=_each_once)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProtocolError(f"not a Rainhill message ({len(blob)} bytes): {shown(str(error))}") from error
    if not isinstance(header, dict):
        raise ProtocolError(f"not a Rainhill message ({len(blob)} bytes): its header is no object")
    check_version(header.get("version"))
    return header


def _kind(blob: bytes) -> object:
    return _raw_header(blob).get("kind")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two values by one name, one reader takes the first and another the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _from_bytes(blob: bytes, model: type[Any]) -> tuple[Any, dict[str, Array]]:
    raw = upgraded(_raw_header(blob))
    try:
        # As JSON and strictly: no true for 1, no "1" for 1, no lone surrogate.
        header = model.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = shown(".".join(str(part) for part in first["loc"]))
        raise ProtocolError(f"message header, {key} = {shown(repr(first['input']))}: {first['msg']}") from error
    except RecursionError as error:
        raise ProtocolError(f"not a Rainhill message ({len(blob)} bytes): its header is nested too deeply") from error
    try:
        return header, load(blob)
    # KeyError: a dtype that numpy does not have.
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ProtocolError(f"not a safetensors message: {shown(str(error))}") from error


def _bare(blob: bytes, model: type[Any]) -> Any:
    header, packed = _from_bytes(blob, model)
    if packed:
        raise ProtocolError(f"{shown(min(packed))}: a {header.kind} holds no tensor")
    return header


def _choice(number: int) -> str:
    return f"choice-{number}/"


def _named(arrays: Adapter, prefix: str) -> Adapter:
    return Adapter({name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)})


def _check_tensors(adapter: Adapter, expected: Mapping[str, tuple[int, ...]]) -> None:
    check_shapes(adapter, expected)
    for name, array in adapter.items():
        if array.dtype != np.float32:
            raise ProtocolError(f"{name}: dtype {array.dtype} is not float32")
        if not np.isfinite(array).all():
            bad = int(np.size(array) - np.count_nonzero(np.isfinite(array)))
            raise ProtocolError(f"{name}: {bad} of {array.size} values are not finite")
        if array.size and float(np.abs(array).max()) > LARGEST:
            raise ProtocolError(f"{name}: holds {float(np.abs(array).max()):.3g}, values above {LARGEST:g} are not taken")


def _finite(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise ProtocolError(f"{what} {value} is not finite")
    return value
