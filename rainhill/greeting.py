"""What a site says of itself when the coordinator greets it, signed, with the number that it was greeted with."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

import rainhill
from rainhill import signed, wire
from rainhill.enrolment import Document, Line, Protocol, ShortName, Utc, read_document
from rainhill.errors import CredentialError

GREETING = "greeting 1"
NONCE = 16
"""Bytes."""
Nonce = Annotated[str, Field(pattern=f"^[0-9a-f]{{{2 * NONCE}}}$")]


class Greeting(Document):
    site: ShortName
    software: Line
    protocols: Annotated[tuple[Protocol, ...], Field(min_length=1, max_length=20)]
    """Versions of the wire form that the site speaks."""
    time: Utc
    """Of its clock."""
    nonce: Nonce


def sealed_greeting(site: str, nonce: bytes, private: bytes) -> bytes:
    """`private` is the site's Ed25519 key."""
    said = Greeting(
        site=site, software=f"rainhill {rainhill.__version__}", protocols=wire.VERSIONS, time=datetime.now(UTC), nonce=nonce.hex()
    )
    return signed.sealed(said.canonical(), private, purpose=GREETING)


def opened_greeting(data: bytes, *, site: str, nonce: bytes, public: bytes) -> Greeting:
    """CredentialError unless this very site says it now, to this very greeting."""
    said = read_document(signed.opened(data, purpose=GREETING, trusted=(public,)), Greeting, what=GREETING)
    if (said.site, said.nonce) != (site, nonce.hex()):
        raise CredentialError(f"{site}: its greeting is of {said.site} to {said.nonce}, greeted was {site} with {nonce.hex()}")
    return said
