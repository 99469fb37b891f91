"""What runs came to, as they are brought: kept at once, and the site's own part fitted to each when there is time for it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from client import policy
from client.bounds import check_result
from client.home import LAST, OUTCOME, SiteHome
from client.journal import Approved, Journal, decision
from client.offers import Offers
from rainhill import wire
from rainhill.errors import RefusedError
from rainhill.files import write_whole
from rainhill.messages import Plan, Receipt
from rainhill.offer import Offer

log = logging.getLogger(__name__)

FindOut = Callable[[bytes, Plan], dict[str, Any]]
"""A sealed offer and the plan that follows its last round -> what the run came to here; empty where that cannot be found out."""


def received(home: SiteHome, journal: Journal, offer: Offer, plan: Plan) -> Receipt:
    """Keeps what a run came to. RefusedError where it is not of what was offered, or nobody at the site has approved the run."""
    check_result(plan, offer)
    said = decision(journal.events(), plan.run)
    if not isinstance(said, Approved) or said.offer != offer.sha256:
        raise RefusedError(f"run {plan.run}: has a result, and nobody at {plan.site} has approved it")
    write_whole(home.run(plan.run) / LAST, wire.plan_to_bytes(plan), private=True)
    log.info("run %s: its result is here, adapter %s", plan.run, plan.adapter.fingerprint()[:12])
    return Receipt(run=plan.run, round=plan.round, site=plan.site, adapter=plan.adapter.fingerprint())


@dataclass(frozen=True, kw_only=True)
class Settling:
    home: SiteHome
    """As the daemon found it; what the site's file says is read anew each time."""
    journal: Journal
    find_out: FindOut
    failed: set[Path] = field(default_factory=set)
    """Since the daemon was started: its reason is in the log, and would be the same again."""

    def settle(self) -> None:
        """One run after the other, as far as it has not been done. Nothing of this leaves."""
        for path in sorted(self.home.state.glob(f"runs/*/{LAST}")):
            home = self.home.again()
            closed = home.paused.exists() or policy.opens_in_s(home.config.policy.hours, datetime.now()) > 0
            if closed or path in self.failed or (path.parent / OUTCOME).exists():
                continue
            plan = wire.plan_from_bytes(path.read_bytes())
            if not self.find_out(Offers(home, self.journal).sealed(plan.run), plan):
                self.failed.add(path)
