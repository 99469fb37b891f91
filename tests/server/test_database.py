"""The coordinator's database: the same on SQLite and on a real PostgreSQL, upgraded once, and its failures told."""

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from rainhill.errors import DatabaseError
from server.database import Database
from server.tables import Base, EventRow
from tests.server.conftest import Postgres

Opened = Callable[[], Database]


def event(what: str = "enrol", time: datetime | None = None) -> EventRow:
    return EventRow(time=time or datetime.now(UTC), by="ada", what=what, subject="bury", detail={})


def test_the_migrations_make_just_the_tables_that_are_declared(opened: Opened) -> None:
    with opened().session() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        names = set(sa.inspect(session.connection()).get_table_names())
    assert names == {"alembic_version", *Base.metadata.tables}


def test_opening_again_keeps_what_is_there(opened: Opened) -> None:
    with opened().session() as session:
        session.add(event())
    with opened().session() as session:
        assert session.scalars(sa.select(EventRow.what)).all() == ["enrol"]


def test_of_a_transaction_that_fails_nothing_stays(opened: Opened) -> None:
    database = opened()

    def breaks_off() -> None:
        with database.session() as session:
            session.add(event())
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        breaks_off()
    with database.session() as session:
        assert session.scalars(sa.select(EventRow)).all() == []


def test_a_time_comes_back_in_utc_and_one_without_zone_is_refused(opened: Opened) -> None:
    database = opened()
    noon = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    with database.session() as session:
        session.add(event(time=noon))
    with database.session() as session:
        found = session.scalars(sa.select(EventRow.time)).one()
    assert found == noon and found.utcoffset() == timedelta(0)
    with pytest.raises(sa.exc.StatementError, match="has no time zone"), database.session() as session:
        session.add(event(time=datetime(2026, 3, 1, 12)))


def test_many_who_write_at_once_all_do(opened: Opened) -> None:
    database, failed = opened(), []

    def write(number: int) -> None:
        try:
            for _ in range(10):
                with database.session() as session:
                    session.add(event(f"{number}"))
        except DatabaseError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.session() as session:
        assert (failed, session.scalar(sa.select(sa.func.count()).select_from(EventRow))) == ([], 40)


def test_a_database_of_a_later_version_is_not_touched(opened: Opened, database_url: str) -> None:
    with opened().session() as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match=r"its tables are of a version that this one, \d{4}, does not know: update Rainhill"):
        Database.open(database_url)


def test_a_database_that_is_gone_for_a_while_is_told_and_used_again(postgres: Postgres) -> None:
    database = Database.open(postgres.url)
    try:
        with database.session() as session:
            session.add(event("before"))
        postgres.stop()
        with pytest.raises(DatabaseError, match=f"127.0.0.1:{postgres.port}/postgres: connection .*failed"), database.session() as session:
            session.add(event("meanwhile"))
        postgres.start()
        with database.session() as session:
            assert session.scalars(sa.select(EventRow.what)).all() == ["before"]
    finally:
        database.close()


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


def test_on_a_full_disk_nothing_is_half_kept_and_the_file_is_named(tmp_path: Path) -> None:
    """A real full disk: a file system of its own, filled to the last byte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("needs the right to mount a small file system")
    database = Database.open(f"sqlite:///{disk}/rainhill.sqlite")
    filler = disk / "filler"
    try:
        with database.session() as session:
            session.add(event("before"))
        with pytest.raises(OSError, match="No space left"):
            fill(filler)
        words = f"{disk}/rainhill.sqlite: .*(full|I/O error)"
        with pytest.raises(DatabaseError, match=words), database.session() as session:
            session.add_all(event("meanwhile " + "x" * 500) for _ in range(100))
        filler.unlink()
        with database.session() as session:
            assert session.scalars(sa.select(EventRow.what)).all() == ["before"]
            session.add(event("after"))
    finally:
        database.close()
        os.system(f"umount {disk}")


def test_an_error_names_the_database_and_never_its_password(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError) as caught:
        Database.open("postgresql+psycopg://rainhill:hunter2@127.0.0.1:1/rainhill")
    assert "127.0.0.1:1/rainhill" in str(caught.value) and "hunter2" not in str(caught.value)
    with pytest.raises(DatabaseError, match="Can't load plugin"):
        Database("oracel://x")
    with pytest.raises(DatabaseError, match="unable to open database file"):
        Database.open(f"sqlite:///{tmp_path}/no/such/folder/rainhill.sqlite")
