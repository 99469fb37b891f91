"""What the coordinator keeps in SQL: SQLite by default, PostgreSQL for a consortium. Adapters are files, named by their hash."""

from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import JSON, DateTime, Dialect, ForeignKey, Index, LargeBinary, String, Text, TypeDecorator, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAME = 200
"""Characters of a name."""
RECEIVED = "received"
DIGEST = 64
"""Characters of a sha256 in hex."""
_VALID = text("until IS NULL")

RunState = Literal["offered", "running", "finished", "failed", "stopped"]
Stand = Literal["away", "pending", "approved", "refused", "waiting"]
"""Of a site to a run: not heard of yet; a person there has to approve it; they did; they, or the site's own file, said no; it will answer
later."""


class Moment(TypeDecorator[datetime]):
    """A time in UTC. SQLite forgets the zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


class Base(DeclarativeBase):
    pass


class SiteRow(Base):
    __tablename__ = "site"

    name: Mapped[str] = mapped_column(String(NAME), primary_key=True)
    title: Mapped[str] = mapped_column(Text)
    software: Mapped[str] = mapped_column(String(NAME))
    protocols: Mapped[list[int]] = mapped_column(JSON)
    enrolled: Mapped[datetime] = mapped_column(Moment)
    revoked: Mapped[datetime | None] = mapped_column(Moment)
    reason: Mapped[str] = mapped_column(Text, default="")
    """Why it was revoked."""


class KeyRow(Base):
    """A pair of public keys that a site has or had. Nothing is deleted, so that it stays known which key was whose."""

    __tablename__ = "site_key"
    __table_args__ = (Index("one_valid_pair_of_a_site", "site", unique=True, sqlite_where=_VALID, postgresql_where=_VALID),)

    id: Mapped[int] = mapped_column(primary_key=True)
    site: Mapped[str] = mapped_column(ForeignKey("site.name"))
    node: Mapped[str] = mapped_column(Text, unique=True)
    """PEM, EC P-384."""
    signing: Mapped[str] = mapped_column(String(64), unique=True)
    """Ed25519, hex."""
    since: Mapped[datetime] = mapped_column(Moment)
    until: Mapped[datetime | None] = mapped_column(Moment)
    """None while it is valid."""


class EventRow(Base):
    """What an operator did, and when."""

    __tablename__ = "event"

    id: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[datetime] = mapped_column(Moment)
    by: Mapped[str] = mapped_column(String(NAME))
    what: Mapped[str] = mapped_column(String(NAME))
    subject: Mapped[str] = mapped_column(String(NAME))
    detail: Mapped[dict[str, str]] = mapped_column(JSON)


class RunRow(Base):
    __tablename__ = "run"

    name: Mapped[str] = mapped_column(String(NAME), primary_key=True)
    recipe: Mapped[str] = mapped_column(Text)
    """Canonical JSON."""
    sha256: Mapped[str] = mapped_column(String(DIGEST))
    """Of the recipe."""
    offer: Mapped[bytes] = mapped_column(LargeBinary)
    """As the consortium signed it."""
    adapter: Mapped[str] = mapped_column(String(DIGEST))
    """Fingerprint of the one that round 1 begins from."""
    made: Mapped[datetime] = mapped_column(Moment)
    by: Mapped[str] = mapped_column(String(NAME))
    until: Mapped[datetime] = mapped_column(Moment)
    state: Mapped[RunState] = mapped_column(String(20))
    words: Mapped[str] = mapped_column(Text)
    """What it is waiting for, or why it failed or was stopped."""
    result: Mapped[str | None] = mapped_column(String(DIGEST))
    """Fingerprint of the last adapter, of a run that finished."""
    finished: Mapped[datetime | None] = mapped_column(Moment)


class StandingRow(Base):
    """How a site that is asked stands to a run."""

    __tablename__ = "standing"

    run: Mapped[str] = mapped_column(ForeignKey("run.name"), primary_key=True)
    site: Mapped[str] = mapped_column(ForeignKey("site.name"), primary_key=True)
    state: Mapped[Stand] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(Text)
    since: Mapped[datetime] = mapped_column(Moment)
    """Of the state."""
    delivered: Mapped[str] = mapped_column(Text, default="")
    """`RECEIVED` where the site has what the run came to, else why it does not take it; empty while it is yet to be brought."""
    told: Mapped[str] = mapped_column(Text, default="")
    """What the run came to there, as JSON of `rainhill.told.Told`; empty where the site does not tell it."""


class RoundRow(Base):
    __tablename__ = "round"

    run: Mapped[str] = mapped_column(ForeignKey("run.name"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    record: Mapped[str] = mapped_column(Text)
    """A RoundRecord as JSON. As text, because a loss may be infinite, and PostgreSQL's JSON knows no such number."""
    adapter: Mapped[str] = mapped_column(String(DIGEST))
    """Fingerprint of the one that it ended with."""
    time: Mapped[datetime] = mapped_column(Moment)
