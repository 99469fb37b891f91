"""What runs came to, as they are brought: kept at once, and the site's own part fitted to each when there is time for it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from client import policy
from client.bounds import check_result
from client.egress import Door
from client.home import LAST, OUTCOME, SiteHome, outcomes
from client.journal import Approved, Journal, decision
from client.offers import Offers
from rainhill import wire
from rainhill.errors import RefusedError
from rainhill.files import write_whole
from rainhill.messages import Plan, Receipt, Waiting
from rainhill.offer import Offer

log = logging.getLogger(__name__)

RETRY_S = 30.0
"""After which a coordinator may ask again for what a run came to."""
FindOut = Callable[[bytes, Plan], dict[str, Any]]
"""A sealed offer and the plan that follows its last round -> what the run came to here; empty where that cannot be found out."""


@dataclass(frozen=True, kw_only=True)
class Results:
    home: SiteHome
    """As the daemon found it; what the site's file says is read anew each time."""
    journal: Journal
    find_out: FindOut
    failed: set[Path] = field(default_factory=set)
    """Since the daemon was started: its reason is in the log, and would be the same again."""

    def received(self, offer: Offer, plan: Plan) -> Receipt | Waiting:
        """Keeps what a run came to. RefusedError where it is not of what was offered, or nobody at the site has approved the run.

        A site that tells what a run came to there asks for time until that is measured.
        """
        check_result(plan, offer)
        said = decision(self.journal.events(), plan.run)
        if not isinstance(said, Approved) or said.offer != offer.sha256:
            raise RefusedError(f"run {plan.run}: has a result, and nobody at {plan.site} has approved it")
        home, path = self.home.again(), self.home.run(plan.run) / LAST
        adapter = plan.adapter.fingerprint()
        blob = wire.plan_to_bytes(plan)
        # One that asked for time is brought it again.
        if not path.exists() or path.read_bytes() != blob:
            write_whole(path, blob, private=True)
            log.info("run %s: its result is here, adapter %s", plan.run, adapter[:12])
        told = None
        if home.config.policy.tell_outcome and path not in self.failed:
            outcome = outcomes(home).get(plan.run)
            if outcome is None:
                reason, retry_s = "measures what the run came to", RETRY_S
                if _closed(home):
                    # Each time it is asked it is brought the whole adapter.
                    reason, retry_s = f"{reason} when it may train", policy.LONGEST_S
                return Waiting(run=plan.run, round=plan.round, site=plan.site, reason=reason, retry_s=retry_s)
            told = Door(home=home, journal=self.journal).let_out_outcome(offer, outcome)
        return Receipt(run=plan.run, round=plan.round, site=plan.site, adapter=adapter, told=told)

    def settle(self) -> None:
        """One run after the other, as far as it has not been done. Nothing leaves by this."""
        for path in sorted(self.home.state.glob(f"runs/*/{LAST}")):
            home = self.home.again()
            if _closed(home) or path in self.failed or (path.parent / OUTCOME).exists():
                continue
            plan = wire.plan_from_bytes(path.read_bytes())
            if not self.find_out(Offers(home, self.journal).sealed(plan.run), plan):
                self.failed.add(path)


def _closed(home: SiteHome) -> bool:
    return home.paused.exists() or policy.opens_in_s(home.config.policy.hours, datetime.now()) > 0
