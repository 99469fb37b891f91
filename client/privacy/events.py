"""What a privacy ledger is made of: frozen events with a JSON form, in the manner of dp_accounting's DpEvent.

A reader that does not know an event's kind or version refuses the ledger, since it could not tell what had been spent.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from client.privacy.accountant import NEIGHBOURS, NOISE_MULTIPLIERS, UNIT, Phase
from rainhill.config import Name, Positive, Section
from rainhill.errors import LedgerError
from rainhill.recipe import Sha256
from rainhill.text import shown

Pseudonym = Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
Delta = Annotated[float, Field(gt=0, lt=1)]
NoiseMultiplier = Annotated[float, Field(gt=0, le=NOISE_MULTIPLIERS[1])]
SampleRate = Annotated[float, Field(gt=0, le=1)]
Words = Annotated[str, Field(min_length=1)]


class Event(Section):
    """Frozen, by keyword only, and checked when it is made as when it is read."""

    model_config = ConfigDict(hide_input_in_errors=True)

    kind: ClassVar[str]
    version: ClassVar[int] = 1

    def body(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps({"version": self.version, **self.model_dump(mode="json")}, sort_keys=True, separators=(",", ":"))


class Opened(Event):
    """The first entry of every ledger: whose it is, and what all of its epsilons are about."""

    kind = "opened"
    site: Name
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


KINDS: Mapping[str, type[Event]] = {event.kind: event for event in (Opened, Joined, Members, Charged, Sent)}


def digest(patients: Iterable[str]) -> str:
    """sha256 of the pseudonyms in order, one per line."""
    return hashlib.sha256("\n".join(sorted(patients)).encode()).hexdigest()


def parse(kind: str, body: str) -> Event:
    """The event with this JSON form. Raises LedgerError where its kind, its version or a value is not known."""
    if kind not in KINDS:
        raise LedgerError(f"kind {shown(kind)!r} is not one of {', '.join(KINDS)}")
    expected = KINDS[kind]
    try:
        values: dict[str, Any] = dict(json.loads(body))
    except (ValueError, TypeError) as error:
        raise LedgerError(f"{kind}: {shown(body)!r} is no JSON object") from error
    version = values.pop("version", None)
    if version != expected.version:
        raise LedgerError(f"{kind}: version {version!r} is not {expected.version}")
    try:
        return expected.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc'])) or kind}: {one['msg']}" for one in error.errors())
        raise LedgerError(f"{kind}: {problems}") from error
