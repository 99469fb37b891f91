"""What operators did, with their names: one row for each act, in the same transaction as the act itself."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy.orm import Session

from rainhill.errors import RefusedError
from rainhill.text import shown
from server.tables import EventRow

LONGEST = 200
"""Characters of a reason, which is shown wherever that which it is of is."""


def note(session: Session, by: str, what: str, subject: str, detail: Mapping[str, str], now: datetime) -> None:
    session.add(EventRow(time=now, by=by, what=what, subject=subject, detail=dict(detail)))


def check_reason(subject: str, reason: str) -> None:
    """Raises RefusedError for what is no line."""
    if not reason.isprintable() or not 0 < len(reason) <= LONGEST:
        raise RefusedError(f"{subject}: a reason is a line of 1 to {LONGEST} characters, not {shown(reason)}")
