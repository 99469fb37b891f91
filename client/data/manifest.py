"""A site's manifest, one row per image, read from CSV or Parquet; everything in it is checked before anything runs."""

import csv
import difflib
import math
import os.path
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from client.data.cells import CellError, numbered_rows, unfit
from client.data.splits import PARTS
from rainhill.config import DataConfig
from rainhill.errors import DataError

SHOWN = 20
_NOTHING = frozenset({"", "nan", "none", "null", "na", "n/a", "<na>"})
_SEX = {"m": "M", "male": "M", "f": "F", "female": "F", "o": "O", "other": "O", "u": "", "unknown": ""}
_LABELS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
_AGE = re.compile(r"(\d{3})([DWMY])")  # DICOM's Age String, PS3.5 6.2
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
OLDEST = 130.0

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing to put right. `row` counts as a spreadsheet does: the header is row 1."""

    row: int
    column: str
    what: str

    def __str__(self) -> str:
        return f"row {self.row}, column {self.column!r}: {self.what}" if self.column else f"row {self.row}: {self.what}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image. Only its number is ever shown: the rest may identify a person."""

    number: int
    image: Path = field(repr=False)
    patient: str = field(repr=False)
    labels: tuple[float, ...] = field(repr=False)
    split: str = field(repr=False)
    sex: str = field(repr=False)
    age: float = field(repr=False)
    view: str = field(repr=False)
    report: str = field(repr=False)
    indication: str = field(repr=False)
    prior: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Table:
    """The cells as text, by row number; a row of the wrong length is a problem and not among them."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, str]], ...] = field(repr=False)
    problems: tuple[Problem, ...] = ()


def resolve(path: Path, base: Path) -> Path:
    """`~` is the home folder; a relative path starts from `base`, the folder of the file that it is written in."""
    return base / path.expanduser()


def read(data: DataConfig, *, findings: Sequence[str], base: Path) -> tuple[Row, ...]:
    """The rows that match `data.where`. Raises one DataError that lists every problem in them; images are not opened."""
    path = resolve(data.manifest, base)
    table = read_table(path)
    folder = resolve(data.images, base) if data.images is not None else path.parent
    if not folder.is_dir():
        raise DataError(f"{folder}: {'is no folder' if folder.exists() else 'no such folder'}, expected the images of {path}")
    roles = {role: column for role, column in data.columns.model_dump().items() if column and column in table.columns}
    labels = [data.labels.get(finding, finding) for finding in findings]
    problems = [*table.problems, *_missing_columns(data, findings, table.columns)]
    rows = []
    for number, cells in table.rows:
        if all(_same(cells.get(column, ""), wanted) for column, wanted in data.where.items()):
            rows.append(_row(number, cells, roles, labels, folder, problems))
    problems += [*_duplicates(rows, data.columns.image), *_straddlers(rows, data.columns.split)]
    refuse(path, problems)
    return tuple(rows)


def refuse(path: Path, problems: Sequence[Problem]) -> None:
    """Raises DataError where there are any: a line with their number, then the first of them in the order of the rows."""
    if not problems:
        return
    listed = sorted(problems, key=lambda problem: problem.row)
    lines = [f"{path}: {len(problems)} problem{'s' if len(problems) > 1 else ''}", *(f"  {problem}" for problem in listed[:SHOWN])]
    if len(problems) > SHOWN:
        lines.append(f"  ... and {len(problems) - SHOWN} more")
    raise DataError("\n".join(lines))


def read_table(path: Path) -> Table:
    """CSV (comma, semicolon or tab; UTF-8) or Parquet, told by content. Raises DataError."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic == b"PK\x03\x04":
            raise DataError(f"{path}: is a spreadsheet or zip file, expected CSV or Parquet: save it as 'CSV UTF-8'")
        table = _read_parquet(path) if magic == b"PAR1" else _read_csv(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text: save it as 'CSV UTF-8'") from error
    except CellError as error:
        raise DataError(f"{path}: {error}") from error
    except (OSError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as a manifest ({type(error).__name__}: {str(error).partition(chr(10))[0]})") from error
    if not any(table.columns):
        raise DataError(f"{path}: has no header row")
    twice = sorted({column for column in table.columns if column and table.columns.count(column) > 1})
    if twice:
        raise DataError(f"{path}: row 1: column {twice[0]!r} is there more than once")
    return table


def _read_csv(path: Path) -> Table:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = numbered_rows(file)
        header = tuple(name.strip() for name in next(lines, (1, []))[1])
        rows: list[tuple[int, Mapping[str, str]]] = []
        problems: list[Problem] = []
        for number, cells in lines:
            if len(cells) == len(header):
                problems += _unfit(number, cells, header)
                rows.append((number, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}))
            elif cells:
                problems.append(Problem(row=number, column="", what=f"{len(cells)} cells, expected {len(header)} as in the header"))
    return Table(columns=header, rows=tuple(rows), problems=tuple(problems))


def _unfit(number: int, cells: Sequence[str], columns: Sequence[str]) -> Iterator[Problem]:
    found = unfit(cells, columns)
    if found is not None:
        yield Problem(row=number, column=found[0], what=found[1])


def _read_parquet(path: Path) -> Table:
    table = pq.read_table(path)
    names = tuple(table.column_names)
    columns = [[_text(value) for value in column.to_pylist()] for column in table.columns]
    numbered = list(enumerate(zip(*columns, strict=True), start=2))
    problems = tuple(problem for number, cells in numbered for problem in _unfit(number, cells, names))
    return Table(columns=names, rows=tuple((number, dict(zip(names, cells, strict=True))) for number, cells in numbered), problems=problems)


def _text(value: Any) -> str:
    """As CSV would have it; 3.0 is "3", since a whole number column with gaps is one of floats."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _same(cell: str, wanted: str) -> bool:
    if cell == wanted:
        return True
    try:
        return float(cell) == float(wanted)
    except ValueError:
        return False


def _missing_columns(data: DataConfig, findings: Sequence[str], columns: tuple[str, ...]) -> Iterator[Problem]:
    named = [column for column in data.columns.model_dump().values() if column]
    named += [data.labels[finding] for finding in findings if finding in data.labels]
    for name in dict.fromkeys([*named, *data.where]):
        if name not in columns:
            close = difflib.get_close_matches(name, columns, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the manifest has {', '.join(columns)}"
            yield Problem(row=1, column=name, what=f"no such column, {hint}")


def _row(
    number: int, cells: Mapping[str, str], roles: Mapping[str, str], labels: Sequence[str], folder: Path, problems: list[Problem]
) -> Row:
    def cell(column: str | None, parse: Callable[[str], Value], otherwise: Value) -> Value:
        if column is None or column not in cells:
            return otherwise
        try:
            return parse(cells[column])
        except ValueError as error:
            problems.append(Problem(row=number, column=column, what=str(error)))
            return otherwise

    return Row(
        number=number,
        image=cell(roles.get("image"), lambda text: _image(text, folder), Path()),
        patient=cell(roles.get("patient"), _patient, ""),
        labels=tuple(cell(column, _label, math.nan) for column in labels),
        split=cell(roles.get("split"), _split, ""),
        sex=cell(roles.get("sex"), _sex, ""),
        age=cell(roles.get("age"), _age, math.nan),
        view=cell(roles.get("view"), str.upper, ""),
        report=cell(roles.get("report"), str, ""),
        indication=cell(roles.get("indication"), str, ""),
        prior=cell(roles.get("prior"), str, ""),
    )


def _image(text: str, folder: Path) -> Path:
    """The path is checked as written: a link that the site itself put into its folder may lead out of it."""
    if not text:
        raise ValueError("empty, expected the path of an image")
    root = os.path.abspath(folder)  # noqa: PTH100  Path.resolve would follow links
    path = Path(os.path.normpath(Path(root, text.replace("\\", "/"))))
    if not path.is_relative_to(root):
        raise ValueError(f"{_shown(text)} leaves the images folder")
    try:
        found = path.is_file()
    except OSError:  # a name longer than the file system allows
        found = False
    if not found:
        raise ValueError(f"{_shown(text)}: no such file in the images folder")
    return path


def _patient(text: str) -> str:
    if text.lower() in _NOTHING:
        raise ValueError("empty, expected the patient's number or pseudonym")
    return text


def _label(text: str) -> float:
    """CheXpert's -1, uncertain, counts as not labelled."""
    word = text.lower()
    if word in _NOTHING:
        return math.nan
    if word in _LABELS:
        return _LABELS[word]
    try:
        return {0.0: 0.0, 1.0: 1.0, -1.0: math.nan}[float(word)]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{_shown(text)}, expected 0, 1, -1 (uncertain) or empty") from error


def _split(text: str) -> str:
    if text.lower() not in PARTS:
        raise ValueError(f"{_shown(text)}, expected {', '.join(PARTS[:-1])} or {PARTS[-1]}")
    return text.lower()


def _sex(text: str) -> str:
    word = text.lower()
    if word in _NOTHING:
        return ""
    if word not in _SEX:
        raise ValueError(f"{_shown(text)}, expected M, F, O or empty")
    return _SEX[word]


def _age(text: str) -> float:
    if text.lower() in _NOTHING:
        return math.nan
    age_string = _AGE.fullmatch(text)
    try:
        years = int(age_string[1]) * _YEARS[age_string[2]] if age_string else float(text)
    except ValueError as error:
        raise ValueError(f"{_shown(text)} is not a number, expected years, or empty") from error
    if not 0 <= years <= OLDEST:
        raise ValueError(f"{_shown(text)}, expected 0 to {OLDEST:g} years, or empty")
    return years


def _shown(text: str) -> str:
    """Short, for a column named by mistake may hold a report."""
    return repr(text if len(text) <= 60 else f"{text[:30]}...{text[-24:]}")


def _duplicates(rows: Sequence[Row], column: str) -> Iterator[Problem]:
    first: dict[Path, int] = {}
    for row in rows:
        if row.image != Path() and first.setdefault(row.image, row.number) != row.number:
            yield Problem(row=row.number, column=column, what=f"the same image as row {first[row.image]}")


def _straddlers(rows: Sequence[Row], column: str) -> Iterator[Problem]:
    first: dict[str, Row] = {}
    for row in rows:
        if row.patient and row.split:
            other = first.setdefault(row.patient, row)
            if other.split != row.split:
                what = f"{row.split!r}, but the same patient is {other.split!r} in row {other.number}"
                yield Problem(row=row.number, column=column, what=what)
