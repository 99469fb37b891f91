"""Files that are there whole or not at all, and folders that one process works in at a time."""

import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rainhill.errors import CredentialError, RefusedError

_PART = ".part"
_TRIES, _TRY_S = 5, 0.1


def write_whole(path: Path, data: bytes, *, private: bool = False) -> None:
    """Replaces `path` by `data` in one step, on disk before it returns; what was there stays until then.

    A `private` file is its owner's alone to read. Raises OSError that names `path`, whatever step of it failed, and for what is there and
    is no file, such as a device.
    """
    with written_whole(path, private=private) as file:
        file.write(data)


@contextmanager
def written_whole(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """As `write_whole`, for what is written piece by piece: `path` is replaced where the block ends, and stays where it raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "is there, and is not a file", str(path))
    part = path.with_name(path.name + ".part")
    with _undone(part, path, lambda: part.unlink(missing_ok=True)):
        with open(part, "wb", opener=_for_owner if private else None) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    _settle(path.parent)


@contextmanager
def folder_whole(folder: Path) -> Iterator[Path]:
    """An empty folder, its owner's alone, that takes the name of `folder` where the block ends and is gone where the block raises.

    Where `folder` is there and empty, such as a volume that is mounted, what was made goes into it, files last. Files are to be written
    with `written_whole`. Raises OSError that names `folder`, also where something is in it already.
    """
    there = folder.is_dir() and not folder.is_symlink()
    part = folder / _PART if there else folder.with_name(folder.name + _PART)
    if part.is_dir():
        # Of an attempt that was killed.
        shutil.rmtree(part)
    if folder.is_symlink() or (folder.exists() and not (there and not any(folder.iterdir()))):
        raise FileExistsError(errno.EEXIST, "is there, and is not an empty folder", str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _undone(part, folder, lambda: shutil.rmtree(part, ignore_errors=True)):
        part.mkdir(mode=0o700)
        yield part
        for made in (part, *filter(Path.is_dir, part.rglob("*"))):
            _settle(made)
        if there:
            folder.chmod(0o700)
            for made in sorted(part.iterdir(), key=Path.is_file):
                made.replace(folder / made.name)
            part.rmdir()
        else:
            part.replace(folder)
    _settle(folder if there else folder.parent)


def private_folder(folder: Path) -> None:
    """Makes a folder that is its owner's alone. Raises CredentialError for one that is there and that others may look into."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _refuse_open(folder, folder.stat().st_mode, "700")


def keep_new(folder: Path, secrets: Mapping[str, bytes]) -> None:
    """Private files in a new private folder, all or none. CredentialError where something is there: a key is never replaced unasked."""
    try:
        with folder_whole(folder) as part:
            for name, data in secrets.items():
                write_whole(part / name, data, private=True)
    except FileExistsError as error:
        raise CredentialError(f"{folder}: is there already, and is not replaced") from error


def read_private(path: Path) -> bytes:
    """Raises CredentialError, with its mode, for a file that anybody but its owner may read or write, and for one that is not there."""
    try:
        # Without waiting for a writer, should it be a pipe.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise CredentialError(f"{path}: is not a file")
            _refuse_open(path, mode, "600")
            return file.read()
    except FileNotFoundError as error:
        raise CredentialError(f"{path}: no such file") from error
    except OSError as error:
        raise CredentialError(f"{path}: cannot be read: {error.strerror}") from error


def _refuse_open(path: Path, mode: int, expected: str) -> None:
    if mode & 0o077:
        raise CredentialError(f"{path}: has mode {stat.S_IMODE(mode):o}, not {expected}: others may read or change it")


@contextmanager
def _undone(part: Path, path: Path, undo: Callable[[], object]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        undo()
        # A write to a full disk names no file by itself.
        if isinstance(error, OSError) and Path(str(error.filename or part)).is_relative_to(part):
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise


def _settle(folder: Path) -> None:
    """The names in a folder, on disk."""
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _for_owner(path: str, flags: int) -> int:
    descriptor = os.open(path, flags, 0o600)
    # One that an earlier attempt left may be anybody's to read.
    os.fchmod(descriptor, 0o600)
    return descriptor


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """While the block lasts no other process is in one for this file; a process that dies lets go."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def held(lock: Path, who: str) -> Iterator[None]:
    """As `alone`, but hardly waits: RefusedError where another process is in one, which is `who`."""
    lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with lock.open("a") as file:
        if not _locked(file.fileno()):
            raise RefusedError(f"{lock.parent}: {who} is running in this folder already, as process {lock.read_text().strip()}")
        try:
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(lock)) from error
        yield


def is_held(lock: Path) -> bool:
    """Whether a process is in a block of `held` for this file. Lookers are in nobody's way, and hardly in that of who begins."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _locked(descriptor: int) -> bool:
    """Somebody who only looks whether it is held has it for a moment."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_TRY_S)
    return False
