"""What a site's daemon does with what it is asked: whether somebody has approved it, whether it is time, and then the work."""

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from client import policy
from client.egress import Door
from client.home import LAST, OUTCOME, SiteHome
from client.journal import Approved, decision
from client.offers import Offers
from client.trainer import Trainer
from rainhill import wire
from rainhill.errors import RefusedError
from rainhill.files import write_whole
from rainhill.messages import Plan, Receipt, Refusal, Update, Waiting
from rainhill.standing import LONGEST, Standing, sealed_standing

log = logging.getLogger(__name__)

RETRY_S = 15.0
"""After which a coordinator may ask again, where somebody has yet to decide."""
LONGEST_S = 900.0
"""The same, where it is not the site's hours: they may be changed meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Desk:
    home: SiteHome
    offers: Offers
    door: Door
    trainer: Trainer
    signing: bytes
    """The site's Ed25519 private key."""
    unsettled: set[Path] = field(default_factory=set)
    """What could not be settled since the daemon was started."""

    def stand(self, sealed: bytes, number: int, nonce: bytes) -> bytes:
        """A run is offered, or offered again before round `number`: how the site stands to it, signed."""
        offer = self.offers.take(sealed)
        decided = self.offers.decided(offer, datetime.now(UTC), number=number)
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
        """Raises RefusedError for a run that was never offered, and what the door raises."""
        sealed = self.offers.sealed(plan.run)
        offer = self.offers.offer(plan.run)
        if plan.recipe != offer.recipe.sha256:
            raise RefusedError(f"plan is for recipe {plan.recipe[:12]}, offered was {offer.recipe.sha256[:12]}")
        if plan.round == offer.recipe.rounds.count + 1:
            return self._received(plan)
        decided = self.offers.decided(offer, datetime.now(UTC), number=plan.round)
        if decided.state == "refused":
            return self.door.refused(_refusal(plan, decided.reason))
        if decided.approved is None or decided.state == "pending":
            return _waiting(plan, decided.reason, RETRY_S)
        if self.home.paused.exists():
            return _waiting(plan, "the site has paused", RETRY_S)
        update: Update | Refusal | None = self.door.kept(plan)
        if update is None:
            closed_s = policy.opens_in_s(self.home.config.policy.hours, _own_time())
            if closed_s:
                return _waiting(plan, f"trains from {self.home.config.policy.hours.partition('-')[0]}", min(closed_s, LONGEST_S))
            self.door.forget(plan.run, plan.round)
            update = self.trainer.answer(sealed, plan)
        if isinstance(update, Refusal):
            return self.door.refused(update)
        return self.door.let_out(plan, offer, decided.approved, update)

    def settle(self) -> None:
        """Fits the site's own part to what runs came to, one after the other, as far as that has not been done."""
        for path in sorted(self.home.state.glob(f"runs/*/{LAST}")):
            closed = self.home.paused.exists() or policy.opens_in_s(self.home.config.policy.hours, _own_time()) > 0
            if closed or path in self.unsettled or (path.parent / OUTCOME).exists():
                continue
            plan = wire.plan_from_bytes(path.read_bytes())
            if not self.trainer.outcome(self.offers.sealed(plan.run), plan):
                # Its reason is in the log, and would be the same again.
                self.unsettled.add(path)

    def _received(self, plan: Plan) -> Receipt:
        """What the run came to; the site's own part is fitted to it when there is time, and nothing of that leaves.

        RefusedError where nobody has approved the run.
        """
        if not isinstance(decision(self.offers.journal.events(), plan.run), Approved):
            raise RefusedError(f"run {plan.run}: has a result, and nobody at {plan.site} has approved it")
        write_whole(self.home.run(plan.run) / LAST, wire.plan_to_bytes(plan), private=True)
        log.info("run %s: its result is here, adapter %s", plan.run, plan.adapter.fingerprint()[:12])
        return Receipt(run=plan.run, round=plan.round, site=plan.site, adapter=plan.adapter.fingerprint())


def _own_time() -> datetime:
    return datetime.now()


def _refusal(plan: Plan, reason: str) -> Refusal:
    return Refusal(run=plan.run, round=plan.round, site=plan.site, reason=reason)


def _waiting(plan: Plan, reason: str, retry_s: float) -> Waiting:
    log.info("round %d of run %s: %s", plan.round, plan.run, reason)
    return Waiting(run=plan.run, round=plan.round, site=plan.site, reason=reason, retry_s=retry_s)


def desk_of(home: SiteHome, trainer: Trainer) -> Desk:
    offers = Offers.open(home)
    return Desk(home=home, offers=offers, door=Door(home=home, journal=offers.journal), trainer=trainer, signing=home.identity().signing)
