"""The wire form: one spelling for every message, and nothing else is read."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from rainhill.errors import ProtocolError, RefusedError
from rainhill.secagg import Advertisement, Inbox, MaskedInput, Revealed, Roster, SealedShares, Terms, UnmaskRequest
from tests.rainhill.secagg.world import Round, terms_of, updates

WORLD = Round(terms_of(4), updates(4), silent=("s03",))
MESSAGES = (
    WORLD.advertised["s00"][1],
    WORLD.roster,
    WORLD.shared["s00"][1],
    WORLD.inboxes["s00"],
    WORLD.masked["s00"][1],
    WORLD.request,
    WORLD.confirmed["s00"][1],
    WORLD.confirmations,
    WORLD.revealed["s00"],
)
every_message = pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)


def rewritten(data: bytes, *, header=None, arrays=None) -> bytes:
    own = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["rainhill-secagg"])
    return save(
        {**load(data), **(arrays or {})}, metadata={"rainhill-secagg": json.dumps({**own, **(header or {})}, separators=(",", ":"))}
    )


@every_message
def test_a_message_comes_back_and_has_one_spelling(message) -> None:
    data = message.to_bytes(WORLD.terms)
    back = type(message).from_bytes(data, WORLD.terms)
    assert back.to_bytes(WORLD.terms) == data
    if not isinstance(message, MaskedInput):
        assert back == message


@every_message
def test_a_message_of_another_round_kind_or_version_is_refused(message) -> None:
    data = message.to_bytes(WORLD.terms)
    with pytest.raises(ProtocolError, match=r"terms '[0-9a-f]{64}' is not '[0-9a-f]{64}'"):
        type(message).from_bytes(data, terms_of(4, number=2))
    for other in MESSAGES:
        if type(other) is not type(message):
            with pytest.raises(ProtocolError, match="kind '.*' is not '.*'"):
                type(other).from_bytes(data, WORLD.terms)
    with pytest.raises(ProtocolError, match="version 2 is not 1"):
        type(message).from_bytes(rewritten(data, header={"version": 2}), WORLD.terms)


@every_message
@pytest.mark.parametrize(
    ("header", "arrays", "said"),
    [
        ({"site": "zz"}, {}, "'zz' is not one of the 4 sites of the round"),
        ({"more": 1}, {}, "Extra inputs are not permitted"),
        ({"version": "1"}, {}, "not its canonical form"),
        ({}, {"more": np.zeros(1, np.uint8)}, "not its canonical form"),
    ],
)
def test_what_a_message_does_not_declare_is_refused(message, header, arrays, said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        type(message).from_bytes(rewritten(message.to_bytes(WORLD.terms), header=header, arrays=arrays), WORLD.terms)


@every_message
def test_a_message_larger_than_its_kind_can_be_is_not_read(message) -> None:
    with pytest.raises(ProtocolError, match=r"100000 bytes, at most \d+ are taken"):
        type(message).from_bytes(bytes(100_000), WORLD.terms)


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        (MaskedInput, {"arrays": {"vector": np.zeros(20, np.uint32)}}, r"vector: uint32 of shape \(20,\) is not uint32 of shape \(21,\)"),
        (MaskedInput, {"arrays": {"vector": np.zeros(21, np.uint64)}}, r"vector: uint64 of shape \(21,\) is not uint32"),
        (Roster, {"arrays": {"rows": np.zeros((4, 159), np.uint8)}}, r"rows: uint8 of shape \(4, 159\) is not uint8 of shape \(4, 160\)"),
        (Roster, {"header": {"rows": ["s00", "s02", "s01", "s03"]}}, "not its canonical form"),
        (Roster, {"header": {"rows": ["s00", "s01", "s01", "s03"]}}, "not its canonical form"),
        (UnmaskRequest, {"header": {"rows": ["s00", "s00"]}}, "not its canonical form"),
        (Advertisement, {"header": {"site": "s01"}}, "s01: speaks for s00"),
        (Inbox, {"header": {"others": ["zz"]}}, "'zz' is not one of the 4 sites"),
        (SealedShares, {"header": {"rows": ["s01"]}}, r"rows: uint8 of shape \(3, 92\) is not uint8 of shape \(1, 92\)"),
        (Revealed, {"header": {"others": []}}, r"others: uint8 of shape \(1, 32\) is not uint8 of shape \(0, 32\)"),
    ],
)
def test_tables_and_vectors_have_the_shape_that_the_terms_say(kind, data, said: str) -> None:
    message = next(one for one in MESSAGES if isinstance(one, kind))
    with pytest.raises(ProtocolError, match=said):
        kind.from_bytes(rewritten(message.to_bytes(WORLD.terms), **data), WORLD.terms)


@given(place=st.integers(0, 2000), cut=st.booleans(), flip=st.integers(1, 255))
def test_no_damage_breaks_the_reader_otherwise_than_by_name(place: int, cut: bool, flip: int) -> None:
    for message in MESSAGES:
        data = bytearray(message.to_bytes(WORLD.terms))
        at = place % len(data)
        data[at] ^= flip
        with contextlib.suppress(ProtocolError):
            type(message).from_bytes(bytes(data[:at] if cut else data), WORLD.terms)


def test_names_that_json_escapes_fit_too() -> None:
    names = [chr(0x1F600) * 40 + str(number) for number in range(5)]
    terms = terms_of(5, weights=dict.fromkeys(names, 1))
    request = UnmaskRequest(survivors=tuple(names), dropped=())
    assert UnmaskRequest.from_bytes(request.to_bytes(terms), terms) == request


def test_terms_come_back_and_have_one_spelling() -> None:
    data = WORLD.terms.to_bytes()
    assert Terms.from_bytes(data) == WORLD.terms
    assert Terms.from_bytes(data).digest == WORLD.terms.digest
    for changed in (data + b" ", data.replace(b'"round":1', b'"round":"1"'), data.replace(b'"round":1', b'"round":1.0')):
        with pytest.raises(ProtocolError, match="not in their canonical form"):
            Terms.from_bytes(changed)
    for changed in (b"", b"[]", data[:-1], data.replace(b'"round":1,', b"")):
        with pytest.raises(ProtocolError, match="not terms of secure aggregation"):
            Terms.from_bytes(changed)
    with pytest.raises(RefusedError, match="quorum 2 is not more than half of the 4 sites"):
        Terms.from_bytes(data.replace(b'"quorum":3', b'"quorum":2'))
