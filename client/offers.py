"""What a site was asked to take part in, what people there decided, and so what it may be asked now."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.util import find_spec

import strategies
from client import policy, tasks
from client.chain import Event
from client.data import cohort
from client.home import SiteHome
from client.journal import Approved, Declined, Journal, Left, Offered, decision, envelope, rounds_left
from rainhill.errors import DataError, RainhillError, RefusedError
from rainhill.files import write_whole
from rainhill.offer import Offer, opened_offer
from rainhill.standing import State
from rainhill.text import did_you_mean

DAYS = 30
"""How long an approval holds where nobody says."""


@dataclass(frozen=True, kw_only=True)
class Decided:
    """How the site stands to a run, and why."""

    state: State
    reason: str = ""
    """Without identifiers: the consortium is told."""
    approved: Approved | None = None


@dataclass(frozen=True)
class Offers:
    home: SiteHome
    journal: Journal

    @classmethod
    def open(cls, home: SiteHome) -> "Offers":
        return cls(home, Journal.open(home.state, site=home.config.name))

    def take(self, sealed: bytes) -> Offer:
        """Keeps an offer, once. CredentialError where it is not the consortium's, RefusedError for another one of a known run."""
        offer = opened(self.home, sealed)
        path = self.home.offers / f"{offer.run}.offer"
        if path.exists():
            before = self.offer(offer.run)
            if before.sha256 != offer.sha256:
                raise RefusedError(f"run {offer.run}: was offered as {before.sha256[:12]}, and is offered as {offer.sha256[:12]} now")
            return offer
        if self.home.config.name not in offer.sites:
            raise RefusedError(f"run {offer.run}: asks {', '.join(sorted(offer.sites))}, and this is {self.home.config.name}")
        self.home.offers.mkdir(mode=0o700, parents=True, exist_ok=True)
        privacy = offer.recipe.privacy
        self.journal.append(
            Offered(
                run=offer.run,
                recipe=offer.recipe.sha256,
                offer=offer.sha256,
                consortium=offer.consortium,
                by=offer.by,
                adapter=offer.adapter,
                rounds=offer.recipe.rounds.count,
                epsilon=privacy.epsilon if privacy else None,
                until=offer.until,
            )
        )
        write_whole(path, sealed, private=True)
        return offer

    def sealed(self, run: str) -> bytes:
        """RefusedError where the site was never offered it."""
        path = self.home.offers / f"{run}.offer"
        if run not in self.names():
            raise RefusedError(f"run {run}: was never offered to {self.home.config.name}{did_you_mean(run, self.names())}")
        return path.read_bytes()

    def offer(self, run: str) -> Offer:
        return opened(self.home, self.sealed(run))

    def names(self) -> list[str]:
        return sorted(path.stem for path in self.home.offers.glob("*.offer"))

    def decided(self, offer: Offer, now: datetime, *, number: int = 0) -> Decided:
        """How the site stands to the run's round `number`; 0 before the first.

        What the site's own file does not allow is refused, whatever a person has said; then what a person has said.
        """
        beyond = refusals(self.home, offer)
        if beyond:
            return Decided(state="refused", reason="; ".join(beyond))
        events = self.journal.events()
        said = decision(events, offer.run) or self._by_envelope(events, offer, now)
        if isinstance(said, Declined):
            return Decided(state="refused", reason=said.reason or "the site takes no part")
        if said is None:
            if now > offer.until:
                return Decided(state="refused", reason=f"nobody at the site approved it by {offer.until:%Y-%m-%d %H:%M} UTC")
            return Decided(state="pending", reason="waits for somebody at the site to approve it")
        if now > said.until:
            return Decided(state="pending", reason=f"its approval ended on {said.until:%Y-%m-%d %H:%M} UTC", approved=said)
        # One that left before, and was lost on its way, may leave again.
        again = any(isinstance(event, Left) and (event.run, event.round) == (offer.run, number) for event in events)
        if not again and not rounds_left(events, offer.run):
            return Decided(state="pending", reason=f"was approved for {said.rounds} rounds, which are done", approved=said)
        return Decided(state="approved", approved=said)

    def approve(self, run: str, *, by: str, rounds: int | None = None, days: int = DAYS, repeats: int = 0) -> Approved:
        """By a person, for all rounds where no number is given. RefusedError for what the site's own file does not allow."""
        offer, now = self.offer(run), datetime.now(UTC)
        beyond = refusals(self.home, offer)
        if beyond:
            raise RefusedError(f"run {run}: the site's own file does not allow it: {'; '.join(beyond)}")
        if now > offer.until and decision(self.journal.events(), run) is None:
            raise RefusedError(f"run {run}: could be approved until {offer.until:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M} UTC")
        approved = Approved(
            run=run,
            recipe=offer.recipe.sha256,
            offer=offer.sha256,
            by=by,
            rounds=rounds or offer.recipe.rounds.count,
            until=now + timedelta(days=days),
            repeats=repeats,
            envelope=False,
        )
        self.journal.append(approved)
        return approved

    def decline(self, run: str, *, by: str, reason: str) -> Declined:
        """By a person; it takes an approval back too."""
        offer = self.offer(run)
        declined = Declined(run=run, recipe=offer.recipe.sha256, offer=offer.sha256, by=by, reason=reason)
        self.journal.append(declined)
        return declined

    def _by_envelope(self, events: tuple[Event, ...], offer: Offer, now: datetime) -> Approved | None:
        """What somebody approved beforehand: another run of the very same recipe."""
        before = envelope(events, offer.recipe.sha256, now)
        if before is None:
            return None
        drawn = before.model_copy(update={"run": offer.run, "offer": offer.sha256, "repeats": 0, "envelope": True})
        self.journal.append(drawn)
        return drawn


def opened(home: SiteHome, sealed: bytes) -> Offer:
    """CredentialError where it is not of the consortium that the site belongs to."""
    bundle = home.bundle()
    return opened_offer(sealed, consortium=bundle.consortium, public=bytes.fromhex(bundle.consortium_key))


def refusals(home: SiteHome, offer: Offer) -> list[str]:
    """Why no person may approve this offer: what the site's file forbids, and what the site has not got."""
    recipe = offer.recipe
    found = []
    for look in (partial(strategies.from_recipe, recipe), partial(home.base_of, recipe.base.sha256)):
        try:
            look()
        except RainhillError as error:
            found.append(str(error))
    if find_spec(f"client.models.{recipe.base.model}") is None:
        found.append(f"model {recipe.base.model} is not in the Rainhill that the site has installed")
    try:
        patients = len(training_patients(home, offer))
    except DataError:
        # Its words may tell of patients.
        found.append("the site has no data for it; the site's own log says what is missing")
    except RainhillError as error:
        found.append(str(error))
    else:
        found += policy.refusals(recipe, home.config, patients=patients)
    return found


def training_patients(home: SiteHome, offer: Offer) -> tuple[str, ...]:
    """Their pseudonyms."""
    task = tasks.from_section(offer.recipe.task)
    return cohort.training_patients(home.config, findings=task.findings, base=home.file.parent, key=home.pseudonym_key())
