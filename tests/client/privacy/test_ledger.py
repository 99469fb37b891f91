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

from client.privacy import ledger as ledger_module
from client.privacy.events import Members, Opened
from client.privacy.ledger import HEAD, LEDGER, Ledger
from rainhill.errors import LedgerError

COLUMNS = ("seq", "time", "kind", "body", "hash")


@pytest.fixture
def ledger(tmp_path, charge):
    found = Ledger.open(tmp_path / "state", site="aintree")
    found.append(Members.of(["ab" * 8, "cd" * 8]), *(charge(number) for number in range(1, 5)))
    return found


def forged(ledger, statement, *values):
    """Who can write the file can take away the triggers first."""
    connection = sqlite3.connect(ledger.path)
    for name in ("no_update", "no_delete", "no_replace"):
        connection.execute(f"DROP TRIGGER IF EXISTS {name}")
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def test_a_new_ledger_says_whose_it_is(tmp_path):
    ledger = Ledger.open(tmp_path / "a" / "state", site="aintree")
    assert ledger.events() == (Opened(site="aintree"),)
    assert ledger.verify() == 1
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600


def test_what_was_appended_is_read_back_in_order(ledger, charge):
    added = ledger.append(charge(5), charge(6))
    assert [entry.seq for entry in added] == [7, 8]
    again = Ledger.open(ledger.path.parent, site="aintree")
    assert again.entries()[-2:] == added
    assert [event.round for event in again.events()[2:]] == [1, 2, 3, 4, 5, 6]
    assert all(entry.time.endswith("+00:00") for entry in again.entries())


def test_another_sites_ledger_is_refused_by_name(ledger):
    with pytest.raises(LedgerError, match="is the ledger of 'aintree', not of 'broadgreen'"):
        Ledger.open(ledger.path.parent, site="broadgreen")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = '{}' WHERE seq = 2",
        "DELETE FROM entries WHERE seq = 6",
        "INSERT OR REPLACE INTO entries SELECT seq, time, kind, '{}', hash FROM entries WHERE seq = 2",
    ],
)
def test_sqlite_itself_aborts_a_change(ledger, statement):
    connection = sqlite3.connect(ledger.path)
    with pytest.raises(sqlite3.IntegrityError, match="an entry is written once"):
        connection.execute(statement)
    connection.close()
    assert ledger.verify() == 6


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("seq", range(1, 7))
def test_any_changed_field_of_any_entry_is_found(ledger, column, seq):
    value = ledger.entries()[seq - 1].__dict__[column]
    places = [0] if column == "seq" else sorted({0, len(value) // 2, len(value) - 1})
    whole = ledger.path.read_bytes()
    for place in places:
        changed = value + 100 if column == "seq" else value[:place] + chr(ord(value[place]) ^ 1) + value[place + 1 :]
        forged(ledger, f"UPDATE entries SET {column} = ? WHERE seq = ?", changed, seq)
        with pytest.raises(LedgerError, match=rf"{LEDGER}: entry ({seq}|{seq} is missing).*[0-9a-f]{{60}}|{HEAD} knows entry 6"):
            ledger.verify()
        ledger.path.write_bytes(whole)


def test_any_changed_byte_of_an_entrys_text_in_the_file_is_found(ledger):
    whole = ledger.path.read_bytes()
    for entry in ledger.entries():
        start = whole.index(entry.body.encode())
        for place in random.Random(entry.seq).sample(range(start, start + len(entry.body)), 10):
            ledger.path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x81]) + whole[place + 1 :])
            with pytest.raises(LedgerError, match=f"entry {entry.seq} was changed: its hash is '[0-9a-f]{{64}}', not '[0-9a-f]{{64}}'"):
                ledger.verify()


def test_a_hole_is_found(ledger):
    forged(ledger, "DELETE FROM entries WHERE seq = 3")
    with pytest.raises(LedgerError, match="entry 3 is missing: entry 4 with hash"):
        Ledger.open(ledger.path.parent, site="aintree")


def test_a_truncated_tail_is_found(ledger):
    last = ledger.entries()[-1]
    forged(ledger, "DELETE FROM entries WHERE seq > 4")
    with pytest.raises(LedgerError, match=f"ledger.head knows entry 6 with hash {last.hash}, but there is entry 4 with hash"):
        ledger.verify()


