"""What a privacy ledger is made of: frozen events with a JSON form, in the manner of dp_accounting's DpEvent.

A reader that does not know an event's kind or version refuses the ledger, since it could not tell what had been spent.
"""

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from client import chain
from client.chain import Event, kinds_of
from client.privacy.accountant import NEIGHBOURS, NOISE_MULTIPLIERS, UNIT, Phase
from rainhill.config import Positive
from rainhill.recipe import Sha256

Pseudonym = Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
Delta = Annotated[float, Field(gt=0, lt=1)]
NoiseMultiplier = Annotated[float, Field(gt=0, le=NOISE_MULTIPLIERS[1])]
SampleRate = Annotated[float, Field(gt=0, le=1)]
Words = Annotated[str, Field(min_length=1)]


class Opened(chain.Opened):
    """The first entry of every ledger: whose it is, and what all of its epsilons are about."""

    unit: Literal["patient"] = UNIT
    neighbours: Literal["add or remove one patient"] = NEIGHBOURS


class Joined(Event):
    """The site accepted a run, and solved its noise once, for the steps of all rounds."""

    kind = "joined"
    run: Words
    recipe: Sha256
    cohort: Words
    """The data set, by name."""
    patients: int = Field(ge=1)
    """Training patients."""
    epsilon: Positive
    """Of the whole run, at most."""
    delta: Delta
    noise_multiplier: NoiseMultiplier
    sample_rate: SampleRate
    steps: int = Field(ge=1)
    """Of all rounds."""


class Members(Event):
    """A set of patients, by pseudonym: written once, and named by its digest from then on."""

    kind = "members"
    digest: Sha256
    patients: tuple[Pseudonym, ...] = Field(repr=False)

    @classmethod
    def of(cls, patients: Iterable[str]) -> "Members":
        ordered = tuple(sorted(set(patients)))
        return cls(digest=digest(ordered), patients=ordered)

    @model_validator(mode="after")
    def _is_what_the_digest_says(self) -> "Members":
        found = digest(self.patients)
        if found != self.digest or len(set(self.patients)) < len(self.patients):
            raise ValueError(f"{len(self.patients)} patients have digest {found}, not {self.digest}, or one is there twice")
        return self


class Charged(Event):
    """All members spent so many steps. Written before anything can leave, so that a crash charges."""

    kind = "charged"
    run: Words
    recipe: Sha256
    round: int = Field(ge=0)
    cohort: Words
    what: Literal["update", "numbers"]
    members: Sha256
    """Digest of a Members event before this one."""
    noise_multiplier: NoiseMultiplier
    sample_rate: SampleRate
    steps: int = Field(ge=1)
    delta: Delta
    """That the noise was solved for."""
    draw: Sha256
    """Of the secret key that all randomness of the round comes from. The key itself stays out: with it the noise could be taken off."""
    plan: Sha256
    """Of the plan's bytes."""

    @property
    def phase(self) -> Phase:
        return Phase(noise_multiplier=self.noise_multiplier, sample_rate=self.sample_rate)


class Sent(Event):
    """An update left the site."""

    kind = "sent"
    run: Words
    round: int = Field(ge=0)
    update: Sha256
    """Of the bytes that left."""
    size: int = Field(ge=0)
    """In bytes."""


KINDS = kinds_of(Opened, Joined, Members, Charged, Sent)


def digest(patients: Iterable[str]) -> str:
    """sha256 of the pseudonyms in order, one per line."""
    return hashlib.sha256("\n".join(sorted(patients)).encode()).hexdigest()
