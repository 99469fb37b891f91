"""What all pages of a site's console look at: the site's file as it is now, its two books, and whether they hold."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from client.chain import Entry, Event
from client.console import LONGEST_WORDS
from client.home import SiteHome
from client.journal import Journal
from client.offers import Offers
from client.privacy.ledger import Ledger
from client.privacy.statement import Snapshot
from client.reader import Reader
from rainhill.console.accounts import Accounts
from rainhill.console.frame import Shown
from rainhill.errors import ConfigError, RainhillError, RefusedError
from rainhill.text import one_line

LONGEST_SHOWN = 2000
"""Characters of what somebody elsewhere wrote."""
Told = TypeVar("Told")


@dataclass(frozen=True, kw_only=True)
class Found(Generic[Told]):
    """What was looked for, or why it cannot be told."""

    value: Told | None = None
    problem: str = ""


def found(look: Callable[[], Told]) -> Found[Told]:
    """One thing that cannot be told hides no other."""
    try:
        return Found(value=look())
    except (RainhillError, OSError) as error:
        return Found(problem=str(error))


class Site:
    def __init__(self, home: SiteHome, accounts: Accounts) -> None:
        self._home, self.accounts = home, accounts
        self._journal, self._ledger = Reader(home, Journal), Reader(home, Ledger)
        self.one_at_a_time = threading.Lock()
        """For an act that looks before it writes."""

    @property
    def home(self) -> SiteHome:
        """As the site's file says now; as it said before where it cannot be read now, which `page` tells."""
        try:
            return self._home.again()
        except ConfigError:
            return self._home

    @property
    def offers(self) -> Offers:
        """For an act. CredentialError of a site that has joined no consortium, LedgerError where its journal does not hold."""
        home = self._home.again()
        home.bundle()
        return Offers.open(home)

    @property
    def looked(self) -> Offers:
        """For a page: the same, of a journal that is read once."""
        home = self.home
        home.bundle()
        return Offers(home, _Read(home, self.journal()))

    def journal(self) -> Snapshot:
        """Empty of a site that was asked nothing yet. LedgerError where it does not hold."""
        return self._journal.read()

    def ledger(self) -> Snapshot:
        return self._ledger.read()

    def page(self, template: str, title: str, about: Mapping[str, Any] | None = None) -> Shown:
        """With one line for each thing that is not as it should be with what pages rest on."""
        looks: list[Callable[[], object]] = [self._home.again, self.journal, self.ledger]
        problems = [one.problem for one in map(found, looks) if one.problem]
        return Shown(template=template, title=title, about={"problems": problems, **(about or {})})


class _Read(Journal):
    """As it was read for a page, which asks it many times."""

    def __init__(self, home: SiteHome, read: Snapshot) -> None:
        super().__init__(home.state, site=home.config.name)
        self._read = read

    def entries(self) -> tuple[Entry, ...]:
        return self._read.entries

    def events(self) -> tuple[Event, ...]:
        return self._read.parsed


def line_of(form: Mapping[str, str], field: str, longest: int = LONGEST_WORDS) -> str:
    """What somebody typed. RefusedError unless it is one line that can be kept and shown."""
    text = form.get(field, "").strip()
    if not text or not text.isprintable() or len(text) > longest:
        raise RefusedError(f"{field}: is one line of 1 to {longest} characters that can be printed")
    return text


def number_of(form: Mapping[str, str], field: str, *, least: int, most: int) -> int:
    text = form.get(field, "").strip()
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise RefusedError(f"{field}: {one_line(text, 20)!r} is no whole number from {least} to {most}")
    return int(text)


def plain(text: str) -> str:
    """What somebody elsewhere wrote, on one line."""
    return one_line(text, LONGEST_SHOWN)