def test_a_ledger_put_back_to_what_it_was_is_found_when_opened_and_when_written(ledger, charge):
    kept = ledger.path.with_name("kept")
    shutil.copy(ledger.path, kept)
    ledger.append(charge(5))
    shutil.copy(kept, ledger.path)
    for act in (ledger.verify, lambda: ledger.append(charge(6)), lambda: Ledger.open(ledger.path.parent, site="aintree")):
        with pytest.raises(
            LedgerError, match="knows entry 7 .* but there is entry 6 .*: entries are gone, or another ledger was put in its"
        ):
            act()


def test_another_history_of_the_same_length_is_found(ledger, tmp_path, charge):
    other = Ledger.open(tmp_path / "other", site="aintree")
    other.append(*(charge(number) for number in range(20, 25)))
    shutil.copy(other.path, ledger.path)
    with pytest.raises(LedgerError, match="ledger.head knows entry 6 with hash"):
        ledger.verify()


def test_a_ledger_that_is_gone_is_not_begun_anew(ledger):
    ledger.path.unlink()
    with pytest.raises(LedgerError, match="ledger.head knows entry 6 with hash .* but there is entry 0"):
        Ledger.open(ledger.path.parent, site="aintree")
    assert not ledger.path.exists()


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff"])
def test_without_its_head_a_ledger_is_not_believed(ledger, content):
    if content is None:
        ledger.head.unlink()
    else:
        ledger.head.write_bytes(content)
    with pytest.raises(LedgerError, match="ledger.head: .* so it cannot be told whether entries are gone"):
        Ledger.open(ledger.path.parent, site="aintree")


def test_a_crash_before_the_head_was_written_loses_nothing(ledger, charge):
    before = ledger.head.read_bytes()
    ledger.append(charge(5))
    ledger.head.write_bytes(before)
    again = Ledger.open(ledger.path.parent, site="aintree")
    assert again.verify() == 7
    again.append(charge(6))
    assert again.head.read_bytes() != before


def test_a_crash_while_a_ledger_is_begun_is_made_good(tmp_path):
    (tmp_path / LEDGER).touch()
    assert Ledger.open(tmp_path, site="aintree").verify() == 1


@pytest.mark.parametrize("content", [b"not a database, " * 400, b""])
def test_a_file_that_is_no_ledger_is_told(ledger, content):
    ledger.path.write_bytes(content)
    with pytest.raises(
        LedgerError, match=r"ledger.sqlite: (cannot be read|entry 1 cannot be read): (file is not a database|no such table)"
    ):
        ledger.verify()


def test_a_body_that_is_not_text_is_told(ledger):
    forged(ledger, "UPDATE entries SET body = CAST(x'ff00' AS TEXT) WHERE seq = 3")
    with pytest.raises(LedgerError, match="entry 3 was changed"):
        ledger.verify()


def test_a_ledger_of_a_later_rainhill_is_refused(ledger):
    class Refunded(Opened):
        kind = "refunded"

    ledger.append(Refunded(site="aintree"))
    assert ledger.verify() == 7
    with pytest.raises(LedgerError, match="entry 7: kind 'refunded' is not one of"):
        ledger.events()


def test_a_ledger_held_by_another_process_is_told_and_nothing_is_lost(ledger, charge, monkeypatch):
    monkeypatch.setattr(ledger_module, "WAIT_S", 0.05)
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="ledger.sqlite: cannot be written: database is locked"):
        ledger.append(charge(5))
    other.execute("ROLLBACK")
    other.close()
    assert ledger.verify() == 6


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


