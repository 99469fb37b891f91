import os
import random
import shutil
import signal
import sqlite3
import stat
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import book as book_module
from client.book import Book
from client.chain import START, Event, Opened, checked, following, kinds_of, parse
from rainhill.errors import LedgerError

COLUMNS = ("seq", "time", "kind", "body", "hash")


class Noted(Event):
    kind = "noted"
    number: int
    more: str = ""


class Diary(Book):
    stem = "diary"
    first = Opened
    kinds = kinds_of(Opened, Noted)
    traces = ("letters", "photos")
    lost = "is gone, though {traces} that it tells of are there"


def note(number, more="what is told of a round at such length as a charge is, in about two hundred characters, so that a disk fills " * 2):
    return Noted(number=number, more=more)


@pytest.fixture
def book(tmp_path):
    found = Diary.open(tmp_path / "state", site="aintree")
    found.append(*(note(number) for number in range(5)))
    return found


def forged(book, statement, *values):
    """Who can write the file can take away the triggers first."""
    connection = sqlite3.connect(book.path)
    for name in ("no_update", "no_delete", "no_replace"):
        connection.execute(f"DROP TRIGGER IF EXISTS {name}")
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def test_a_new_book_says_whose_it_is(tmp_path):
    book = Diary.open(tmp_path / "a" / "state", site="aintree")
    assert book.events() == (Opened(site="aintree"),)
    assert book.verify() == 1
    assert stat.S_IMODE(book.path.stat().st_mode) == 0o600


def test_what_was_appended_is_read_back_in_order(book):
    added = book.append(note(5), note(6))
    assert [entry.seq for entry in added] == [7, 8]
    again = Diary.open(book.path.parent, site="aintree")
    assert again.entries()[-2:] == added
    assert [event.number for event in again.events()[1:]] == [0, 1, 2, 3, 4, 5, 6]
    assert all(entry.time.endswith("+00:00") for entry in again.entries())


