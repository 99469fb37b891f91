"""What the commands of `rainhill coordinator` share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rainhill.cli import stops_at_once

if TYPE_CHECKING:
    from server.home import Home
    from server.registry import Registry

File = click.Path(path_type=Path, dir_okay=False)
Folder = click.Path(path_type=Path, file_okay=False)


@dataclass(frozen=True, kw_only=True)
class Desk:
    folder: Path

    def home(self) -> Home:
        with stops_at_once():
            from server.home import Home

        return Home.open(self.folder)


def registry_of(home: Home) -> Registry:
    """Of a database that is open until the command is over."""
    with stops_at_once():
        from server.database import Database
        from server.registry import Registry

    database = Database.open(home.database_url)
    click.get_current_context().call_on_close(database.close)
    return Registry(database=database)


def operator() -> str:
    """Who runs the command, for the record of what was done."""
    import getpass
    import os

    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a number that has no name.
        return f"user {os.getuid()}"


def echo_json(document: object) -> None:
    import json

    click.echo(json.dumps(document, indent=1))
