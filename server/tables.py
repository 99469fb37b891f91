"""What the coordinator keeps in SQL: SQLite by default, PostgreSQL for a consortium. Adapters are files, named by their hash."""

from datetime import UTC, datetime

from sqlalchemy import JSON, DateTime, Dialect, ForeignKey, Index, String, Text, TypeDecorator, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAME = 200
"""Characters of a name."""
_VALID = text("until IS NULL")


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
