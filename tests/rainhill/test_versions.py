"""Versions n and n - 1 talk; what is older or newer is refused with what to do."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save

from rainhill import greeting, signed, versions, wire
from rainhill.adapter import Adapter
from rainhill.errors import ProtocolError
from rainhill.messages import Evaluation, LocalRule, Plan, Receipt, Refusal, SecureMessage, Update, Waiting

ADAPTER = Adapter({"m.lora_A": np.ones((2, 3), np.float32), "m.lora_B": np.zeros((4, 2), np.float32)})
PLAN = Plan(
    run="r",
    recipe="f" * 64,
    round=3,
    site="bury",
    adapter=ADAPTER,
    rule=LocalRule(mu=1e-5, keep=("head.*",), alternate=True, kept_first=2, correction=ADAPTER),
    choices=(ADAPTER,),
)
UPDATE = Update(
    run="r",
    round=3,
    site="bury",
    delta=ADAPTER,
    patients=40,
    steps=7,
    loss=0.25,
    evaluation=Evaluation(patients=9, metrics={"auroc": 0.75}),
)
REFUSAL = Refusal(run="r", round=3, site="bury", reason="no")


def header_of(blob: bytes) -> dict[str, object]:
    return json.loads(json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])["__metadata__"]["rainhill"])


def with_header(blob: bytes, **changes: object) -> bytes:
    return save(load(blob), metadata={"rainhill": json.dumps({**header_of(blob), **changes})})


def test_both_versions_that_are_spoken_are_read_and_said_everywhere() -> None:
    assert wire.VERSIONS == (wire.VERSION - 1, wire.VERSION) == versions.VERSIONS
    said = greeting.opened_greeting(
        greeting.sealed_greeting("bury", bytes(16), bytes(32)), site="bury", nonce=bytes(16), public=signed.public_key(bytes(32))
    )
    assert said.protocols == wire.VERSIONS


@pytest.mark.parametrize("version", wire.VERSIONS)
def test_a_message_of_either_version_comes_back_as_it_was(version: int) -> None:
    for message, write, read in (
        (PLAN, wire.plan_to_bytes, wire.plan_from_bytes),
        (UPDATE, wire.answer_to_bytes, wire.answer_from_bytes),
        (REFUSAL, wire.answer_to_bytes, wire.live_answer_from_bytes),
    ):
        blob = write(message, version=version)
        assert wire.version_of(blob) == header_of(blob)["version"] == version
        assert read(blob) == message


@pytest.mark.parametrize(
    ("blob", "sha256"),
    [
        (wire.plan_to_bytes(PLAN, version=2), "416069283532e8bd82665f1cadff9264f60fcc49a56465ca7aee8ed7e5096bd6"),
        (wire.answer_to_bytes(UPDATE, version=2), "df8d6de18ae76b89460968815566de9d80bcfdd6f4aab2b50d2354ef34600ddc"),
        (wire.answer_to_bytes(REFUSAL, version=2), "49ae2369569b621a1022c97ea92ce930dd4f5281f98f62e3b83f680eb7d73335"),
    ],
)
def test_version_2_is_written_byte_for_byte_as_the_code_of_version_2_wrote_it(blob: bytes, sha256: str) -> None:
    """The digests are of the same messages, written by this project at commit d087f0d."""
    assert hashlib.sha256(blob).hexdigest() == sha256


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (replace(UPDATE, patients=None), "patients = None"),
        (replace(UPDATE, loss=None), "loss = None"),
        (replace(UPDATE, epsilon=0.5), "epsilon = 0.5"),
        (replace(UPDATE, evaluation=Evaluation(patients=None, metrics={})), "evaluation.patients = None"),
        (Waiting(run="r", round=3, site="bury", reason="waits", retry_s=1.0), "kind = 'waiting'"),
        (Receipt(run="r", round=3, site="bury", adapter="f" * 64, told=None), "kind = 'receipt'"),
    ],
)
def test_what_an_older_version_cannot_say_is_refused_by_name_both_ways(message: Update | Waiting | Receipt, field: str) -> None:
    with pytest.raises(ProtocolError, match=f"^{field}: version 2 of the wire form has no way to say it"):
        wire.answer_to_bytes(message, version=2)
    with pytest.raises(ProtocolError, match=f"^{field}: version 2 of the wire form has no way to say it"):
        wire.live_answer_from_bytes(with_header(wire.answer_to_bytes(message), version=2))


def test_a_plan_is_checked_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in wire.VERSIONS:
        wire.check_plan(PLAN, version=version)

    def without_mu(header: dict[str, object]) -> dict[str, object]:
        raise ProtocolError(f"mu = {header['mu']}: version 2 has no way to say it")

    monkeypatch.setattr(versions, "_DOWN", {3: without_mu})
    for refuses in (wire.check_plan, wire.plan_to_bytes):
        with pytest.raises(ProtocolError, match="^mu = 1e-05: version 2"):
            refuses(PLAN, version=2)


def test_secure_aggregation_is_younger_than_version_2() -> None:
    message = SecureMessage(run="r", round=3, site="bury", phase=0, body=b"x")
    with pytest.raises(ProtocolError, match="kind = 'secure'"):
        wire.secure_to_bytes(message, version=2)
    with pytest.raises(ProtocolError, match="kind = 'secure'"):
        wire.secure_from_bytes(with_header(wire.secure_to_bytes(message), version=2))


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (1, "message version 1 is not 2 or 3: update Rainhill where it was written: pip install -U rainhill"),
        (4, "message version 4 is not 2 or 3: update Rainhill here: pip install -U rainhill"),
        (True, "message version True is not"),
        (3.0, "message version 3.0 is not"),
        ("3", "message version '3' is not"),
        (None, "message version None is not"),
        ([3], r"message version \[3\] is not"),
    ],
)
def test_another_version_is_refused_with_what_to_do(version: object, words: str) -> None:
    blob = with_header(wire.plan_to_bytes(PLAN), version=version)
    for read in (wire.plan_from_bytes, wire.live_answer_from_bytes, wire.secure_from_bytes, wire.version_of):
        with pytest.raises(ProtocolError, match=words):
            read(blob)
    with pytest.raises(ProtocolError, match="is not 2 or 3"):
        wire.plan_to_bytes(PLAN, version=1)


def test_the_highest_common_version_is_agreed() -> None:
    assert wire.agreed((1, 2, 3, 4)) == wire.agreed((3,)) == wire.agreed([3, 2]) == 3
    assert wire.agreed((1, 2)) == 2


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (
            (1,),
            "the site speaks version 1 of the wire form, the coordinator version 2, 3: update Rainhill at the site: pip install -U rainhill",
        ),
        ((4, 5), "speaks version 4, 5 of .* coordinator version 2, 3: update Rainhill at the coordinator: pip install -U rainhill"),
        ((1, 4), "update Rainhill at the coordinator"),
        ((), "the site speaks no version of the wire form"),
    ],
)
def test_no_common_version_is_refused_with_both_lists_and_whom_to_update(theirs: tuple[int, ...], words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        wire.agreed(theirs)
