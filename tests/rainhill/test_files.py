import fcntl
import os
import stat
from pathlib import Path

import pytest

from rainhill.errors import CredentialError
from rainhill.files import folder_whole, held, is_held, private_folder, read_private, write_whole, written_whole


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def interrupted_file(path: Path) -> None:
    with written_whole(path) as file:
        file.write(b"after")
        raise KeyError


def interrupted_folder(folder: Path) -> None:
    with folder_whole(folder) as part:
        (part / "half").write_bytes(b"1")
        raise KeyError


def test_a_file_stays_as_it_was_where_the_block_raises(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"before")
    with pytest.raises(KeyError):
        interrupted_file(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"before"
    with written_whole(tmp_path / "a") as file:
        file.write(b"af")
        file.write(b"ter")
        assert (tmp_path / "a").read_bytes() == b"before"
    assert (tmp_path / "a").read_bytes() == b"after"


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error, written_whole(tmp_path / "a"):
        (tmp_path / "source").read_bytes()
    assert str(error.value.filename) == str(tmp_path / "source")


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyError):
            interrupted_folder(tmp_path / "a")
        assert not list(tmp_path.iterdir())
    # What a process that was killed leaves is in nobody's way.
    (tmp_path / "a.part").mkdir()
    (tmp_path / "a.part" / "old").write_bytes(b"1")
    with folder_whole(tmp_path / "a") as part:
        (part / "new").write_bytes(b"2")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "new"]
    assert mode(tmp_path / "a") == 0o700


@pytest.mark.parametrize("there", ["file", "folder", "link"])
def test_what_is_there_already_is_not_replaced(tmp_path: Path, there: str) -> None:
    place = tmp_path / "a"
    if there == "file":
        place.write_bytes(b"1")
    elif there == "folder":
        place.mkdir()
        (place / "mine").write_bytes(b"1")
    else:
        place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError, match="is there, and is not an empty folder") as error, folder_whole(place):
        raise AssertionError
    assert error.value.filename == str(place)


def test_a_private_file_is_refused_with_its_mode_where_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_whole(path, b"secret", private=True)
    assert read_private(path) == b"secret"
    for wrong in (0o640, 0o604, 0o620):
        path.chmod(wrong)
        with pytest.raises(CredentialError, match=f"{path}: has mode {wrong:o}, not 600"):
            read_private(path)


def test_what_is_no_private_file_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name, message in (("pipe", "is not a file"), ("folder", "cannot be read: Is a directory"), ("gone", "no such file")):
        with pytest.raises(CredentialError, match=f"{tmp_path / name}: {message}"):
            read_private(tmp_path / name)


def test_a_folder_that_others_may_look_into_is_refused_with_its_mode(tmp_path: Path) -> None:
    private_folder(tmp_path / "a" / "mine")
    assert mode(tmp_path / "a" / "mine") == 0o700
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o750)
    with pytest.raises(CredentialError, match=f"{tmp_path / 'open'}: has mode 750, not 700"):
        private_folder(tmp_path / "open")


def test_who_looks_whether_a_lock_is_held_changes_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "serve.lock"
    assert not is_held(lock) and not lock.exists()
    with held(lock, "the daemon"):
        said = lock.read_text()
        assert is_held(lock) and lock.read_text() == said
    assert not is_held(lock)
    with lock.open() as looker:
        # Somebody else looks at the same time.
        fcntl.flock(looker, fcntl.LOCK_SH)
        assert not is_held(lock)
