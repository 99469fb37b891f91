"""`rainhill coordinator watch`: runs as they go on, in the terminal, or line by line where there is none."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from rainhill.cli import stops_at_once
from rainhill.errors import DatabaseError
from server._desk import Desk, registry_of
from server._names import known_runs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from server.runs import Runs
    from server.watch import Change, Look

NOT_DONE = 1
LOOK_S = 1.0
ROUNDS = 5
"""Of one run, that a terminal shows."""


@click.command()
@click.argument("name", metavar="[RUN]", required=False, shell_complete=known_runs)
@click.option("--json", "as_json", is_flag=True, help="For a script: one JSON object a line, one line per change.")
@click.pass_obj
def watch(desk: Desk, name: str | None, as_json: bool) -> None:
    """Follow RUN, or all runs that are offered or running, until they are over.

    Exit code 0 where each has finished, 1 where one failed or was stopped. Ctrl-C ends only the watching.
    """
    registry = registry_of(desk.home())
    with stops_at_once():
        from server.runs import Runs

    runs = Runs(database=registry.database)
    names = [runs.run(name).name] if name else [run.name for run in reversed(runs.active())]
    if not names:
        click.echo("no run is offered or running", err=True)
    elif not _follow(runs, names, as_json=as_json):
        sys.exit(NOT_DONE)


def _follow(runs: Runs, names: list[str], *, as_json: bool) -> bool:
    """Whether all have finished."""
    from server.watch import changes, look

    seen: dict[str, Look] = {}
    problem = ""
    screen = _Screen() if sys.stdout.isatty() and not as_json else None
    # Without a screen that is to be left as it was, Ctrl-C needs no exception, which can be lost in a destructor.
    with screen or stops_at_once():
        while True:
            try:
                for one in names:
                    now = look(runs, one)
                    if screen is None:
                        _tell(changes(seen.get(one), now), as_json=as_json)
                    seen[one] = now
                problem = ""
            except DatabaseError as error:
                # What is watched goes on without whoever looks, and may do so for days.
                if str(error) != problem:
                    click.echo(f"{error}; trying again", err=True)
                problem = str(error)
            if screen is not None:
                screen.show(seen.values(), problem)
            if len(seen) == len(names) and all(one.is_over for one in seen.values()):
                return all(one.run.state == "finished" for one in seen.values())
            time.sleep(LOOK_S)


def _tell(changed: Iterable[Change], *, as_json: bool) -> None:
    import json

    for one in changed:
        now = datetime.now(UTC)
        if as_json:
            click.echo(json.dumps({"time": now.isoformat(timespec="seconds"), "run": one.run, "what": one.what, **one.detail}))
        else:
            click.echo(f"{now:%Y-%m-%d %H:%M:%S} UTC  {one.run}: {one.words}")


class _Screen:
    """A terminal in which the runs stay where they are and change; the last look stays when it ends."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(auto_refresh=False, redirect_stderr=False, redirect_stdout=False)

    def __enter__(self) -> None:
        self._live.__enter__()

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, seen: Iterable[Look], problem: str) -> None:
        from rich.console import Group
        from rich.text import Text

        shown: list[RenderableType] = [_shown(one) for one in seen]
        if problem:
            shown.append(Text(f"{problem}; trying again", style="red"))
        self._live.update(Group(*shown), refresh=True)


def _shown(one: Look) -> RenderableType:
    """Texts, not markup: what sites and operators wrote may hold brackets."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    from server.watch import changes

    told = list(changes(None, one))
    head = Table.grid(padding=(0, 2))
    head.add_row(Text(one.run.name, style="bold"), ProgressBar(total=one.run.round_count, completed=len(one.rounds), width=40))
    sites, rounds = ([change.words for change in told if change.what == what] for what in ("site", "round"))
    rows = sites + rounds[-ROUNDS:]
    return Group(head, Text(told[-1].words, overflow="fold"), *(Text(f"  {words}", overflow="fold") for words in rows), Text(""))
