"""What a site's daemon does with what it is asked: whether somebody has approved it, whether it is time, and then the work."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from client import policy
from client.egress import Door
from client.home import SiteHome
from client.offers import Offers
from client.trainer import Trainer
from rainhill.errors import RefusedError
from rainhill.messages import Plan, Refusal, Update, Waiting
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

    def answer(self, plan: Plan) -> Update | Refusal | Waiting:
        """Raises RefusedError for a run that was never offered, and what the door raises."""
        sealed = self.offers.sealed(plan.run)
        offer = self.offers.offer(plan.run)
        if plan.recipe != offer.recipe.sha256:
            raise RefusedError(f"plan is for recipe {plan.recipe[:12]}, offered was {offer.recipe.sha256[:12]}")
        decided = self.offers.decided(offer, datetime.now(UTC), number=plan.round)
        if decided.state == "refused":
            return self.door.refused(_refusal(plan, decided.reason))
        if decided.approved is None or decided.state == "pending":
            return _waiting(plan, decided.reason, RETRY_S)
        if self.home.paused.exists():
            return _waiting(plan, "the site has paused", RETRY_S)
        update: Update | Refusal | None = self.door.kept(plan)
        if update is None:
            closed_s = policy.opens_in_s(self.home.config.policy.hours, datetime.now())
            if closed_s:
                return _waiting(plan, f"trains from {self.home.config.policy.hours.partition('-')[0]}", min(closed_s, LONGEST_S))
            self.door.forget(plan.run, plan.round)
            update = self.trainer.answer(sealed, plan)
        if isinstance(update, Refusal):
            return self.door.refused(update)
        return self.door.let_out(plan, offer, decided.approved, update)


def _refusal(plan: Plan, reason: str) -> Refusal:
    return Refusal(run=plan.run, round=plan.round, site=plan.site, reason=reason)


def _waiting(plan: Plan, reason: str, retry_s: float) -> Waiting:
    log.info("round %d of run %s: %s", plan.round, plan.run, reason)
    return Waiting(run=plan.run, round=plan.round, site=plan.site, reason=reason, retry_s=retry_s)


def desk_of(home: SiteHome, trainer: Trainer) -> Desk:
    offers = Offers.open(home)
    return Desk(home=home, offers=offers, door=Door(home=home, journal=offers.journal), trainer=trainer, signing=home.identity().signing)
