"""Arrays kept as files, too large to be read whole: mapped, checked when they are opened, and wiped with the cohort they were made from.

KEY.npy            the array
KEY.json           its shape, data type and checksum, and what it was made from
KEY.COHORT.cohort  empty: the array was made from the cohort of this fingerprint

All are readable by their owner only. A full disk costs the file, not the run.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from client.data.rows import CHUNK

log = logging.getLogger(__name__)

_ASIDE = re.compile(r"[0-9a-f]{32}\.\w+\.part")

Write = Callable[[int, NDArray[Any]], None]
"""Takes the number of a row, and the rows from there on; several threads may call it at once."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One array as it should be. What it was made from is JSON, and names no file and no patient: it stands beside the array."""

    folder: Path
    made_from: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    what: str
    """In a warning, such as `image cache`."""
    redone: str
    """How a person calls making it: `decoding`."""

    @cached_property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(self.made_from, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def file(self) -> Path:
        return self.folder / f"{self.key}.npy"

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def described(self, checksum: int) -> dict[str, Any]:
        return {"shape": list(self.shape), "dtype": self.dtype.str, "checksum": checksum, "made_from": self.made_from}


def load(entry: Entry) -> NDArray[Any] | None:
    """The array, mapped and read-only; None where there is none, or where a warning says why it has to be made again."""
    try:
        described = dict(json.loads(entry.file.with_suffix(".json").read_bytes()))
        array = np.lib.format.open_memmap(entry.file, mode="r")
        asked = json.loads(json.dumps(entry.described(described["checksum"])))
        if described | {"shape": list(array.shape), "dtype": array.dtype.str} != asked:
            problem = "holds something else"
        elif _checksum(array) != described["checksum"]:
            problem = "is damaged (checksum)"
        else:
            return array
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        problem = f"is damaged ({type(error).__name__})"
    log.warning("%s %s %s, %s again", entry.what, entry.file.name, problem, entry.redone)
    return None


def save(entry: Entry, fill: Callable[[Write], None]) -> NDArray[Any] | None:
    """Has `fill` write every row, and gives the array mapped; None where the disk does not take it, which a warning tells.

    Written aside, then renamed, so that nobody sees half of it.
    """
    try:
        entry.folder.mkdir(parents=True, exist_ok=True)
        beside = entry.file.with_suffix(".json")
        beside.unlink(missing_ok=True)
        with _aside(entry.file) as stream:
            checksum = _fill(entry, stream, fill)
        with _aside(beside) as stream:
            stream.write(json.dumps(entry.described(checksum)).encode())
        return np.lib.format.open_memmap(entry.file, mode="r")
    except OSError as error:
        log.warning(
            "%s not written: %s (%s: %.1f MB needed, %s)", entry.what, error.strerror, entry.folder, entry.size / 1e6, _free(entry.folder)
        )
        return None


def mark(file: Path, cohort: str) -> None:
    """The file goes when the cohort of this fingerprint is wiped."""
    marker = file.with_name(f"{file.stem}.{cohort}.cohort")
    try:
        marker.touch(mode=0o600)
    except OSError as error:
        log.warning("%s cannot be marked, and will not be wiped with its cohort: %s", file, error.strerror)


def wipe(cache: Path, cohort: str) -> list[Path]:
    """Removes every array in the folder, and in those below it, that was made from the cohort of this fingerprint; gives those.

    With them go the pieces of writes that were cut short, whoever's they are: nothing tells whose.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", cohort):
        raise ValueError(f"{cohort!r} is no fingerprint of a cohort, expected 64 hexadecimal digits")
    gone = []
    for marker in sorted(cache.rglob(f"*.{cohort}.cohort")):
        key = marker.name.partition(".")[0]
        for file in marker.parent.glob(f"{key}.*"):
            if file != marker:
                file.unlink(missing_ok=True)
        # The marker last: a wipe that is cut short finds the rest the next time.
        marker.unlink(missing_ok=True)
        gone.append(marker.with_name(f"{key}.npy"))
    for piece in cache.rglob("*.part"):
        if _ASIDE.fullmatch(piece.name):
            piece.unlink(missing_ok=True)
    return gone


@contextmanager
def _aside(file: Path) -> Iterator[IO[bytes]]:
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f"{file.stem}.", suffix=".part")  # readable by the owner only
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(descriptor)
        Path(name).replace(file)
    finally:
        Path(name).unlink(missing_ok=True)


def _fill(entry: Entry, stream: IO[bytes], fill: Callable[[Write], None]) -> int:
    """Through `pwrite` and not through a map, in which a full disk would end the process by a signal. Gives the checksum."""
    header = {"descr": np.lib.format.dtype_to_descr(entry.dtype), "fortran_order": False, "shape": entry.shape}
    np.lib.format.write_array_header_1_0(stream, header)
    stream.flush()
    descriptor, start, row_size = stream.fileno(), stream.tell(), entry.size // max(1, entry.shape[0])
    if hasattr(os, "posix_fallocate"):  # not on macOS
        # All of the space at once: better refused now than after hours.
        os.posix_fallocate(descriptor, 0, start + entry.size)
    checksum, lock = 0, Lock()

    def write(place: int, rows: NDArray[Any]) -> None:
        nonlocal checksum
        if (rows.shape[1:], rows.dtype) != (entry.shape[1:], entry.dtype):
            raise ValueError(f"row {place}: {rows.shape[1:]} {rows.dtype} is not {entry.shape[1:]} {entry.dtype}")
        left, offset = np.ascontiguousarray(rows).data.cast("B"), start + place * row_size
        while left:
            written = os.pwrite(descriptor, left, offset)
            left, offset = left[written:], offset + written
        with lock:
            checksum += _checksum(rows, place)

    fill(write)
    return checksum


def _checksum(rows: NDArray[Any], first: int = 0) -> int:
    """Sum of the CRC-32 of each row, which begins with the row's number: rows may be written in any order, and none may change places."""
    total = 0
    for start in range(0, len(rows), CHUNK):
        # A copy, in memory: pages of a map would stay in it one by one.
        total += sum(zlib.crc32(row.data, first + start + n) for n, row in enumerate(np.array(rows[start : start + CHUNK], order="C")))
    return total


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:.1f} MB free"
    except OSError:
        return "no such folder"
