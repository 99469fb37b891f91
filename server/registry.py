"""Which sites belong to the consortium, by which keys, and which operator saw to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from rainhill.enrolment import SiteRequest
from rainhill.errors import RefusedError
from rainhill.messages import SiteId
from rainhill.signed import fingerprint
from rainhill.text import did_you_mean
from server.database import Database
from server.events import check_reason, note
from server.tables import EventRow, KeyRow, SiteRow


@dataclass(frozen=True, kw_only=True)
class Site:
    name: SiteId
    title: str
    software: str
    protocols: tuple[int, ...]
    """Versions of the wire that it speaks."""
    enrolled: datetime
    since: datetime
    """Of its present keys."""
    node_key: str
    """PEM, EC P-384: SuperNode authentication."""
    signing_key: bytes
    """Ed25519."""
    revoked: datetime | None
    reason: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.signing_key)


@dataclass(frozen=True, kw_only=True)
class Event:
    """What an operator did."""

    time: datetime
    by: str
    what: str
    subject: str
    detail: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Registry:
    database: Database

    def enrol(self, request: SiteRequest, *, by: str) -> Site:
        """A new site. RefusedError where the name is taken, by whoever, or a key is known already: keys change by `rotate`."""
        now = datetime.now(UTC)
        with self.database.session() as session:
            if session.get(SiteRow, request.name) is not None:
                raise RefusedError(f"{request.name}: is enrolled already; new keys of the same hospital are taken by `rotate`")
            _refuse_known(session, request)
            session.add(
                SiteRow(
                    name=request.name,
                    title=request.title,
                    software=request.software,
                    protocols=list(request.protocols),
                    enrolled=now,
                    revoked=None,
                    reason="",
                )
            )
            session.flush()
            _add_keys(session, request, now)
            note(session, by, "enrol", request.name, {"signing_key": request.signing_key}, now)
        return self.site(request.name)

    def rotate(self, request: SiteRequest, *, by: str) -> Site:
        """New keys of a site that is enrolled; those before are valid no more. A site that was revoked is taken in again so."""
        now = datetime.now(UTC)
        with self.database.session() as session:
            row = site_row(session, request.name)
            _refuse_known(session, request)
            _retire(session, request.name, now)
            row.title, row.software, row.protocols = request.title, request.software, list(request.protocols)
            row.revoked, row.reason = None, ""
            _add_keys(session, request, now)
            note(session, by, "rotate", request.name, {"signing_key": request.signing_key}, now)
        return self.site(request.name)

    def revoke(self, name: SiteId, *, reason: str, by: str) -> Site:
        """From now on nothing of this site is taken. Nobody else's keys change. RefusedError where it was revoked before."""
        check_reason(name, reason)
        now = datetime.now(UTC)
        with self.database.session() as session:
            row = site_row(session, name)
            if row.revoked is not None:
                raise RefusedError(f"{name}: was revoked on {row.revoked:%Y-%m-%d %H:%M} UTC ({row.reason})")
            row.revoked, row.reason = now, reason
            note(session, by, "revoke", name, {"reason": reason}, now)
        return self.site(name)

    def site(self, name: SiteId) -> Site:
        """RefusedError where there is none, with the nearest name."""
        with self.database.session() as session:
            return _site(site_row(session, name), _last_keys(session, name))

    def sites(self) -> tuple[Site, ...]:
        """All, by name; those that were revoked too."""
        with self.database.session() as session:
            return tuple(_site(row, _last_keys(session, row.name)) for row in session.scalars(select(SiteRow).order_by(SiteRow.name)))

    def active(self) -> dict[SiteId, Site]:
        return {site.name: site for site in self.sites() if site.revoked is None}

    def events(self) -> tuple[Event, ...]:
        """In the order in which they happened."""
        with self.database.session() as session:
            rows = session.scalars(select(EventRow).order_by(EventRow.id))
            return tuple(Event(time=row.time, by=row.by, what=row.what, subject=row.subject, detail=row.detail) for row in rows)

    def note(self, what: str, subject: str, *, by: str, detail: Mapping[str, str] | None = None) -> None:
        with self.database.session() as session:
            note(session, by, what, subject, detail or {}, datetime.now(UTC))


def site_row(session: Session, name: SiteId) -> SiteRow:
    """RefusedError where there is none, with the nearest name."""
    row = session.get(SiteRow, name)
    if row is None:
        known = list(session.scalars(select(SiteRow.name)))
        raise RefusedError(f"no site {name!r} is enrolled{did_you_mean(name, known)}")
    return row


def _last_keys(session: Session, name: SiteId) -> KeyRow:
    return session.scalars(select(KeyRow).where(KeyRow.site == name).order_by(KeyRow.id.desc()).limit(1)).one()


def _site(row: SiteRow, keys: KeyRow) -> Site:
    return Site(
        name=row.name,
        title=row.title,
        software=row.software,
        protocols=tuple(row.protocols),
        enrolled=row.enrolled,
        since=keys.since,
        node_key=keys.node,
        signing_key=bytes.fromhex(keys.signing),
        revoked=row.revoked,
        reason=row.reason,
    )


def _refuse_known(session: Session, request: SiteRequest) -> None:
    """A key stands for one site for good, or what it signed could be another's."""
    known = session.scalars(select(KeyRow).where((KeyRow.node == request.node_key) | (KeyRow.signing == request.signing_key))).first()
    if known is not None:
        raise RefusedError(f"{request.name}: one of its keys is known already, as one of {known.site} since {known.since:%Y-%m-%d}")


def _retire(session: Session, name: SiteId, now: datetime) -> None:
    for keys in session.scalars(select(KeyRow).where(KeyRow.site == name, KeyRow.until.is_(None))):
        keys.until = now
    session.flush()


def _add_keys(session: Session, request: SiteRequest, now: datetime) -> None:
    session.add(KeyRow(site=request.name, node=request.node_key, signing=request.signing_key, since=now, until=None))
