"""The rounds of the runs that were looked at last: each is read from the database once, since a round that is done changes no more."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from rainhill.messages import RoundRecord
from server.database import Database
from server.runs import record_of
from server.tables import RoundRow
from server.tally import AT_ONCE

KEPT = 8
"""Runs."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    record: RoundRecord
    adapter: str
    """Fingerprint of what it ended with."""
    time: datetime
    """When it was done."""


class History:
    def __init__(self, database: Database) -> None:
        self._database, self._lock = database, threading.Lock()
        self._known: dict[str, Mapping[int, Kept]] = {}

    def rounds(self, run: str) -> Mapping[int, Kept]:
        """By number, in their order; none of a run that there is not."""
        with self._database.session() as session:
            listed = session.execute(select(RoundRow.number, RoundRow.time).where(RoundRow.run == run).order_by(RoundRow.number))
            times = {row.number: row.time for row in listed}
        with self._lock:
            known = self._known.get(run, {})
        # One that is done again is another.
        found = {number: one for number, one in known.items() if times.get(number) == one.time}
        fresh = [number for number in times if number not in found]
        for first in range(0, len(fresh), AT_ONCE):
            found |= self._read(run, fresh[first : first + AT_ONCE])
        rounds = {number: found[number] for number in times if number in found}
        self._keep(run, rounds)
        return rounds

    def _read(self, run: str, numbers: list[int]) -> dict[int, Kept]:
        wanted = select(RoundRow).where(RoundRow.run == run, RoundRow.number.in_(numbers))
        with self._database.session() as session:
            return {row.number: Kept(record=record_of(row), adapter=row.adapter, time=row.time) for row in session.scalars(wanted)}

    def _keep(self, run: str, rounds: Mapping[int, Kept]) -> None:
        with self._lock:
            self._known.pop(run, None)
            self._known[run] = rounds
            while len(self._known) > KEPT:
                # The one that was looked at longest ago: each is put last when it is.
                del self._known[next(iter(self._known))]
