"""Columns of a table that belongs to no known set, as a person names them."""

from pathlib import Path

from client.data.importers._labels import snake
from client.data.importers._tables import refuse_no_folder, table_of
from rainhill.errors import ConfigError, DataError
from rainhill.text import shown

PARTS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validate": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
_TABLES = ("*.csv", "*.csv.gz", "*.parquet")


def columns_of(text: str) -> dict[str, str]:
    """`pneumonia, effusion=Pleural Effusion` -> finding -> column."""
    found: dict[str, str] = {}
    for one in filter(None, map(str.strip, text.split(","))):
        finding, _, column = map(str.strip, one.partition("="))
        if snake(finding) in found:
            raise ConfigError(f"labels names {shown(finding)!r} twice")
        found[snake(finding)] = column or finding
    return found


def part_of(text: str) -> str:
    """ValueError for what is no part; a row may be of none."""
    if text.strip().lower() in {"", "nan"}:
        return ""
    if text.strip().lower() not in PARTS:
        raise ValueError(f"split is {shown(text)!r}, expected train, val or test")
    return PARTS[text.strip().lower()]


def table_in(folder: Path, title: str, name: str) -> Path:
    """The table of that name, which is no pattern; without a name, the one that there is. ConfigError for one outside of the folder."""
    if name:
        return _named(folder, title, name)
    first = table_of(folder, title, *_TABLES)
    several = sorted({path.name for pattern in _TABLES for path in folder.glob(pattern)})
    if len(several) > 1:
        raise DataError(f"{folder}: has {len(several)} tables ({', '.join(map(shown, several))}): say which with --set table=NAME")
    return first


def _named(folder: Path, title: str, name: str) -> Path:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ConfigError(f"table = {shown(name)!r} leaves the folder {folder}, expected a name in it")
    refuse_no_folder(folder, title)
    if not (folder / name).is_file():
        raise DataError(f"{folder}: is not {title}: there is no {shown(name)} in it")
    return folder / name
