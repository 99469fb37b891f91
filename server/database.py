"""The coordinator's database: opened, brought to the newest form of its tables, and its failures told in one line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from rainhill.errors import DatabaseError

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
WAIT_S = 30
"""For another process that writes."""


class Database:
    """Every `session` is one transaction: all that is done in it stays, or nothing where it is left by an exception."""

    def __init__(self, url: str) -> None:
        """Looks at nothing yet: `Database.open` does."""
        self.url = sa.make_url(url)
        sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {"connect_args": {"timeout": WAIT_S}} if sqlite else {"pool_pre_ping": True}
        try:
            self._engine = sa.create_engine(self.url, **options)
        except (ImportError, sa.exc.ArgumentError) as error:
            raise DatabaseError(f"{self}: {error}") from error
        if sqlite:
            sa.event.listen(self._engine, "connect", _careful)

    @classmethod
    def open(cls, url: str) -> "Database":
        """With its tables as this version of Rainhill has them. Raises DatabaseError."""
        database = cls(url)
        try:
            database._upgrade()
        except DatabaseError:
            database.close()
            raise
        return database

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def session(self) -> Iterator[Session]:
        try:
            with Session(self._engine) as session, session.begin():
                yield session
        except sa.exc.DBAPIError as error:
            raise DatabaseError(f"{self}: {_first_line(error)}") from error

    def close(self) -> None:
        self._engine.dispose()

    def _upgrade(self) -> None:
        newest = max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))
        if self._version() == newest:
            return
        # Now only: each command opens the database, and hardly one finds it old.
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        try:
            with self._engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except CommandError as error:
            raise DatabaseError(f"{self}: its tables are of a version that this one, {newest}, does not know: update Rainhill") from error
        except sa.exc.DBAPIError as error:
            raise DatabaseError(f"{self}: {_first_line(error)}") from error

    def _version(self) -> str | None:
        """That the tables are of, as Alembic keeps it; None where there are none."""
        try:
            with self._engine.connect() as connection:
                found = sa.inspect(connection).has_table("alembic_version")
                return connection.scalar(sa.text("SELECT version_num FROM alembic_version")) if found else None
        except sa.exc.DBAPIError as error:
            raise DatabaseError(f"{self}: {_first_line(error)}") from error


def _careful(connection: Any, record: Any) -> None:  # noqa: ARG001 - SQLAlchemy's signature
    cursor = connection.cursor()
    for pragma in ("foreign_keys = ON", "journal_mode = WAL", "synchronous = FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _first_line(error: sa.exc.DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]
