"""How a site stands to a run that it was offered: what it says when the coordinator brings the offer, signed by the site's key."""

from typing import Annotated, Literal

from pydantic import Field

from rainhill import signed
from rainhill.enrolment import Document, ShortName, read_document
from rainhill.errors import CredentialError
from rainhill.greeting import Nonce
from rainhill.offer import RunId
from rainhill.recipe import Sha256

STANDING = "standing 1"
State = Literal["pending", "approved", "refused"]
LONGEST = 2000


class Standing(Document):
    site: ShortName
    run: RunId
    offer: Sha256
    """That it is about."""
    state: State
    reason: Annotated[str, Field(max_length=LONGEST)]
    """Why it is not approved, without identifiers."""
    nonce: Nonce
    """Of who asked, so that an answer of yesterday is none of today."""


def sealed_standing(standing: Standing, private: bytes) -> bytes:
    """`private` is the site's Ed25519 key."""
    return signed.sealed(standing.canonical(), private, purpose=STANDING)


def opened_standing(data: bytes, *, site: str, run: str, offer: str, nonce: bytes, public: bytes) -> Standing:
    """CredentialError unless this site, known by its public key, says it of this offer and to this question."""
    standing = read_document(signed.opened(data, purpose=STANDING, trusted=(public,)), Standing, what=STANDING)
    for what, got, asked in (
        ("site", standing.site, site),
        ("run", standing.run, run),
        ("offer", standing.offer, offer),
        ("nonce", standing.nonce, nonce.hex()),
    ):
        if got != asked:
            raise CredentialError(f"{STANDING}: is of {what} {got}, asked was {asked}")
    return standing
