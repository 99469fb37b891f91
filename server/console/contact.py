"""Whether a site is in contact, as the operator's console tells it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from server.console.watch import Contact
from server.console.words import lasting
from server.registry import Site


@dataclass(frozen=True, kw_only=True)
class Line:
    """Of one site, in words."""

    words: str
    kind: str
    """"good", "bad", or neither where it is empty: colours never carry it alone."""
    since: datetime | None = None
    """Of the last heartbeat of a site that is silent."""
    silent_s: float | None = None


def line_of(site: Site, contact: Contact, now: datetime) -> Line:
    if site.revoked is not None:
        return Line(words="revoked", kind="bad")
    if contact.problem:
        return Line(words="not known", kind="")
    known = contact.sites.get(site.name)
    if known is not None and known.here:
        return Line(words="in contact", kind="good")
    if known is None or known.silent_s is None:
        return Line(words="never in contact", kind="")
    return Line(
        words=f"silent for {lasting(known.silent_s)}", kind="bad", since=now - timedelta(seconds=known.silent_s), silent_s=known.silent_s
    )
