"""Runs and operators' acts as they are listed: a page of them at a time, and nothing of an offer's bytes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from rainhill.messages import SiteId
from server.database import Database
from server.registry import Event
from server.runs import DELIVERED_WITHIN, Run
from server.tables import EventRow, RoundRow, RunRow, RunState, StandingRow

CHUNK = 50
"""Recipes that are read in one go where an earlier one is looked for."""


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """A run in a list."""

    name: str
    title: str
    """Its recipe's, or the recipe's name."""
    state: RunState
    words: str
    """What it is waiting for, or why it failed or was stopped."""
    made: datetime
    by: str
    until: datetime
    deadline_s: float
    """Of a round."""
    asked: int
    """Rounds."""
    done: int
    moved: datetime
    """When a round was last done; before the first one, when a site last took a stand."""


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """The run before another, of the same recipe name."""

    name: str
    recipe: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Listing:
    database: Database

    def runs(self, *, count: int, skip: int = 0, states: Sequence[RunState] = ()) -> tuple[RunLine, ...]:
        """The newest first; of these states, or of all where none is named."""
        row = RunRow
        wanted = select(row.name, row.recipe, row.state, row.words, row.made, row.by, row.until)
        wanted = wanted.where(row.state.in_(states)) if states else wanted
        with self.database.session() as session:
            found = session.execute(wanted.order_by(row.made.desc(), row.name).offset(skip).limit(count)).all()
            names = [one.name for one in found]
            counts = select(RoundRow.run, func.count().label("done"), func.max(RoundRow.time).label("last"))
            rounds = {row.run: row for row in session.execute(counts.where(RoundRow.run.in_(names)).group_by(RoundRow.run))}
            stands = select(StandingRow.run, func.max(StandingRow.since).label("last"))
            stood = {row.run: row for row in session.execute(stands.where(StandingRow.run.in_(names)).group_by(StandingRow.run))}
        return tuple(_line(one, rounds.get(one.name), stood.get(one.name)) for one in found)

    def states(self) -> dict[RunState, int]:
        """How many runs there are of each state that there is any of."""
        with self.database.session() as session:
            found = session.execute(select(RunRow.state, func.count().label("runs")).group_by(RunRow.state))
            return {row.state: row.runs for row in found}

    def undelivered(self, now: datetime, *, after: timedelta) -> tuple[tuple[str, SiteId], ...]:
        """Runs that have been finished for so long, and not too long, each with a site that has yet to be brought its result."""
        row = StandingRow
        wanted = select(row.run, row.site).join(RunRow, RunRow.name == row.run).order_by(row.run, row.site)
        late = wanted.where(RunRow.state == "finished", RunRow.finished.between(now - DELIVERED_WITHIN, now - after), row.delivered == "")
        with self.database.session() as session:
            return tuple((run, site) for run, site in session.execute(late))

    def stands_of(self, site: SiteId, *, count: int) -> tuple[tuple[str, str, datetime], ...]:
        """Run, stand and since when, of the newest runs that this site is asked in."""
        row = StandingRow
        wanted = select(row.run, row.state, row.since).join(RunRow, RunRow.name == row.run).where(row.site == site)
        with self.database.session() as session:
            return tuple((run, state, since) for run, state, since in session.execute(wanted.order_by(RunRow.made.desc()).limit(count)))

    def earlier(self, run: Run) -> Earlier | None:
        """The newest run before this one whose recipe has the same name."""
        own = json.loads(run.recipe_json)["name"]
        wanted = select(RunRow.name, RunRow.recipe).where(RunRow.made < run.made).order_by(RunRow.made.desc(), RunRow.name)
        # Of canonical JSON; the name may be a task's too, so it is looked at closely below.
        wanted = wanted.where(RunRow.recipe.contains(f'"name":{json.dumps(own, ensure_ascii=False)}', autoescape=True))
        skip = 0
        with self.database.session() as session:
            while found := session.execute(wanted.offset(skip).limit(CHUNK)).all():
                for name, text in found:
                    recipe = json.loads(text)
                    if recipe["name"] == own:
                        return Earlier(name=name, recipe=recipe)
                skip += CHUNK
        return None

    def events(self, *, count: int, skip: int = 0, subject: str | None = None, what: Sequence[str] = ()) -> tuple[Event, ...]:
        """The newest first; of all, or of this subject and these acts alone."""
        wanted = select(EventRow).order_by(EventRow.id.desc()).offset(skip).limit(count)
        wanted = wanted if subject is None else wanted.where(EventRow.subject == subject)
        wanted = wanted.where(EventRow.what.in_(what)) if what else wanted
        with self.database.session() as session:
            return tuple(
                Event(time=row.time, by=row.by, what=row.what, subject=row.subject, detail=row.detail) for row in session.scalars(wanted)
            )


def _line(one: Any, rounds: Any, stood: Any) -> RunLine:
    """Of rows; `rounds` and `stood` are None where there is none."""
    recipe = json.loads(one.recipe)
    later = rounds or stood
    return RunLine(
        name=one.name,
        title=recipe["title"] or recipe["name"],
        state=one.state,
        words=one.words,
        made=one.made,
        by=one.by,
        until=one.until,
        deadline_s=recipe["rounds"]["deadline_s"],
        asked=recipe["rounds"]["count"],
        done=rounds.done if rounds else 0,
        moved=max(one.made, later.last) if later else one.made,
    )
