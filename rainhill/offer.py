"""A run as it is offered to the sites: the recipe whole, who is asked, by whom, until when; signed by the consortium's key.

A site approves what is in here and nothing else: an approval is bound to the sha256 of the recipe.
"""

import hashlib
import math
from typing import Annotated

from pydantic import Field, model_validator

from rainhill import signed
from rainhill.enrolment import Document, Line, PublicKey, ShortName, Utc, read_document
from rainhill.errors import CredentialError
from rainhill.recipe import Recipe, Sha256

OFFER = "offer 1"
LARGEST = 2**28
"""Values of all tensors together: a site draws so many, to show what would leave."""
FRAME = 16 * 2**20
"""Bytes that a message may have, whatever a run is about."""
ADAPTERS = 8
"""As large as the one that is offered, which a plan or an answer may hold: those to choose from, corrections, and what masks add."""
RunId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
"""Of a run, for good: it names folders and files."""
TensorName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.]+$")]
Shape = Annotated[tuple[Annotated[int, Field(ge=0, le=2**31)], ...], Field(max_length=8)]


class Offer(Document):
    consortium: ShortName
    run: RunId
    recipe: Recipe
    adapter: Sha256
    """Fingerprint of the adapter that round 1 begins from."""
    tensors: Annotated[dict[TensorName, Shape], Field(min_length=1, max_length=10_000)]
    """Names and shapes of what that adapter holds."""
    sites: Annotated[dict[ShortName, PublicKey], Field(min_length=1, max_length=10_000)]
    """All that are asked, and the signing key that the coordinator knows each by."""
    by: Line
    """The operator who asks."""
    made: Utc
    until: Utc
    """After this it can be approved no more."""

    @model_validator(mode="after")
    def _asks_whom_its_recipe_names(self) -> "Offer":
        if self.until <= self.made:
            raise ValueError(f"until {self.until.isoformat()} is not after made {self.made.isoformat()}")
        values = sum(math.prod(shape) for shape in self.tensors.values())
        if values > LARGEST:
            raise ValueError(f"its tensors hold {values} values, more than {LARGEST}")
        if self.recipe.sites and set(self.recipe.sites) != set(self.sites):
            raise ValueError(f"asks {', '.join(sorted(self.sites))}, and its recipe names {', '.join(sorted(self.recipe.sites))}")
        return self

    @property
    def room(self) -> int:
        """Bytes of the largest message that a round of it can want, either way. A residual has the ranks of all sites together."""
        return FRAME + 4 * sum(math.prod(shape) for shape in self.tensors.values()) * (ADAPTERS + len(self.sites))

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.canonical()).hexdigest()


def sealed_offer(offer: Offer, private: bytes) -> bytes:
    """`private` is the consortium's Ed25519 key."""
    return signed.sealed(offer.canonical(), private, purpose=OFFER)


def opened_offer(data: bytes, *, consortium: str, public: bytes) -> Offer:
    """CredentialError unless this consortium, known by its public key, offers it. Whether it is still in time is for who approves."""
    offer = read_document(signed.opened(data, purpose=OFFER, trusted=(public,)), Offer, what=OFFER)
    if offer.consortium != consortium:
        raise CredentialError(f"{OFFER}: is of consortium {offer.consortium}, and this site belongs to {consortium}")
    return offer
