"""What no cell of a table may hold: control characters within its words, and more than any report is long."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

LONGEST = 4_000_000
"""Characters of a cell: thousands of pages. Python's own limit, 131,072, is less than some exports put into one."""
_UNCLOSED = 4 * LONGEST
"""Where reading one stops."""
_ANY = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_CONTROL = re.compile(r"\x00|(?<=[^\W_])[\x01-\x08\x0e-\x1f\x7f]+(?=[^\W_])")


class CellError(csv.Error):
    """Of a cell that does not end."""


def numbered_rows(file: IO[str]) -> Iterator[tuple[int, list[str]]]:
    """A CSV's header and rows, by the number that a spreadsheet shows. CellError for a cell that does not end."""
    delimiter = max(",;\t", key=file.readline().count)
    file.seek(0)
    csv.field_size_limit(_UNCLOSED)
    number = 0
    try:
        for number, cells in enumerate(csv.reader(file, delimiter=delimiter), start=1):
            yield number, cells
    except csv.Error as error:
        if "field limit" not in str(error):
            raise
        what = f"a cell of more than {_UNCLOSED:,} characters: is a quotation mark not closed?"
        raise CellError(f"row {number + 1}: {what}") from error


def unfit(cells: Sequence[str], columns: Sequence[str]) -> tuple[str, str] | None:
    """The first column whose cell is not fit to be read, and why; none where all are."""
    if max(map(len, cells), default=0) <= LONGEST and not _ANY.search("".join(cells)):
        return None
    return next(_why(cells, columns), None)


def _why(cells: Iterable[str], columns: Iterable[str]) -> Iterator[tuple[str, str]]:
    for cell, column in zip(cells, columns, strict=True):
        if len(cell) > LONGEST:
            yield column, f"{len(cell):,} characters, expected at most {LONGEST:,}"
        elif found := _CONTROL.search(cell):
            # Within a word it would cut it, and take a negation apart.
            yield column, f"control character U+{ord(found[0]):04X} at character {found.start() + 1}: take it out"
