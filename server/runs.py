"""What the coordinator keeps of its runs: what was offered, how each site stands to it, and the rounds that are done.

`serve`, what conducts runs and every command are processes of their own: each change is one statement that holds only where the run is as
it was thought to be, or comes after the run's own row was locked.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import CursorResult, UpdateBase, case, func, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from rainhill.errors import DatabaseError, RefusedError
from rainhill.messages import RoundRecord, SiteId
from rainhill.offer import Offer
from rainhill.recipe import Recipe
from rainhill.text import did_you_mean, one_line
from rainhill.told import Told
from server.database import Database
from server.events import check_reason, note
from server.registry import site_row
from server.tables import Moment, RoundRow, RunRow, RunState, Stand, StandingRow

__all__ = ["ACTIVE", "Run", "RunState", "Runs", "Stand", "Standing"]

ACTIVE: tuple[RunState, ...] = ("offered", "running")
TAKES_PART: frozenset[Stand] = frozenset({"approved", "waiting"})
"""How a site stands that is asked in a round: it may want time for its answer."""
DELIVERED_WITHIN = timedelta(days=30)
"""For a site that is away to come back for what a run came to."""
LONGEST = 1000
"""Characters that are kept of what a site or an error says."""
_RECORD = TypeAdapter(RoundRecord)


@dataclass(frozen=True, kw_only=True)
class Run:
    name: str
    recipe_json: str
    """Canonical."""
    sha256: str
    """Of the recipe: what sites approve."""
    offer: bytes
    """As `rainhill.offer.opened_offer` reads it."""
    adapter: str
    """Fingerprint of the one that round 1 begins from."""
    made: datetime
    by: str
    until: datetime
    """After this no site can approve it any more."""
    state: RunState
    words: str
    """What it is waiting for, or why it failed or was stopped."""
    result: str | None
    """Fingerprint of the last adapter, of a run that finished."""
    finished: datetime | None

    @property
    def round_count(self) -> int:
        """How many rounds are asked."""
        return int(json.loads(self.recipe_json)["rounds"]["count"])

    @property
    def recipe(self) -> Recipe:
        """RefusedError where this version of Rainhill reads another recipe in it than the sites were shown."""
        try:
            recipe = Recipe.model_validate_json(self.recipe_json)
        except ValidationError as error:
            raise RefusedError(f"run {self.name}: this version of Rainhill cannot read its recipe, {self.sha256[:12]}") from error
        if recipe.sha256 != self.sha256:
            raise RefusedError(
                f"run {self.name}: its recipe has sha256 {recipe.sha256[:12]} in this version of Rainhill, offered was {self.sha256[:12]}"
            )
        return recipe


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a site stands to a run."""

    site: SiteId
    state: Stand
    reason: str
    since: datetime
    """Of the state."""
    delivered: str
    """`RECEIVED` where the site has what the run came to, else why it does not take it; empty while it is yet to be brought."""
    told: Told | None
    """What the run came to there, where the site tells it."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    database: Database

    def offer(self, offer: Offer, sealed: bytes, *, by: str) -> Run:
        """A new run, to which all sites that it asks stand "away". RefusedError where its name is taken, or one of them is not enrolled."""
        recipe, now = offer.recipe, datetime.now(UTC)
        row = {
            "name": offer.run,
            "recipe": recipe.to_json(),
            "sha256": recipe.sha256,
            "offer": sealed,
            "adapter": offer.adapter,
            "made": offer.made,
            "by": offer.by,
            "until": offer.until,
            "state": "offered",
            "words": "",
        }
        with self.database.session() as session:
            for site in offer.sites:
                site_row(session, site)
            insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
            # Of two that are offered at once under one name, one is kept, and the other is told so.
            if session.scalar(insert(RunRow).values(row).on_conflict_do_nothing().returning(RunRow.name)) is None:
                taken = _row(session, offer.run).sha256
                raise RefusedError(f"run {offer.run}: the name is taken by recipe {taken[:12]}, offered is {recipe.sha256[:12]}")
            session.add_all(StandingRow(run=offer.run, site=site, state="away", reason="", since=now) for site in offer.sites)
            note(session, by, "run", offer.run, {"recipe": recipe.sha256}, now)
        return self.run(offer.run)

    def run(self, name: str) -> Run:
        """RefusedError where there is none, with the nearest name."""
        with self.database.session() as session:
            return _run(_row(session, name))

    def runs(self) -> tuple[Run, ...]:
        """All, the newest first."""
        with self.database.session() as session:
            return tuple(_run(row) for row in session.scalars(select(RunRow).order_by(RunRow.made.desc(), RunRow.name)))

    def active(self) -> tuple[Run, ...]:
        """Those that are offered or running, the newest first."""
        return tuple(run for run in self.runs() if run.state in ACTIVE)

    def undelivered(self, now: datetime) -> tuple[Run, ...]:
        """Those that finished not long ago, and whose result has yet to be brought to a site."""
        row = StandingRow
        waiting = select(row.run).where(row.delivered == "")
        wanted = select(RunRow).where(RunRow.state == "finished", RunRow.finished > now - DELIVERED_WITHIN, RunRow.name.in_(waiting))
        with self.database.session() as session:
            return tuple(_run(one) for one in session.scalars(wanted.order_by(RunRow.finished)))

    def deliver(self, run: str, site: SiteId, words: str, told: Told | None = None) -> None:
        """`RECEIVED`, or why the site does not take what the run came to; and what that is there, where the site tells it."""
        row = StandingRow
        with self.database.session() as session:
            change = (
                update(row)
                .where(row.run == run, row.site == site)
                .values(delivered=one_line(words, LONGEST), told=told.model_dump_json() if told else "")
            )
            if _changed(session, change) == 0:
                raise RefusedError(f"run {run}: site {site!r} is not asked")

    def begin(self, name: str, *, by: str = "") -> None:
        """Its rounds begin, because an operator wants it so where one is named. Nothing happens where they have begun.

        RefusedError where fewer sites have approved it than a round wants.
        """
        with self.database.session() as session:
            _lock(session, name)
            run = _run(_row(session, name))
            approved, asked, quorum = _approved(session, run)
            if by and run.state == "offered" and approved < quorum:
                raise RefusedError(f"run {name}: {approved} of {asked} sites have approved it, the quorum is {quorum}")
            _move(session, name, "running", out_of=("offered",), words="", unless="running")
            if by:
                note(session, by, "begin", name, {}, datetime.now(UTC))

    def finish(self, name: str, result: str) -> None:
        """`result` is the fingerprint of the last adapter."""
        with self.database.session() as session:
            _move(session, name, "finished", out_of=("running",), words="", result=result, finished=datetime.now(UTC))

    def fail(self, name: str, words: str) -> None:
        with self.database.session() as session:
            _move(session, name, "failed", out_of=ACTIVE, words=one_line(words, LONGEST))

    def says(self, name: str, words: str) -> None:
        """What it is waiting for. RefusedError where it is not active: then its words are why."""
        line = one_line(words, LONGEST)
        with self.database.session() as session:
            change = update(RunRow).where(RunRow.name == name, RunRow.state.in_(ACTIVE), RunRow.words != line).values(words=line)
            if _changed(session, change) == 0 and (state := _row(session, name).state) not in ACTIVE:
                raise RefusedError(f"run {name}: is {state}, and only one that is {' or '.join(ACTIVE)} waits for anything")

    def stop(self, name: str, *, reason: str, by: str) -> None:
        """No further round of it begins."""
        check_reason(f"run {name}", reason)
        with self.database.session() as session:
            _move(session, name, "stopped", out_of=ACTIVE, words=reason)
            note(session, by, "stop", name, {"reason": reason}, datetime.now(UTC))

    def resume(self, name: str, *, by: str, now: datetime) -> None:
        """A run that was stopped or failed goes on after its last round, or is offered again where it has none.

        RefusedError where it can be approved no more at `now`, and too few sites have approved it for a first round.
        """
        with self.database.session() as session:
            _lock(session, name)
            rounds = session.scalar(select(func.count()).select_from(RoundRow).where(RoundRow.run == name))
            _move(session, name, "running" if rounds else "offered", out_of=("stopped", "failed"), words="")
            if not rounds:
                _refuse_too_late(session, _run(_row(session, name)), now)
            note(session, by, "resume", name, {}, now)

    def stand(self, run: str, site: SiteId, state: Stand, reason: str) -> bool:
        """Whether that is new. `Standing.since` stays while only the reason changes."""
        line, row = one_line(reason, LONGEST), StandingRow
        since = case((row.state == state, row.since), else_=literal(datetime.now(UTC), Moment))
        its_own = (row.run == run, row.site == site)
        with self.database.session() as session:
            known = session.scalars(select(row).where(*its_own)).first()
            if known is None:
                _row(session, run)
                asked = session.scalars(select(row.site).where(row.run == run))
                raise RefusedError(f"run {run}: site {site!r} is not asked{did_you_mean(site, asked)}")
            change = update(row).where(*its_own, or_(row.state != state, row.reason != line))
            return _changed(session, change.values(state=state, reason=line, since=since)) > 0

    def standings(self, run: str) -> dict[SiteId, Standing]:
        """Of all sites that are asked, by name."""
        with self.database.session() as session:
            _row(session, run)
            rows = session.scalars(select(StandingRow).where(StandingRow.run == run).order_by(StandingRow.site))
            return {row.site: _standing(row) for row in rows}

    def record(self, run: str, record: RoundRecord, *, adapter: str) -> None:
        """A round that is done, and the fingerprint of what it ended with; in place of what was recorded of the same round before.

        Of a run in any state: one may be stopped while its round ends.
        """
        # Not `dump_json`, which gives null for a loss that is no number.
        document = json.dumps(_RECORD.dump_python(record, mode="json"), sort_keys=True, separators=(",", ":"))
        with self.database.session() as session:
            _lock(session, run)
            session.merge(RoundRow(run=run, number=record.round, record=document, adapter=adapter, time=datetime.now(UTC)))

    def rounds(self, run: str) -> tuple[RoundRecord, ...]:
        """In their order."""
        with self.database.session() as session:
            return tuple(record_of(row) for row in _rounds(session, run))

    def adapters(self, run: str) -> dict[int, str]:
        """Number of a round -> fingerprint of what it ended with."""
        with self.database.session() as session:
            return {row.number: row.adapter for row in _rounds(session, run)}


def _refuse_too_late(session: Session, run: Run, now: datetime) -> None:
    if now <= run.until:
        return
    approved, asked, quorum = _approved(session, run)
    if approved < quorum:
        raise RefusedError(
            f"run {run.name}: could be approved until {run.until:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M} UTC; {approved} of "
            f"{asked} sites have approved it, the quorum is {quorum}: offer its recipe again under another name"
        )


def _approved(session: Session, run: Run) -> tuple[int, int, int]:
    """How many sites have approved it, how many are asked, and how many updates a round wants."""
    known = session.scalars(select(StandingRow.state).where(StandingRow.run == run.name)).all()
    return sum(state in TAKES_PART for state in known), len(known), int(json.loads(run.recipe_json)["rounds"]["quorum"])


def _standing(row: StandingRow) -> Standing:
    try:
        told = Told.model_validate_json(row.told) if row.told else None
    except ValidationError as error:
        raise DatabaseError(f"run {row.run}: what is kept of its outcome at {row.site} is none") from error
    return Standing(site=row.site, state=row.state, reason=row.reason, since=row.since, delivered=row.delivered, told=told)


def _row(session: Session, name: str) -> RunRow:
    row = session.get(RunRow, name)
    if row is None:
        known = list(session.scalars(select(RunRow.name)))
        raise RefusedError(f"there is no run {name!r}{did_you_mean(name, known)}")
    return row


def _changed(session: Session, change: UpdateBase) -> int:
    """How many rows."""
    result = session.execute(change, execution_options={"synchronize_session": False})
    assert isinstance(result, CursorResult)
    return result.rowcount


def _lock(session: Session, name: str) -> None:
    """Until the session ends, nobody else changes this run. SQLite has no SELECT FOR UPDATE."""
    if _changed(session, update(RunRow).where(RunRow.name == name).values(state=RunRow.state)) == 0:
        _row(session, name)


def _move(
    session: Session, name: str, to: RunState, *, out_of: tuple[RunState, ...], unless: RunState | None = None, **also: object
) -> None:
    change = update(RunRow).where(RunRow.name == name, RunRow.state.in_(out_of)).values(state=to, **also)
    if _changed(session, change) == 0 and (state := _row(session, name).state) != unless:
        raise RefusedError(f"run {name}: is {state}; only one that is {' or '.join(out_of)} becomes {to}")


def _run(row: RunRow) -> Run:
    return Run(
        name=row.name,
        recipe_json=row.recipe,
        sha256=row.sha256,
        offer=row.offer,
        adapter=row.adapter,
        made=row.made,
        by=row.by,
        until=row.until,
        state=row.state,
        words=row.words,
        result=row.result,
        finished=row.finished,
    )


def _rounds(session: Session, run: str) -> list[RoundRow]:
    _row(session, run)
    return list(session.scalars(select(RoundRow).where(RoundRow.run == run).order_by(RoundRow.number)))


def record_of(row: RoundRow) -> RoundRecord:
    """DatabaseError where it is none."""
    try:
        return _RECORD.validate_json(row.record)
    except ValidationError as error:
        raise DatabaseError(f"run {row.run}: what is kept of round {row.number} is no record of a round") from error
