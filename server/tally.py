"""What the rounds of all runs come to: read from the database once each, since a round that is done changes no more."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from rainhill.messages import RoundRecord, SiteId
from server.database import Database
from server.reasons import Reason, reason_of
from server.runs import record_of
from server.tables import EventRow, RoundRow

AT_ONCE = 500
"""Rounds that are read in one go."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """One round."""

    time: datetime
    """When it was done."""
    seconds: float
    down_bytes: Mapping[SiteId, int]
    up_bytes: Mapping[SiteId, int]
    refused: Mapping[SiteId, Reason]


class Tally:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[tuple[str, int], Done] = {}

    def rounds(self) -> dict[tuple[str, int], Done]:
        """Run and number -> the round, of all that are done, in their order."""
        with self._database.session() as session:
            listed = session.execute(select(RoundRow.run, RoundRow.number, RoundRow.time).order_by(RoundRow.run, RoundRow.number)).all()
        times = {(run, number): time for run, number, time in listed}
        # One that is done again is another.
        known = {key: done for key, done in self._known.items() if times.get(key) == done.time}
        fresh = [key for key in times if key not in known]
        for first in range(0, len(fresh), AT_ONCE):
            known |= self._read(fresh[first : first + AT_ONCE])
        self._known = known
        return {key: known[key] for key in times if key in known}

    def resumed(self) -> dict[str, datetime]:
        """Run -> when an operator last resumed it."""
        what = select(EventRow.subject, func.max(EventRow.id)).where(EventRow.what == "resume").group_by(EventRow.subject)
        with self._database.session() as session:
            last = [number for _, number in session.execute(what)]
            rows = session.scalars(select(EventRow).where(EventRow.id.in_(last)))
            return {row.subject: row.time for row in rows}

    def _read(self, keys: list[tuple[str, int]]) -> dict[tuple[str, int], Done]:
        wanted, runs = set(keys), {run for run, _ in keys}
        numbers = [number for _, number in keys]
        within = RoundRow.run.in_(runs), RoundRow.number.between(min(numbers), max(numbers))
        with self._database.session() as session:
            rows = session.scalars(select(RoundRow).where(*within))
            return {(row.run, row.number): _done(record_of(row), row.time) for row in rows if (row.run, row.number) in wanted}


def _done(record: RoundRecord, time: datetime) -> Done:
    refused = {site: reason_of(words) for site, words in record.refused.items()}
    return Done(time=time, seconds=record.seconds, down_bytes=record.down_bytes, up_bytes=record.up_bytes, refused=refused)


def refusals(rounds: Mapping[tuple[str, int], Done]) -> Counter[tuple[SiteId, Reason]]:
    return Counter(pair for done in rounds.values() for pair in done.refused.items())


def crossed(rounds: Mapping[tuple[str, int], Done]) -> Counter[tuple[SiteId, str]]:
    """Bytes by site and direction, `down` or `up`."""
    found: Counter[tuple[SiteId, str]] = Counter()
    for done in rounds.values():
        for direction, sizes in (("down", done.down_bytes), ("up", done.up_bytes)):
            for site, size in sizes.items():
                found[site, direction] += size
    return found
