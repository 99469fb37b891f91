"""Files that are there whole or not at all, and folders that one process works in at a time."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rainhill.errors import RefusedError


def write_whole(path: Path, data: bytes, *, private: bool = False) -> None:
    """Replaces `path` by `data` in one step, on disk before it returns; what was there stays until then.

    A `private` file is its owner's alone to read. Raises OSError that names `path`, whatever step of it failed, and for what is there and
    is no file, such as a device.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "is there, and is not a file", str(path))
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb", opener=_for_owner if private else None) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        # A write to a full disk names no file by itself.
        raise type(error)(error.errno, error.strerror, str(path)) from error
    directory = os.open(path.parent, os.O_RDONLY)
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
    """As `alone`, but does not wait: RefusedError where another process is in one, which is `who`."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError(f"{lock.parent}: {who} is running in this folder already, as process {lock.read_text().strip()}") from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
