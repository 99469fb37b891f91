"""This machine's clock beside the coordinator's, as its answers show it: in whole seconds."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

CLOCK_S = 4.0
"""Flower takes a site whose clock is up to five seconds ahead."""


def both_clocks(ours: datetime, theirs: datetime) -> str:
    return f"this machine's clock shows {ours:%Y-%m-%d %H:%M:%S} UTC, the coordinator's {theirs.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def shown_by(date: str | None) -> datetime | None:
    """The time of a Date header; None where there is none that can be read."""
    try:
        found = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