def test_another_sites_book_is_refused_by_name(book):
    with pytest.raises(LedgerError, match="is the diary of 'aintree', not of 'broadgreen'"):
        Diary.open(book.path.parent, site="broadgreen")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = '{}' WHERE seq = 2",
        "DELETE FROM entries WHERE seq = 6",
        "INSERT OR REPLACE INTO entries SELECT seq, time, kind, '{}', hash FROM entries WHERE seq = 2",
    ],
)
def test_sqlite_itself_aborts_a_change(book, statement):
    connection = sqlite3.connect(book.path)
    with pytest.raises(sqlite3.IntegrityError, match="an entry is written once"):
        connection.execute(statement)
    connection.close()
    assert book.verify() == 6


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("seq", range(1, 7))
def test_any_changed_field_of_any_entry_is_found(book, column, seq):
    value = book.entries()[seq - 1].__dict__[column]
    places = [0] if column == "seq" else sorted({0, len(value) // 2, len(value) - 1})
    whole = book.path.read_bytes()
    for place in places:
        changed = value + 100 if column == "seq" else value[:place] + chr(ord(value[place]) ^ 1) + value[place + 1 :]
        forged(book, f"UPDATE entries SET {column} = ? WHERE seq = ?", changed, seq)
        with pytest.raises(LedgerError, match=rf"diary.sqlite: entry ({seq}|{seq} is missing).*[0-9a-f]{{60}}|diary.head knows entry 6"):
            book.verify()
        book.path.write_bytes(whole)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A book, and the bytes of its file."""
    found = Diary.open(tmp_path_factory.mktemp("written"), site="aintree")
    found.append(*(note(number, f"of {number}") for number in range(5)))
    return found, found.path.read_bytes()


@given(seq=st.integers(1, 6), place=st.integers(0), flip=st.integers(1, 255))
def test_any_changed_byte_of_an_entrys_text_in_the_file_is_found(written, seq, place, flip):
    book, whole = written
    book.path.write_bytes(whole)
    entry = book.entries()[seq - 1]
    text = f"{entry.time}{entry.kind}{entry.body}{entry.hash}".encode()
    at = whole.index(text) + place % len(text)
    book.path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
    with pytest.raises(LedgerError, match=f"entry {seq} was changed: its hash is .*[0-9a-f]{{64}}'"):
        book.verify()


@given(st.lists(st.text(), max_size=8), st.data())
def test_of_entries_in_a_chain_no_order_but_their_own_holds(texts, data):
    entries, last = [], START
    for text in texts:
        entries.append(following(last, note(1, text)))
        last = entries[-1].head
    for order in (entries, data.draw(st.permutations(entries))):
        last, holds = START, True
        try:
            for entry in order:
                last = checked(last, entry)
        except LedgerError:
            holds = False
        assert holds == (list(order) == entries)


@given(number=st.integers(), more=st.text())
def test_an_event_is_read_back_as_it_was(number, more):
    event = Noted(number=number, more=more)
    assert parse("noted", event.body(), Diary.kinds) == event


def test_a_hole_is_found(book):
    forged(book, "DELETE FROM entries WHERE seq = 3")
    with pytest.raises(LedgerError, match="entry 3 is missing: entry 4 with hash"):
        Diary.open(book.path.parent, site="aintree")


def test_a_truncated_tail_is_found(book):
    last = book.entries()[-1]
    forged(book, "DELETE FROM entries WHERE seq > 4")
    with pytest.raises(LedgerError, match=f"diary.head knows entry 6 with hash {last.hash}, but there is entry 4 with hash"):
        book.verify()


def test_a_book_put_back_to_what_it_was_is_found_when_opened_and_when_written(book):
    kept = book.path.with_name("kept")
    shutil.copy(book.path, kept)
    book.append(note(5))
    shutil.copy(kept, book.path)
    for act in (book.verify, lambda: book.append(note(6)), lambda: Diary.open(book.path.parent, site="aintree")):
        with pytest.raises(
            LedgerError, match="knows entry 7 .* but there is entry 6 .*: entries are gone, or another diary was put in its"
        ):
            act()


def test_another_history_of_the_same_length_is_found(book, tmp_path):
    other = Diary.open(tmp_path / "other", site="aintree")
    other.append(*(note(number) for number in range(20, 25)))
    shutil.copy(other.path, book.path)
    with pytest.raises(LedgerError, match="diary.head knows entry 6 with hash"):
        book.verify()


def test_a_book_that_is_gone_is_not_begun_anew(book):
    book.path.unlink()
    with pytest.raises(LedgerError, match="diary.head knows entry 6 with hash .* but there is entry 0"):
        Diary.open(book.path.parent, site="aintree")
    assert not book.path.exists()


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff"])
def test_without_its_head_a_book_is_not_believed(book, content):
    if content is None:
        book.head.unlink()
    else:
        book.head.write_bytes(content)
    with pytest.raises(LedgerError, match="diary.head: .* so it cannot be told whether entries are gone"):
        Diary.open(book.path.parent, site="aintree")


def test_a_crash_before_the_head_was_written_loses_nothing(book):
    before = book.head.read_bytes()
    book.append(note(5))
    book.head.write_bytes(before)
    again = Diary.open(book.path.parent, site="aintree")
    assert again.verify() == 7
    again.append(note(6))
    assert again.head.read_bytes() != before


def test_a_crash_while_a_book_is_begun_is_made_good(tmp_path):
    (tmp_path / "diary.sqlite").touch()
    assert Diary.open(tmp_path, site="aintree").verify() == 1


@pytest.mark.parametrize("content", [b"not a database, " * 400, b""])
def test_a_file_that_is_no_book_is_told(book, content):
    book.path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"diary.sqlite: (cannot be read|entry 1 cannot be read): (file is not a database|no such table)"):
        book.verify()


def test_a_body_that_is_not_text_is_told(book):
    forged(book, "UPDATE entries SET body = CAST(x'ff00' AS TEXT) WHERE seq = 3")
    with pytest.raises(LedgerError, match="entry 3 was changed"):
        book.verify()


def test_a_book_of_a_later_rainhill_is_refused(book):
    class Refunded(Opened):
        kind = "refunded"

    book.append(Refunded(site="aintree"))
    assert book.verify() == 7
    with pytest.raises(LedgerError, match="entry 7: kind 'refunded' is not one of"):
        book.events()


def test_a_book_held_by_another_process_is_told_and_nothing_is_lost(book, monkeypatch):
    monkeypatch.setattr(book_module, "WAIT_S", 0.05)
    other = sqlite3.connect(book.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="diary.sqlite: cannot be written: database is locked"):
        book.append(note(5))
    other.execute("ROLLBACK")
    other.close()
    assert book.verify() == 6


def fill(path):
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, small enough to be filled to the last byte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=256k tmpfs {folder} 2>/dev/null") != 0:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    os.system(f"umount {folder}")


def test_a_full_disk_is_told_and_nothing_is_lost(disk):
    book = Diary.open(disk / "state", site="aintree")
    book.append(note(1))
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        fill(filler)
    with pytest.raises(LedgerError, match=r"diary.(sqlite|head): .*(full|No space left|I/O error)"):
        book.append(*(note(number) for number in range(2, 300)))
    filler.unlink()
    assert Diary.open(disk / "state", site="aintree").verify() in (2, 300)
    book.append(note(300))


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_where_nothing_can_be_written_a_book_is_read_and_nothing_is_left_beside_it(disk, how):
    book = Diary.open(disk / "state", site="aintree")
    book.append(note(1))
    before = sorted(path.name for path in book.path.parent.iterdir())
    if how == "full":
        with pytest.raises(OSError, match="No space left"):
            fill(disk / "filler")
    else:
        assert os.system(f"mount -o remount,ro {disk}") == 0
    assert Diary.open(disk / "state", site="aintree").verify() == 2
    assert sorted(path.name for path in book.path.parent.iterdir()) == before == ["diary.head", "diary.lock", "diary.sqlite"]
    # What another process is about to merge is not passed over.
    if how == "full":
        (book.path.with_name("diary.sqlite-wal")).touch()
        with pytest.raises(LedgerError, match="its newest entries are in diary.sqlite-wal"):
            book.verify()


def test_a_book_and_its_head_are_for_their_owner_alone(tmp_path):
    book = Diary.open(tmp_path / "state", site="aintree")
    book.append(note(1))
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in (book.path, book.head, book.path.parent)} == {
        "diary.sqlite": "0o600",
        "diary.head": "0o600",
        "state": "0o700",
    }


@pytest.mark.parametrize("traces", [("letters",), ("letters", "photos")])
@pytest.mark.parametrize("look", [Diary.open, Diary.existing])
def test_a_book_that_is_gone_is_not_begun_anew_where_what_it_tells_of_is_there(tmp_path, traces, look):
    book = Diary.open(tmp_path, site="aintree")
    for trace in traces:
        (tmp_path / trace).mkdir()
    assert look(tmp_path, site="aintree").verify() == 1
    book.path.unlink()
    book.head.unlink()
    with pytest.raises(LedgerError, match=f"diary.sqlite: is gone, though {' and '.join(traces)} that it tells of are there"):
        look(tmp_path, site="aintree")
    assert not book.path.exists()


def test_to_look_for_a_book_does_not_make_one(tmp_path):
    assert Diary.existing(tmp_path / "state", site="aintree") is None
    assert not (tmp_path / "state").exists()
    book = Diary.open(tmp_path / "state", site="aintree")
    assert Diary.existing(tmp_path / "state", site="aintree").entries() == book.entries()
    book.path.unlink()
    with pytest.raises(LedgerError, match="diary.head knows entry 1 with hash .* but there is entry 0"):
        Diary.existing(tmp_path / "state", site="aintree")


def test_two_kinds_of_book_lie_side_by_side(book):
    class Almanac(Diary):
        stem = "almanac"

    other = Almanac.open(book.path.parent, site="aintree")
    other.append(note(9))
    assert (other.verify(), book.verify()) == (2, 6)
    assert {path.name for path in book.path.parent.iterdir()} == {
        f"{stem}.{end}" for stem in ("almanac", "diary") for end in ("head", "lock", "sqlite")
    }


@pytest.mark.parametrize("head", ['{"seq": 0, "hash": ""}', '{"seq": -1, "hash": "x"}'])
def test_a_head_that_no_book_has_is_refused(tmp_path, head):
    book = Diary.open(tmp_path, site="aintree")
    book.append(note(1))
    book.head.write_text(head)
    with pytest.raises(LedgerError, match="which no diary has"):
        Diary.open(tmp_path, site="aintree")


def in_a_child(act):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return child


def test_after_a_kill_everything_that_had_been_appended_is_there(tmp_path):
    moments = random.Random(0)
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        reading, writing = os.pipe()

        def append_for_ever(folder=folder, writing=writing):
            book = Diary.open(folder, site="aintree")
            for number in range(1, 1000):
                book.append(note(number), note(number, "again"))
                os.write(writing, b".")

        child = in_a_child(append_for_ever)
        os.close(writing)
        time.sleep(moments.uniform(0.02, 0.35))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            returned = len(pipe.read())
        rounds = [event.number for event in Diary.open(folder, site="aintree").events()[1:]]
        assert rounds in ([one for one in range(1, last + 1) for _ in (0, 1)] for last in (returned, returned + 1))


def test_two_processes_and_four_threads_open_one_that_is_new_and_append(tmp_path):
    for folder in (tmp_path / str(attempt) for attempt in range(10)):

        def append_ten(folder=folder):
            book = Diary.open(folder, site="aintree")
            for number in range(10):
                book.append(note(number))

        children = [in_a_child(append_ten) for _ in range(2)]
        threads = [threading.Thread(target=append_ten) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
        book = Diary.open(folder, site="aintree")
        assert book.verify() == 61
        assert f'"seq": {61}' in book.head.read_text()


def test_ten_thousand_entries_are_verified_in_well_under_a_second(tmp_path):
    book = Diary.open(tmp_path, site="aintree")
    one = note(1)
    book.append(*[one] * 10_000)
    began = time.process_time()
    Diary.open(tmp_path, site="aintree")
    assert time.process_time() - began < 0.8


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(LedgerError, match="state.diary.sqlite: cannot be created"):
        Diary.open(tmp_path / "state", site="aintree")
