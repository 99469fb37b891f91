"""Columns of a table that belongs to no known set, as a person names them."""

from pathlib import Path

from client.data.importers._labels import snake
from client.data.importers._tables import table_of
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
    """The table of that name; without a name, the one that there is."""
    if name:
        return table_of(folder, title, name)
    first = table_of(folder, title, *_TABLES)
    several = sorted({path.name for pattern in _TABLES for path in folder.glob(pattern)})
    if len(several) > 1:
        raise DataError(f"{folder}: has {len(several)} tables ({', '.join(several)}): say which with --set table=NAME")
    return first