def test_a_full_disk_is_told_and_nothing_is_lost(disk, charge):
    ledger = Ledger.open(disk / "state", site="aintree")
    ledger.append(charge(1))
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        fill(filler)
    with pytest.raises(LedgerError, match=r"ledger.(sqlite|head): .*(full|No space left|I/O error)"):
        ledger.append(*(charge(number) for number in range(2, 300)))
    filler.unlink()
    assert Ledger.open(disk / "state", site="aintree").verify() in (2, 300)
    ledger.append(charge(300))


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_where_nothing_can_be_written_a_ledger_is_read_and_nothing_is_left_beside_it(disk, charge, how):
    ledger = Ledger.open(disk / "state", site="aintree")
    ledger.append(charge(1))
    before = sorted(path.name for path in ledger.path.parent.iterdir())
    if how == "full":
        with pytest.raises(OSError, match="No space left"):
            fill(disk / "filler")
    else:
        assert os.system(f"mount -o remount,ro {disk}") == 0
    assert Ledger.open(disk / "state", site="aintree").verify() == 2
    assert sorted(path.name for path in ledger.path.parent.iterdir()) == before == ["ledger.head", "ledger.lock", "ledger.sqlite"]
    # What another process is about to merge is not passed over.
    if how == "full":
        (ledger.path.with_name("ledger.sqlite-wal")).touch()
        with pytest.raises(LedgerError, match="its newest entries are in ledger.sqlite-wal"):
            ledger.verify()


def test_a_ledger_and_its_keys_are_for_their_owner_alone(tmp_path, charge):
    ledger = Ledger.open(tmp_path / "state", site="aintree")
    ledger.append(charge(1))
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in (ledger.path, ledger.head, ledger.path.parent)} == {
        "ledger.sqlite": "0o600",
        "ledger.head": "0o600",
        "state": "0o700",
    }


@pytest.mark.parametrize("trace", ["keys", "updates"])
def test_a_ledger_that_is_gone_is_not_begun_anew_where_rounds_were_charged_to_it(tmp_path, charge, trace):
    ledger = Ledger.open(tmp_path, site="aintree")
    ledger.append(charge(1))
    (tmp_path / trace).mkdir()
    Ledger.open(tmp_path, site="aintree")
    ledger.path.unlink()
    ledger.head.unlink()
    with pytest.raises(LedgerError, match=f"ledger.sqlite: is gone, though {trace} of rounds charged to it are there"):
        Ledger.open(tmp_path, site="aintree")
    assert not ledger.path.exists()


@pytest.mark.parametrize("head", ['{"seq": 0, "hash": ""}', '{"seq": -1, "hash": "x"}'])
def test_a_head_that_no_ledger_has_is_refused(tmp_path, charge, head):
    ledger = Ledger.open(tmp_path, site="aintree")
    ledger.append(charge(1))
    ledger.head.write_text(head)
    with pytest.raises(LedgerError, match="which no ledger has"):
        Ledger.open(tmp_path, site="aintree")


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


def test_after_a_kill_everything_that_had_been_appended_is_there(tmp_path, charge):
    moments = random.Random(0)
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        reading, writing = os.pipe()

        def append_for_ever(folder=folder, writing=writing):
            ledger = Ledger.open(folder, site="aintree")
            for number in range(1, 1000):
                ledger.append(charge(number), charge(number, what="numbers"))
                os.write(writing, b".")

        child = in_a_child(append_for_ever)
        os.close(writing)
        time.sleep(moments.uniform(0.02, 0.35))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            returned = len(pipe.read())
        rounds = [event.round for event in Ledger.open(folder, site="aintree").events()[1:]]
        assert rounds in ([one for one in range(1, last + 1) for _ in (0, 1)] for last in (returned, returned + 1))


def test_two_processes_and_four_threads_open_one_that_is_new_and_append(tmp_path, charge):
    for folder in (tmp_path / str(attempt) for attempt in range(10)):

        def append_ten(folder=folder):
            ledger = Ledger.open(folder, site="aintree")
            for number in range(10):
                ledger.append(charge(number))

        children = [in_a_child(append_ten) for _ in range(2)]
        threads = [threading.Thread(target=append_ten) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
        ledger = Ledger.open(folder, site="aintree")
        assert ledger.verify() == 61
        assert f'"seq": {61}' in ledger.head.read_text()


def test_ten_thousand_entries_are_verified_in_well_under_a_second(tmp_path, charge):
    ledger = Ledger.open(tmp_path, site="aintree")
    one = charge()
    ledger.append(*[one] * 10_000)
    began = time.process_time()
    Ledger.open(tmp_path, site="aintree")
    assert time.process_time() - began < 0.8


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(LedgerError, match="state.ledger.sqlite: cannot be created"):
        Ledger.open(tmp_path / "state", site="aintree")
