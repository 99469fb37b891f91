"""A document signed with Ed25519, RFC 8032: who reads it knows whose it is, what it was signed for, and that no byte was changed."""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from pydantic import Field, ValidationError

from rainhill.errors import CredentialError
from rainhill.files import read_private
from rainhill.text import shown
from rainhill.toml import Section

LARGEST = 2**20
"""Bytes of an envelope."""
KEY = 32
"""Bytes of a private key and of a public one."""
_LABEL = "rainhill signed 1"
_DIGITS, _GROUP = 32, 4
"""Of a fingerprint. 32 hex digits are 128 bits: nobody finds a second key that has the same."""


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A signed document on its way. Nothing is checked before `opened`."""

    purpose: str
    body: bytes
    """Canonical JSON."""
    signature: bytes
    key: bytes
    """The Ed25519 public key that the signature is said to be of."""

    def to_bytes(self) -> bytes:
        wire = _Wire(body=b64encode(self.body).decode(), key=self.key.hex(), purpose=self.purpose, signature=self.signature.hex())
        data = json.dumps(wire.model_dump(), sort_keys=True, separators=(",", ":")).encode()
        _check_size(data)
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "Envelope":
        """Raises CredentialError for all but the one spelling that `to_bytes` gives."""
        _check_size(data)
        try:
            wire = _Wire.model_validate_json(data)
            body = b64decode(wire.body, validate=True)
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(str(part) for part in problem["loc"])
            raise CredentialError(
                f"not a signed document ({len(data)} bytes): {f'{shown(place)}: ' if place else ''}{problem['msg']}"
            ) from error
        except ValueError as error:
            raise CredentialError(f"not a signed document ({len(data)} bytes): body: {error}") from error
        envelope = cls(purpose=wire.purpose, body=body, signature=bytes.fromhex(wire.signature), key=bytes.fromhex(wire.key))
        # Another spelling of the same would be a change that no signature shows.
        if envelope.to_bytes() != data:
            raise CredentialError(f"a signed document ({len(data)} bytes) is not in its canonical form")
        return envelope


class _Wire(Section):
    body: str
    key: Annotated[str, Field(pattern=f"^[0-9a-f]{{{2 * KEY}}}$")]
    purpose: Annotated[str, Field(min_length=1, max_length=100)]
    signature: Annotated[str, Field(pattern="^[0-9a-f]{128}$")]


def fingerprint(public: bytes) -> str:
    """Of a raw public key, for people to compare over the telephone: 8 groups of 4 hex digits of its sha256."""
    digits = hashlib.sha256(public).hexdigest()[:_DIGITS]
    return "-".join(digits[start : start + _GROUP] for start in range(0, _DIGITS, _GROUP))


def bound(body: bytes, *, purpose: str) -> bytes:
    """What is signed: the body together with what it is for, so that a signature given for one purpose is none for another."""
    # As JSON, so that no two purposes and bodies are the same bytes.
    return json.dumps([_LABEL, purpose, body.hex()], separators=(",", ":")).encode()


def new_key() -> bytes:
    """An Ed25519 private key, 32 bytes."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def key_to_pem(private: bytes) -> bytes:
    return _private(private).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_key(path: Path) -> bytes:
    """The private key of a file as `key_to_pem` gives. Raises CredentialError that names the file, also where others may read it."""
    try:
        key = load_pem_private_key(read_private(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CredentialError(f"{path}: holds no private key in PEM that opens without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        kind = key.curve.name if isinstance(key, EllipticCurvePrivateKey) else type(key).__name__.removesuffix("PrivateKey")
        raise CredentialError(f"{path}: is of kind {kind}, not Ed25519")
    return key.private_bytes_raw()


def public_key(private: bytes) -> bytes:
    """The 32 bytes of the Ed25519 public key of a private one."""
    return _private(private).public_key().public_bytes_raw()


def sign(body: bytes, private: bytes, *, purpose: str) -> bytes:
    """`private` is an Ed25519 private key, 32 bytes."""
    return _private(private).sign(bound(body, purpose=purpose))


def check(body: bytes, signature: bytes, public: bytes, *, purpose: str) -> None:
    """Raises CredentialError unless the private key of `public` has signed just this body for just this purpose."""
    if len(public) != KEY:
        raise CredentialError(f"{purpose}: a public key of {len(public)} bytes, not of {KEY}")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, bound(body, purpose=purpose))
    except InvalidSignature as error:
        raise CredentialError(f"{purpose}: was changed, or was not signed with key {fingerprint(public)}") from error


def sealed(body: bytes, private: bytes, *, purpose: str) -> bytes:
    """The bytes of an envelope around `body`."""
    return Envelope(purpose=purpose, body=body, signature=sign(body, private, purpose=purpose), key=public_key(private)).to_bytes()


def opened(envelope_bytes: bytes, *, purpose: str, trusted: Collection[bytes]) -> bytes:
    """The body. Raises CredentialError unless it was signed for this purpose with one of the trusted public keys."""
    envelope = Envelope.from_bytes(envelope_bytes)
    if envelope.purpose != purpose:
        raise CredentialError(f"a signed document is a {shown(envelope.purpose)!r}, not a {purpose!r}")
    if envelope.key not in trusted:
        known = ", ".join(map(fingerprint, trusted)) or "none"
        raise CredentialError(f"{purpose}: is signed with key {fingerprint(envelope.key)}; trusted here: {known}")
    check(envelope.body, envelope.signature, envelope.key, purpose=purpose)
    return envelope.body


def _private(private: bytes) -> Ed25519PrivateKey:
    if len(private) != KEY:
        raise CredentialError(f"an Ed25519 private key has {KEY} bytes, not {len(private)}")
    return Ed25519PrivateKey.from_private_bytes(private)


def _check_size(data: bytes) -> None:
    if len(data) > LARGEST:
        raise CredentialError(f"a signed document has {len(data)} bytes, more than {LARGEST}")
