"""What the pages of the operator's console are read from, anew at each request, and how a list is cut into pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from rainhill.errors import RefusedError
from rainhill.text import shown
from server.console.watch import Watch
from server.database import Database
from server.history import History
from server.home import Home
from server.listing import Listing
from server.registry import Registry
from server.runs import Runs
from server.tally import Tally

PAGE = 50
"""Lines of a list that are shown at once."""
FURTHEST = 10**7
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Sources:
    home: Home
    registry: Registry
    runs: Runs
    listing: Listing
    history: History
    tally: Tally
    watch: Watch

    @classmethod
    def of(cls, home: Home) -> "Sources":
        database = Database.open(home.database_url)
        registry = Registry(database=database)
        return cls(
            home=home,
            registry=registry,
            runs=Runs(database=database),
            listing=Listing(database=database),
            history=History(database),
            tally=Tally(database),
            watch=Watch(home, registry),
        )


@dataclass(frozen=True, kw_only=True)
class Pager:
    """Links to what is newer and older; empty where there is no more."""

    newer: str
    older: str


def skipped(asked: Mapping[str, str]) -> int:
    """How many lines of a list a page leaves out, by its address. RefusedError where that is no number."""
    said = asked.get("skip", "0")
    if not (said.isascii() and said.isdigit() and int(said[:20]) <= FURTHEST):
        raise RefusedError(f"skip = {shown(said)!r} is no number of lines from 0 to {FURTHEST}")
    return int(said)


def paged(found: tuple[T, ...], skip: int, path: str) -> tuple[tuple[T, ...], Pager]:
    """Of PAGE + 1 lines that were looked for, those to show, and where the others are."""
    older = f"{path}?skip={skip + PAGE}" if len(found) > PAGE else ""
    newer = "" if skip == 0 else f"{path}?skip={skip - PAGE}" if skip > PAGE else path
    return found[:PAGE], Pager(newer=newer, older=older)
