"""`rainhill site privacy`: a hospital's ledger, told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rainhill.cli import stops_at_once

if TYPE_CHECKING:
    from client.privacy.ledger import Ledger
    from client.privacy.statement import Snapshot
    from rainhill.config import SiteConfig

REFUSED = 1
File = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("site_file", metavar="SITE.toml", type=File)
@click.option("--json", "as_json", is_flag=True, help="For a script: one object.")
@click.option("--plot", type=File, metavar="FILE.png", help="Draw epsilon spent against the budget, charge by charge, too.")
@click.option("--verify", is_flag=True, help="Only check that no entry was changed or is gone; exit code 2 where one was or is.")
@click.option(
    "--expect",
    metavar="HASH",
    help="With --verify: the newest hash of an earlier --verify, kept elsewhere; a ledger that was put back to before it is found by this.",
)
@click.option(
    "--what-if",
    "recipe_file",
    type=File,
    metavar="RECIPE.toml",
    help="What a run of this recipe would cost, before it is accepted; exit code 1 where the site would refuse it.",
)
@click.option("--patients", type=click.IntRange(min=1), metavar="N", help="With --what-if: how many training patients the site has for it.")
def privacy(
    site_file: Path, as_json: bool, plot: Path | None, verify: bool, expect: str | None, recipe_file: Path | None, patients: int | None
) -> None:
    """Tell what the patients of a site have spent, from its ledger."""
    if sum([verify, plot is not None, recipe_file is not None]) > 1:
        raise click.UsageError("--verify, --plot and --what-if are three questions: ask one of them")
    if (recipe_file is None) != (patients is None):
        raise click.UsageError("--what-if RECIPE.toml and --patients N go together")
    if expect is not None and not verify:
        raise click.UsageError("--expect HASH goes with --verify")
    with stops_at_once():
        from client.privacy.ledger import Ledger
        from rainhill.config import SiteConfig, state_folder
        from rainhill.toml import read_toml

    config = read_toml(site_file, SiteConfig)
    folder = state_folder(site_file, config)
    # Verified; None where the site has none yet.
    ledger = Ledger.existing(folder, site=config.name)
    if verify:
        _verify(ledger, folder, expect, as_json)
    elif recipe_file is not None and patients is not None:
        _what_if(recipe_file, patients, ledger, config, as_json)
    else:
        _state(ledger, config, as_json, plot)


def _snapshot(ledger: Ledger | None) -> Snapshot:
    from client.privacy.statement import Snapshot

    return Snapshot.of(ledger)


def _verify(ledger: Ledger | None, folder: Path, expect: str | None, as_json: bool) -> None:
    from rainhill.errors import LedgerError

    snapshot = _snapshot(ledger)
    if expect is not None and all(entry.hash != expect for entry in snapshot.entries):
        raise LedgerError(f"{folder}: none of {len(snapshot.entries)} entries has hash {expect}: the ledger was put back, or is another")
    path, held = str(ledger.path) if ledger else "", len(snapshot.entries)
    newest = snapshot.entries[-1].hash if snapshot.entries else ""
    if as_json:
        _echo_json({"ledger": path, "entries": held, "newest": newest})
    else:
        click.echo(f"{path}: {held} entries hold, the newest has hash {newest}" if path else f"there is no ledger yet in {folder}")


def _state(ledger: Ledger | None, config: SiteConfig, as_json: bool, plot: Path | None) -> None:
    from dataclasses import asdict
    from datetime import UTC, datetime

    from client.privacy._text import statement_text
    from client.privacy.statement import state
    from client.privacy.year import last_year
    from rainhill.files import write_whole

    snapshot = _snapshot(ledger)
    statement = state(config.name, snapshot, config.privacy, last_year=last_year(snapshot, datetime.now(UTC)))
    if as_json:
        _echo_json(asdict(statement))
    else:
        click.echo(statement_text(statement), nl=False)
    if plot is not None:
        from client.privacy._plot import draw

        write_whole(plot, draw(config.title or config.name, snapshot, limit=statement.budget, delta=statement.delta))
        click.echo(str(plot), err=as_json)


def _what_if(recipe_file: Path, patients: int, ledger: Ledger | None, config: SiteConfig, as_json: bool) -> None:
    from dataclasses import asdict
    from datetime import UTC, datetime

    from client.privacy._text import what_if_text
    from client.privacy.what_if import what_if
    from rainhill.recipe import read_recipe

    found = what_if(read_recipe(recipe_file), patients, _snapshot(ledger), config.privacy, now=datetime.now(UTC))
    if as_json:
        _echo_json(asdict(found))
    else:
        click.echo(what_if_text(found), nl=False)
    if found.refused:
        sys.exit(REFUSED)


def _echo_json(document: object) -> None:
    import json

    click.echo(json.dumps(document, indent=1))
