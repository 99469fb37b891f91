"""A zip file of plain files, stored as they are: written the same each time, and read without trusting what it says of itself."""

import hashlib
import io
import stat
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile, ZipInfo

from rainhill.errors import CredentialError
from rainhill.text import shown

PIECE = 2**20
"""Bytes in memory at a time; also of the longest directory that is read."""
_MODE = stat.S_IFREG | 0o644

Write = Callable[[str], AbstractContextManager[BinaryIO]]
"""Where a file of the archive is written to, by its name in it."""


def entry(name: str, size: int) -> ZipInfo:
    """Of no time and nobody's, so that the same files give the same archive."""
    info = ZipInfo(name)
    info.create_system = 3
    info.external_attr = _MODE << 16
    # By this zipfile knows beforehand whether the header needs 64 bits.
    info.file_size = size
    return info


def put(archive: ZipFile, source: Path, name: str) -> str:
    """The sha256 of what was written."""
    digest = hashlib.sha256()
    with source.open("rb") as read, archive.open(entry(name, source.stat().st_size), "w") as written:
        while piece := read.read(PIECE):
            digest.update(piece)
            written.write(piece)
    return digest.hexdigest()


@contextmanager
def reading(path: Path) -> Iterator[ZipFile]:
    """Whatever zipfile refuses in the block becomes a CredentialError that names `path`."""
    try:
        file = _Sparing(path)
    except OSError as error:
        raise CredentialError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        with file, ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OverflowError, struct.error, ValueError) as error:
        raise CredentialError(f"{path}: is not whole: {shown(str(error)) or 'it ends early'}") from error


def entries(archive: ZipFile, path: Path) -> dict[str, ZipInfo]:
    """By name. Raises CredentialError for what is no plain file stored as it is, for a name given twice, and for much else in between."""
    infos = archive.infolist()
    for name, count in Counter(info.filename for info in infos).items():
        if count > 1:
            raise CredentialError(f"{path}: holds {shown(name)} {count} times")
    for info in infos:
        for what, got, expected in (
            ("name", shown(info.orig_filename), shown(info.filename)),
            ("mode", f"{info.external_attr >> 16:o}", f"{_MODE:o}"),
            ("compression", info.compress_type, zipfile.ZIP_STORED),
            ("flags", info.flag_bits, 0),
            ("stored size", info.compress_size, info.file_size),
        ):
            if got != expected:
                raise CredentialError(f"{path}: {shown(info.filename)}: {what} is {got}, not {expected}")
        if not 0 <= info.header_offset < archive.start_dir:
            raise CredentialError(f"{path}: {shown(info.filename)}: begins at byte {info.header_offset}, outside 0 to {archive.start_dir}")
    size, named = path.stat().st_size, sum(info.file_size for info in infos)
    if not 0 <= size - named <= PIECE:
        raise CredentialError(f"{path}: has {size} bytes, and the files in it {named}")
    return {info.filename: info for info in infos}


def copied(archive: ZipFile, info: ZipInfo, write: Write) -> str:
    """The sha256 of what was read and written."""
    digest = hashlib.sha256()
    with archive.open(info) as read, write(info.filename) as written:
        while piece := read.read(PIECE):
            digest.update(piece)
            written.write(piece)
    return digest.hexdigest()


class _Sparing(io.FileIO):
    """zipfile reads the directory in one piece, however long the file says that it is."""

    def read(self, size: int | None = -1, /) -> bytes | None:  # type: ignore[override]
        if size is not None and size > PIECE:
            raise zipfile.BadZipFile(f"its directory would have {size} bytes, more than {PIECE}")
        return super().read(size)
