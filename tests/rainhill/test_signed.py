import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainhill import signed
from rainhill.errors import CredentialError
from rainhill.signed import Envelope, check, fingerprint, opened, sealed, sign

PRIVATE, OTHER = b"\1" * 32, b"\2" * 32
PUBLIC = signed.public_key(PRIVATE)
SEALED = sealed(b'{"a":1}', PRIVATE, purpose="note")
purposes = st.text(min_size=1, max_size=100).filter(lambda text: text.isprintable())


def refused(data: bytes, *, purpose: str = "note", trusted: tuple[bytes, ...] = (PUBLIC,)) -> str:
    with pytest.raises(CredentialError) as error:
        opened(data, purpose=purpose, trusted=trusted)
    assert "\n" not in str(error.value)
    return str(error.value)


def rewritten(**changes: object) -> bytes:
    return json.dumps({**json.loads(SEALED), **changes}, sort_keys=True, separators=(",", ":")).encode()


def test_the_fingerprint_is_the_beginning_of_what_sha256sum_gives() -> None:
    # printf abc | sha256sum, FIPS 180-4's example.
    assert fingerprint(b"abc") == "ba78-16bf-8f01-cfea-4141-40de-5dae-2223"


def test_the_signature_is_rfc_8032s_over_the_label_the_purpose_and_the_body() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    said = b'["rainhill signed 1","note","7b7d"]'
    Ed25519PublicKey.from_public_bytes(PUBLIC).verify(sign(b"{}", PRIVATE, purpose="note"), said)


@given(body=st.binary(max_size=300), private=st.binary(min_size=32, max_size=32), purpose=purposes)
def test_what_was_sealed_is_opened(body: bytes, private: bytes, purpose: str) -> None:
    public = signed.public_key(private)
    data = sealed(body, private, purpose=purpose)
    assert opened(data, purpose=purpose, trusted=[OTHER, public]) == body
    assert Envelope.from_bytes(data).to_bytes() == data


@given(place=st.integers(0, len(SEALED) - 1), byte=st.integers(0, 255))
def test_any_changed_byte_of_an_envelope_is_refused(place: int, byte: int) -> None:
    if SEALED[place] != byte:
        refused(SEALED[:place] + bytes([byte]) + SEALED[place + 1 :])


def test_every_flipped_bit_and_every_length_is_refused() -> None:
    for place in range(len(SEALED)):
        for bit in range(8):
            refused(SEALED[:place] + bytes([SEALED[place] ^ 1 << bit]) + SEALED[place + 1 :])
        refused(SEALED[:place])
    refused(SEALED + b" ")


@given(body=st.binary(max_size=100), other=st.binary(max_size=100), purpose=purposes, another=purposes)
def test_a_signature_is_for_one_body_and_one_purpose(body: bytes, other: bytes, purpose: str, another: str) -> None:
    signature = sign(body, PRIVATE, purpose=purpose)
    check(body, signature, PUBLIC, purpose=purpose)
    if (body, purpose) != (other, another):
        with pytest.raises(CredentialError, match=f"was changed, or was not signed with key {fingerprint(PUBLIC)}"):
            check(other, signature, PUBLIC, purpose=another)


def test_a_signature_for_one_purpose_relabelled_for_another_is_refused() -> None:
    assert "was changed, or was not signed" in refused(rewritten(purpose="order"), purpose="order")
    assert refused(SEALED, purpose="order") == "a signed document is a 'note', not a 'order'"


def test_a_key_that_is_not_trusted_is_named_beside_those_that_are() -> None:
    known = signed.public_key(OTHER)
    message = refused(SEALED, trusted=(known,))
    assert message == f"note: is signed with key {fingerprint(PUBLIC)}; trusted here: {fingerprint(known)}"
    assert "trusted here: none" in refused(SEALED, trusted=())
    assert "was not signed with key" in refused(rewritten(key=known.hex()), trusted=(known,))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a signed document (0 bytes)"),
        (b"[" * 100_000, "not a signed document (100000 bytes)"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not a signed document"),
        (b"\xff\xfe{}", "not a signed document"),
        (b'{"body":"\\ud800"}', "not a signed document"),
        (b"9" * 10_000, "not a signed document"),
        (rewritten(more=1), "more: Extra inputs are not permitted"),
        (rewritten(body="e30"), "body: Incorrect padding"),
        (rewritten(body="é"), "not a signed document"),
        (rewritten(key="A" * 64), "key: String should match pattern"),
        (rewritten(signature=""), "signature: String should match pattern"),
        (rewritten(purpose=1), "purpose: Input should be a valid string"),
        (rewritten(purpose="x" * 101), "purpose: String should have at most 100 characters"),
        (SEALED[:-1] + b',"purpose":"note"}', "is not in its canonical form"),
        (json.dumps(json.loads(SEALED)).encode(), "is not in its canonical form"),
        # The last character of base64 has bits that mean nothing.
        (SEALED.replace(b'fQ==",', b'fR==",'), "is not in its canonical form"),
        (b" " * 2**20 + SEALED, "more than 1048576"),
    ],
)
def test_odd_json_is_refused_in_one_line(data: bytes, message: str) -> None:
    assert data != SEALED
    assert message in refused(data)


def test_a_body_that_would_not_be_opened_is_not_sealed() -> None:
    assert opened(sealed(b"x" * 700_000, PRIVATE, purpose="note"), purpose="note", trusted=[PUBLIC]) == b"x" * 700_000
    with pytest.raises(CredentialError, match="more than 1048576"):
        sealed(b"x" * 2**20, PRIVATE, purpose="note")


def test_keys_of_another_length_are_refused_with_both() -> None:
    with pytest.raises(CredentialError, match="an Ed25519 private key has 32 bytes, not 31"):
        sign(b"", b"1" * 31, purpose="note")
    with pytest.raises(CredentialError, match="note: a public key of 33 bytes, not of 32"):
        check(b"", b"", b"1" * 33, purpose="note")


def test_an_envelope_is_one_json_object_with_its_body_in_base64() -> None:
    assert json.loads(SEALED) == {
        "body": b64encode(b'{"a":1}').decode(),
        "key": PUBLIC.hex(),
        "purpose": "note",
        "signature": sign(b'{"a":1}', PRIVATE, purpose="note").hex(),
    }
