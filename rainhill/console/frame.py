"""A console as data: its pages, what can be done on them, and who may."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from rainhill.console.accounts import Accounts
from rainhill.listening import ConsoleConfig


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Somebody who has signed in."""

    name: str
    role: str


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a page shows."""

    template: str
    title: str
    about: Mapping[str, Any] = field(default_factory=dict)
    """What the template speaks of."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came of something that was asked for, in words, and the page that shows it."""

    to: str
    words: str


@dataclass(frozen=True, kw_only=True)
class Page:
    path: str
    """As Starlette writes it: "/runs/{run}"."""
    show: Callable[[Visitor, Mapping[str, str]], Shown]
    """Of what stands in the path and the query. RefusedError for what there is not."""
    menu: str = ""
    """What it is called where all pages are listed; not listed where empty."""
    roles: Sequence[str] = ()
    """Who may see it; everybody who has signed in where empty."""


@dataclass(frozen=True, kw_only=True)
class Act:
    """Something that a form asks for, always by POST."""

    path: str
    do: Callable[[Visitor, Mapping[str, str]], Done]
    """Of what stands in the path and in the form. RainhillError says why nothing was done."""
    roles: Sequence[str]
    """Who may."""
    back: str
    """The page that says why nothing was done: its path, filled in with what stood in this one's."""


@dataclass(frozen=True, kw_only=True)
class Console:
    kind: str
    """"coordinator" or "site"."""
    name: str
    """Of the consortium or the site."""
    title: str
    """As people write it."""
    config: ConsoleConfig
    folder: Path
    """That relative paths of the section start from."""
    accounts: Accounts
    templates: jinja2.BaseLoader
    """Of its own pages; they extend "frame.html.j2"."""
    pages: Sequence[Page]
    acts: Sequence[Act]

    @property
    def secure(self) -> bool:
        return self.config.origin.startswith("https://")

    @property
    def cookie(self) -> str:
        """Its own name for each console: a browser's cookies do not tell the ports of one machine apart."""
        # With __Host- a browser takes it from this very host only, and over https. RFC 6265bis, section 4.1.3.2.
        return f"{'__Host-' if self.secure else ''}rainhill-{self.kind}-{self.name}"
