"""The files of a data set: tables, plain or gzipped, read row by row; images, found by name."""

import csv
import gzip
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from client.data.cells import CellError, numbered_rows, unfit
from rainhill.errors import DataError
from rainhill.text import shown

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom")
_PROBED = 200
_BATCH = 4096


def table_of(folder: Path, title: str, *patterns: str) -> Path:
    """The first file that a pattern finds; DataError that says which is missing where."""
    refuse_no_folder(folder, title)
    found = optional_table(folder, *patterns)
    if found is None:
        raise DataError(f"{folder}: is not {title} as it is downloaded: there is no {' or '.join(patterns)} in it")
    return found


def refuse_no_folder(folder: Path, title: str) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder}: {'is no folder' if folder.exists() else 'no such folder'}, expected {title}")


def optional_table(folder: Path, *patterns: str) -> Path | None:
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                return path
    return None


def rows(path: Path, needed: Iterable[str] = ()) -> Iterator[dict[str, str]]:
    """Cells as text, of CSV (comma, semicolon or tab; gzipped or not) or Parquet. DataError for a column that is not there."""
    try:
        if path.suffix == ".parquet":
            yield from _parquet_rows(path, needed)
            return
        with _opened(path) as file:
            yield from _csv_rows(path, file, needed)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text") from error
    except CellError as error:
        raise DataError(f"{path}: {error}") from error
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as a table ({type(error).__name__}: {str(error).partition(chr(10))[0]})") from error


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _csv_rows(path: Path, file: IO[str], needed: Iterable[str]) -> Iterator[dict[str, str]]:
    lines = numbered_rows(file)
    header = [name.strip() for name in next(lines, (1, []))[1]]
    _refuse_twice(path, header)
    refuse_without(path, header, needed)
    for number, cells in lines:
        if len(cells) != len(header):
            if not any(cells):
                continue
            raise DataError(f"{path}: row {number}: {len(cells)} cells, expected {len(header)} as in the header")
        _refuse_unfit(path, number, cells, header)
        yield dict(zip(header, cells, strict=True))


def _parquet_rows(path: Path, needed: Iterable[str]) -> Iterator[dict[str, str]]:
    with pq.ParquetFile(path) as file:
        header = [str(name) for name in file.schema_arrow.names]
        _refuse_twice(path, header)
        refuse_without(path, header, needed)
        numbers = count(2)
        for batch in file.iter_batches(batch_size=_BATCH):
            columns = [[_text(value) for value in column.to_pylist()] for column in batch.columns]
            for cells in zip(*columns, strict=True):
                _refuse_unfit(path, next(numbers), cells, header)
                yield dict(zip(header, cells, strict=True))


def _refuse_unfit(path: Path, number: int, cells: Sequence[str], header: Sequence[str]) -> None:
    if (found := unfit(cells, header)) is not None:
        raise DataError(f"{path}: row {number}, column {shown(found[0])!r}: {found[1]}")


def _text(value: object) -> str:
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _refuse_twice(path: Path, header: Sequence[str]) -> None:
    # Columns without a name, such as of row numbers, are never asked for.
    twice = [name for name, count in Counter(filter(None, header)).items() if count > 1]
    if twice:
        raise DataError(f"{path}: column {shown(twice[0])!r} is there more than once")


def refuse_without(path: Path, header: Sequence[str], needed: Iterable[str]) -> None:
    if not header:
        raise DataError(f"{path}: is empty, expected a header and rows")
    missing = [name for name in needed if name not in header]
    if missing:
        raise DataError(f"{path}: has no column {', '.join(map(repr, missing))} (there are: {', '.join(map(shown, header))})")


def header_of(path: Path) -> tuple[str, ...]:
    """The names of a table's columns. DataError for a table without a row."""
    first = next(rows(path), None)
    if first is None:
        raise DataError(f"{path}: has no rows")
    return tuple(first)


def images_in(folder: Path) -> Iterator[str]:
    """Path from the folder of every image below it, in order; links are followed, each folder once."""
    seen: set[Path] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        if (real := Path(place).resolve()) in seen:
            folders.clear()
            continue
        seen.add(real)
        below = Path(place).relative_to(folder)
        for name in sorted(files):
            if name.lower().endswith(IMAGES):
                yield (below / name).as_posix()


def images_by(key: Callable[[str], str], folder: Path) -> dict[str, str]:
    """Key of a file's name -> path; of two files of one key the first."""
    found: dict[str, str] = {}
    for path in images_in(folder):
        found.setdefault(key(path.rpartition("/")[2]), path)
    return found


def form_of(folder: Path, paths: Iterable[str], forms: Sequence[Callable[[str], str]]) -> Callable[[str], str]:
    """How a table's paths are to be read: the form by which the first of them is found, or the first form where none is."""
    for path in islice(paths, _PROBED):
        for form in forms:
            if (folder / form(path)).is_file():
                return form
    return forms[0]


def dicom_facts(path: Path) -> Mapping[str, str]:
    """Sex, age and view of a DICOM file's header; of a file that is none, or not there, nothing."""
    import warnings

    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    with warnings.catch_warnings():
        # pydicom quotes values of a header that it finds odd.
        warnings.simplefilter("ignore")
        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=["PatientSex", "PatientAge", "ViewPosition"])
        except (OSError, InvalidDicomError):
            return {"sex": "", "age": "", "view": ""}
        named = {"sex": "PatientSex", "age": "PatientAge", "view": "ViewPosition"}
        return {role: str(header.get(keyword) or "") for role, keyword in named.items()}
