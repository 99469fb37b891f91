"""Conducts one run, from its offer to its last round, in a process of its own: whatever ends it, it goes on where it was.

It ends with code 0 where nothing is left to do: the run is over, was stopped, or cannot go on without somebody's help.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

import strategies
from rainhill import signed
from rainhill.adapter import Adapter
from rainhill.errors import (
    CheckpointError,
    DatabaseError,
    MergeError,
    ProtocolError,
    QuorumError,
    RainhillError,
    RefusedError,
    UnwrittenError,
)
from rainhill.files import held, write_whole
from rainhill.messages import Plan, Receipt, Refusal, RoundRecord, SiteId, Update
from rainhill.offer import Offer, opened_offer
from rainhill.supervise import end_with_parent, stopped_by_signals
from server import checkpoint
from server.checkpoint import Checkpoint
from server.database import Database
from server.flower.link import Link, admit_only, opened_grid
from server.flower.live import Member, collect_live, deliver_live
from server.flower.masked import exchange_live
from server.flower.offering import standings
from server.home import Home
from server.registry import Registry
from server.rounds import Collect, run_rounds
from server.runs import TAKES_PART, Runs
from server.secure import Secure
from server.serve import link_of
from server.tables import RECEIVED

if TYPE_CHECKING:
    from flwr.serverapp import Grid

log = logging.getLogger("server.flower.conduct")
"""By that name also where it is the program."""

ASK_S, APPROVED_S = 5.0, 60.0
"""Between two questions to the sites how they stand to a run that has not begun; and to a site that approved it, begun or not: one that
changes its mind says so to the next plan."""
DELIVER_S, DELIVER_AGAIN_S = 3600.0, 60.0
"""For the sites to come for what the run came to, and before they are waited for anew."""
AGAIN_S = (1.0, 30.0)
"""Before it is tried again after the SuperLink or the database was lost, or a round had too few answers: at first, and at most."""


FAILED = 2
_NEVER = "has not been in contact since the run was offered"


class _Stopped(Exception):  # noqa: N818 - no error
    """The coordinator stops, or the run was stopped."""


@dataclass(frozen=True, kw_only=True)
class Conductor:
    home: Home
    link: Link
    runs: Runs
    registry: Registry
    offer: Offer
    sealed: bytes
    key: bytes
    """The consortium's Ed25519 private key."""
    stop: threading.Event
    approved: dict[SiteId, float] = field(default_factory=dict)
    """time.monotonic() at which a site last said so, where it has not answered a plan with anything but an update since."""

    @classmethod
    def open(cls, home: Home, name: str, stop: threading.Event) -> "Conductor":
        """CredentialError for an offer that this consortium's key has not signed."""
        database, key = Database.open(home.database_url), home.key()
        runs = Runs(database=database)
        sealed = runs.run(name).offer
        offer = opened_offer(sealed, consortium=home.config.name, public=signed.public_key(key))
        return cls(
            home=home,
            link=link_of(home),
            runs=runs,
            registry=Registry(database=database),
            offer=offer,
            sealed=sealed,
            key=key,
            stop=stop,
        )

    def conduct(self) -> None:
        """Until the run is over, or `stop` is set. What can be mended by waiting is waited for, and said in the run's words."""
        pause = AGAIN_S[0]
        while not self.stop.is_set():
            done = self._rounds_done()
            try:
                with opened_grid(self.link, room=self.offer.room) as grid:
                    if self.runs.run(self.offer.run).state != "finished":
                        self._begin(grid)
                        self._finish(self._rounds(grid))
                    self._deliver(grid)
                return
            except _Stopped:
                return
            except (QuorumError, UnwrittenError, DatabaseError, httpx.HTTPError, OSError) as error:
                # After a round that was done, what failed now is no failure in a row.
                pause = pause if self._rounds_done() == done else AGAIN_S[0]
                words = f"the SuperLink does not answer: {error}" if isinstance(error, httpx.HTTPError) else str(error)
                log.warning("run %s: %s; trying again in %.0f s", self.offer.run, words, pause)
                self._says(words)
                self.stop.wait(pause)
                pause = min(2 * pause, AGAIN_S[1])
            except (MergeError, CheckpointError, RefusedError, ProtocolError) as error:
                self._fails(str(error))
                return

    def _fails(self, words: str) -> None:
        log.warning("run %s cannot go on: %s", self.offer.run, words)
        try:
            self.runs.fail(self.offer.run, words)
        except RefusedError as error:
            # An operator was faster, or it is over, and its result cannot be brought: not at once again, when `serve` has it tried anew.
            log.info("%s", error)
            self.stop.wait(DELIVER_AGAIN_S)

    def _says(self, words: str) -> None:
        try:
            self.runs.says(self.offer.run, words)
        except (DatabaseError, RefusedError) as error:
            log.info("run %s: %s", self.offer.run, error)

    def _begin(self, grid: "Grid") -> None:
        """Waits until every site has decided, or the offer's time is over; an operator may begin it before."""
        quorum = max(self.offer.recipe.rounds.quorum, strategies.from_recipe(self.offer.recipe).min_sites())
        while self.runs.run(self.offer.run).state == "offered":
            self._ask(grid, self._members())
            known = self.runs.standings(self.offer.run)
            approved = [site for site, one in known.items() if one.state == "approved"]
            undecided = [site for site, one in known.items() if one.state not in {"approved", "refused"}]
            over = datetime.now(UTC) > self.offer.until
            if len(approved) >= quorum and (over or not undecided):
                self.runs.begin(self.offer.run)
                return
            if over or len(approved) + len(undecided) < quorum:
                raise RefusedError(f"{len(approved)} of {len(known)} sites have approved it, the quorum is {quorum}")
            self._says(f"{len(approved)} of {len(known)} sites have approved it; yet to decide: {', '.join(sorted(undecided))}")
            if self.stop.wait(ASK_S):
                raise _Stopped
        if self.runs.run(self.offer.run).state != "running":
            raise _Stopped

    def _rounds(self, grid: "Grid") -> Checkpoint:
        recipe = self.offer.recipe
        first = Adapter.from_bytes(self.home.adapter_file(self.offer.adapter).read_bytes())
        self._catch_up()

        def on_round(record: RoundRecord) -> None:
            self._record(record)
            self._says(f"round {record.round} of {recipe.rounds.count} is done")

        return run_rounds(
            recipe,
            strategies.from_recipe(recipe),
            first,
            run=self.offer.run,
            sites=sorted(self.offer.sites),
            collect=self._collect(grid),
            secure=self._secure(grid),
            folder=self._folder,
            on_round=on_round,
        )

    def _finish(self, done: Checkpoint) -> None:
        result = done.adapter.fingerprint()
        write_whole(self.home.adapter_file(result), done.adapter.to_bytes())
        took_part = {site for record in done.history for site in record.answered}
        for site, one in self.runs.standings(self.offer.run).items():
            if one.state not in TAKES_PART and site not in took_part:
                self.runs.deliver(self.offer.run, site, "took no part")
        self.runs.finish(self.offer.run, result)
        log.info("run %s is over: adapter %s", self.offer.run, result[:12])

    def _deliver(self, grid: "Grid") -> None:
        """What it came to, to each site that took part or would have, as soon as it is there."""
        while undelivered := self._undelivered():
            members, plans = self._members(), self._last_plans(undelivered)
            for answer in deliver_live(grid, members, plans, key=self.key, deadline_s=DELIVER_S, meanwhile=self._look):
                if isinstance(answer, Receipt):
                    self.runs.deliver(self.offer.run, answer.site, RECEIVED, answer.told)
                elif answer.site not in members:
                    self.runs.deliver(self.offer.run, answer.site, "was revoked")
                else:
                    log.warning("run %s: %s is yet to be brought the result: %s", self.offer.run, answer.site, answer.reason)
            # One that could not take it now may be able to later.
            if self._undelivered() and self.stop.wait(DELIVER_AGAIN_S):
                raise _Stopped

    def _undelivered(self) -> list[SiteId]:
        if all(run.name != self.offer.run for run in self.runs.undelivered(datetime.now(UTC))):
            return []
        known = self.runs.standings(self.offer.run)
        return [site for site, one in known.items() if not one.delivered]

    def _last_plans(self, sites: Iterable[SiteId]) -> dict[SiteId, Plan]:
        recipe = self.offer.recipe
        strategy, done = strategies.from_recipe(recipe), self._latest()
        if done is None:
            raise CheckpointError(f"{self._folder}: holds no checkpoint of run {self.offer.run}, which is over")
        plans = {}
        for site in sites:
            sent = strategy.final(done.adapter, done.state, site)
            rule = strategy.local(sent, done.state, site)
            number = recipe.rounds.count + 1
            plans[site] = Plan(run=self.offer.run, recipe=recipe.sha256, round=number, site=site, adapter=sent, rule=rule)
        return plans

    @property
    def _folder(self) -> Path:
        return self.home.runs / self.offer.run

    def _rounds_done(self) -> int:
        return sum(1 for _ in self._folder.glob("round-*.safetensors"))

    def _latest(self) -> Checkpoint | None:
        return checkpoint.latest(self._folder, recipe=self.offer.recipe.sha256, run=self.offer.run)

    def _catch_up(self) -> None:
        """A round whose checkpoint was written just before an end is not in the database yet."""
        latest = self._latest()
        known = {record.round for record in self.runs.rounds(self.offer.run)}
        for record in latest.history if latest else ():
            if record.round not in known:
                self._record(record)

    def _record(self, record: RoundRecord) -> None:
        adapter = checkpoint.load(checkpoint.path_of(self._folder, record.round)).adapter
        self.runs.record(self.offer.run, record, adapter=adapter.fingerprint())

    def _secure(self, grid: "Grid") -> Secure | None:
        if self.offer.recipe.secure_aggregation is None:
            return None
        # By the keys of the offer, which is what every site was shown of the others.
        pinned = {site: bytes.fromhex(key) for site, key in self.offer.sites.items()}
        return Secure(exchange=exchange_live(grid, self._members, key=self.key), pinned=pinned)

    def _collect(self, grid: "Grid") -> Collect:
        def collect(plans: Mapping[SiteId, Plan]) -> Iterable[Update | Refusal]:
            members = self._members()
            self._ask(grid, members, number=next(iter(plans.values())).round)
            known = self.runs.standings(self.offer.run)
            asked = {site: plan for site, plan in plans.items() if site in members and known[site].state in TAKES_PART}
            for site, plan in plans.items():
                if site not in asked:
                    reason = (known[site].reason or _NEVER) if site in members else "was revoked"
                    yield Refusal(run=plan.run, round=plan.round, site=site, reason=reason)
            deadline_s = self.offer.recipe.rounds.deadline_s
            for answer in collect_live(grid, members, key=self.key, deadline_s=deadline_s, meanwhile=self._look, waits=self._waits)(asked):
                if isinstance(answer, Refusal):
                    self.approved.pop(answer.site, None)
                elif answer.site not in self.approved:
                    # It had asked for time, and waits for nothing more.
                    self.approved[answer.site] = time.monotonic()
                    self.runs.stand(self.offer.run, answer.site, "approved", "")
                yield answer

        return collect

    def _ask(self, grid: "Grid", members: Mapping[SiteId, Member], *, number: int = 0) -> None:
        """Those in contact, how they stand; of the others what they last said still holds."""
        due = {site: one for site, one in members.items() if time.monotonic() >= self.approved.get(site, -APPROVED_S) + APPROVED_S}
        for site, said in standings(grid, due, self.sealed, self.offer, number=number).items() if due else ():
            self.approved.pop(site, None)
            if isinstance(said, str):
                log.warning("run %s: %s: %s", self.offer.run, site, said)
                continue
            if said.state == "approved":
                self.approved[site] = time.monotonic()
            if self.runs.stand(self.offer.run, site, said.state, said.reason):
                log.info("run %s: %s: %s %s", self.offer.run, site, said.state, said.reason)

    def _members(self) -> dict[SiteId, Member]:
        """The sites of the offer that still belong to the consortium, by the keys that they have now."""
        active = self.registry.active()
        nodes = admit_only(self.link, {name: site.node_key.encode() for name, site in active.items()})
        asked = {name: active[name] for name in self.offer.sites if name in active}
        return {name: Member(node=nodes[name], signing_key=site.signing_key, protocols=site.protocols) for name, site in asked.items()}

    def _waits(self, site: SiteId, reason: str) -> None:
        self.approved.pop(site, None)
        if self.runs.stand(self.offer.run, site, "waiting", reason):
            log.info("run %s: %s: waiting %s", self.offer.run, site, reason)

    def _look(self) -> None:
        if self.stop.is_set():
            raise _Stopped


def main(about: str) -> None:
    from rainhill import logs

    said = json.loads(about)
    logs.to_stderr(as_json=bool(said["json_logs"]))
    end_with_parent(int(said["parent"]))
    home, name, stop = Home.open(Path(said["home"])), str(said["run"]), stopped_by_signals()
    try:
        with held(home.runs / name / "conduct.lock", f"the conductor of {name}"):
            logs.quieten()
            Conductor.open(home, name, stop).conduct()
    except (RainhillError, OSError) as error:
        # The database may be gone, or the disk full: `serve` begins it again.
        log.error("run %s: %s", name, error)  # noqa: TRY400 - a line, and no trace of what is not this program's
        sys.exit(FAILED)


if __name__ == "__main__":
    main(sys.argv[1])
