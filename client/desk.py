"""What a site's daemon does with what it is asked: whether somebody has approved it, whether it is time, and then the work."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from client import policy
from client.bounds import refuse_beyond
from client.egress import Door, digest, left
from client.home import SiteHome
from client.journal import Approved, Journal
from client.offers import Offers, masker_of
from client.results import FindOut, Results
from client.secure import MASKED, respond
from rainhill import wire
from rainhill.errors import RainhillError, RefusedError
from rainhill.messages import UNTOLD, Plan, Receipt, Refusal, SecureMessage, Update, Waiting
from rainhill.offer import Offer
from rainhill.standing import LONGEST, Standing, sealed_standing

log = logging.getLogger(__name__)

Train = Callable[[bytes, Plan], Update | Refusal]
"""A sealed offer and a plan of its run -> what training makes of it."""

RETRY_S = 15.0
"""After which a coordinator may ask again, where somebody has yet to decide."""


@dataclass(frozen=True, kw_only=True)
class Desk:
    home: SiteHome
    """As the daemon found it; what the site's file says is read anew each time."""
    journal: Journal
    train: Train
    results: Results
    signing: bytes = field(repr=False)
    """The site's Ed25519 private key."""
    _leaving: threading.Lock = field(default_factory=threading.Lock)

    def stand(self, sealed: bytes, number: int, nonce: bytes) -> bytes:
        """A run is offered, or offered again before round `number`: how the site stands to it, signed."""
        offers = Offers(self.home.again(), self.journal)
        offer = offers.take(sealed)
        decided = offers.settled(offer, datetime.now(UTC), number=number)
        said = Standing(
            site=self.home.config.name,
            run=offer.run,
            offer=offer.sha256,
            state=decided.state,
            reason=decided.reason[:LONGEST],
            nonce=nonce.hex(),
        )
        return sealed_standing(said, self.signing)

    def answer(self, plan: Plan) -> Update | Refusal | Waiting | Receipt:
        """Raises LedgerError where the journal cannot be written: then nothing leaves at all."""
        try:
            return self._answer(plan)
        except RainhillError as error:
            # Its words may be of the site's own files.
            log.warning("round %d of run %s: %s", plan.round, plan.run, error)
        return self._door(self.home).refused(_refusal(plan, UNTOLD))

    def _answer(self, plan: Plan) -> Update | Refusal | Waiting | Receipt:
        home = self.home.again()
        offers, door = Offers(home, self.journal), self._door(home)
        sealed, offer = offers.sealed(plan.run), offers.offer(plan.run)
        try:
            if plan.round == offer.recipe.rounds.count + 1:
                return self.results.received(offer, plan)
            refuse_beyond(plan, offer)
        except RefusedError as error:
            return door.refused(_refusal(plan, str(error)))
        stopped = self._may_go_on(home, offer, plan)
        if not isinstance(stopped, Approved):
            return door.refused(stopped) if isinstance(stopped, Refusal) else stopped
        update: Update | Refusal | None = door.kept(plan)
        if update is None:
            closed_s = policy.opens_in_s(home.config.policy.hours, datetime.now())
            if closed_s:
                return _waiting(plan, f"trains from {home.config.policy.hours.partition('-')[0]}", min(closed_s, policy.LONGEST_S))
            door.forget(plan.run, plan.round)
            update = self.train(sealed, plan)
        if isinstance(update, Refusal):
            return door.refused(update)
        return self._let_out(offer, plan, update)

    def exchange(self, blob: bytes) -> bytes:
        """One of secure aggregation, of a round whose update was let out. Raises RefusedError of any other."""
        home, message = self.home.again(), wire.secure_from_bytes(blob)
        if isinstance(message, Refusal):
            raise RefusedError(f"{message.site}: is sent a refusal, and is no coordinator")
        offers, door = Offers(home, self.journal), self._door(home)
        offer = offers.offer(message.run)
        left(self.journal.events(), message.run, message.round)
        decided = offers.decided(offer, datetime.now(UTC), number=message.round)
        masker = masker_of(home, offer)
        if decided.state != "approved" or masker is None:
            raise RefusedError(f"run {message.run}: {decided.reason or 'masks no updates'}")
        given = respond(blob, masker)
        if message.phase == MASKED and isinstance(wire.secure_from_bytes(given), SecureMessage):
            door.let_out_masked(masker, message, given)
        return given

    def _let_out(self, offer: Offer, plan: Plan, update: Update) -> Update | Refusal | Waiting:
        """A fit may take hours, in which somebody may have taken the approval back, or another plan the last round of it."""
        with self._leaving:
            home = self.home.again()
            door, approved = self._door(home), self._may_go_on(home, offer, plan)
            if isinstance(approved, Refusal):
                return door.refused(approved)
            return door.let_out(plan, offer, approved, update) if isinstance(approved, Approved) else approved

    def _may_go_on(self, home: SiteHome, offer: Offer, plan: Plan) -> Approved | Refusal | Waiting:
        decided = Offers(home, self.journal).settled(offer, datetime.now(UTC), number=plan.round, plan=digest(plan))
        if decided.state == "refused":
            return _refusal(plan, decided.reason)
        if decided.approved is None or decided.state == "pending":
            return _waiting(plan, decided.reason, RETRY_S)
        if home.paused.exists():
            return _waiting(plan, "the site has paused", RETRY_S)
        return decided.approved

    def _door(self, home: SiteHome) -> Door:
        return Door(home=home, journal=self.journal)


def _refusal(plan: Plan, reason: str) -> Refusal:
    return Refusal(run=plan.run, round=plan.round, site=plan.site, reason=reason)


def _waiting(plan: Plan, reason: str, retry_s: float) -> Waiting:
    log.info("round %d of run %s: %s", plan.round, plan.run, reason)
    return Waiting(run=plan.run, round=plan.round, site=plan.site, reason=reason, retry_s=retry_s)


def desk_of(home: SiteHome, train: Train, find_out: FindOut) -> Desk:
    journal = Journal.open(home.state, site=home.config.name)
    results = Results(home=home, journal=journal, find_out=find_out)
    return Desk(home=home, journal=journal, train=train, results=results, signing=home.identity().signing)
