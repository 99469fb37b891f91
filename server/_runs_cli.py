"""`rainhill coordinator run`, `status`, `stop` and `resume`: what an operator does with runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rainhill.cli import stops_at_once
from rainhill.errors import ProtocolError
from rainhill.text import counted, one_line
from server._desk import Desk, File, echo_json, operator, registry_of
from server._names import known_runs, known_sites

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rainhill.adapter import Adapter
    from rainhill.messages import RoundRecord
    from server.runs import Run, Runs

WIDE = 200
"""Characters of a line that somebody else wrote."""


@click.command()
@click.argument("recipe_file", metavar="RECIPE", type=File)
@click.option(
    "--adapter", "adapter_file", type=File, required=True, metavar="FILE", help="The adapter that round 1 begins from, safetensors."
)
@click.option("--name", metavar="RUN", help="What the run is called, for good.  [default: the recipe's name and today's date]")
@click.option(
    "--site",
    "sites",
    multiple=True,
    metavar="NAME",
    shell_complete=known_sites,
    help="A site that is asked. May be given more than once.  [default: the recipe's sites, or all that are enrolled]",
)
@click.option("--days", type=click.IntRange(1, 3650), default=14, show_default=True, help="For so long sites can approve it.")
@click.option("--json", "as_json", is_flag=True, help="For a script: the run as `status RUN --json` tells it.")
@click.pass_obj
def run(desk: Desk, recipe_file: Path, adapter_file: Path, name: str | None, sites: tuple[str, ...], days: int, as_json: bool) -> None:
    """Offer a run to the sites: what RECIPE, a TOML file, asks of them, signed with the consortium's key.

    Nothing is trained before people at the sites have approved it.
    """
    from rainhill.recipe import read_recipe

    home = desk.home()
    recipe, adapter = read_recipe(recipe_file), _adapter(adapter_file)
    registry = registry_of(home)
    with stops_at_once():
        from server.asking import new_offer
        from server.runs import Runs

    offer, sealed = new_offer(home, registry, recipe, adapter=adapter, run=name, sites=sites, days=days, by=operator())
    runs = Runs(database=registry.database)
    made = runs.offer(offer, sealed, by=operator())
    if as_json:
        echo_json(_described(runs, made))
        return
    asked = f"{counted(len(offer.sites), 'site')}: {', '.join(offer.sites)}"
    click.echo(f"{made.name}: recipe {recipe.name}, {made.sha256[:12]}, is offered to {asked}")
    click.echo(f"It begins from adapter {made.adapter[:12]}, and can be approved until {made.until:%Y-%m-%d %H:%M} UTC.")
    click.echo("Next: each hospital sees it with `rainhill site pending`, and a person there approves or refuses it.")
    click.echo(f"`rainhill coordinator status {made.name}` tells who did, and which rounds are done.")


@click.command()
@click.argument("name", metavar="[RUN]", required=False, shell_complete=known_runs)
@click.option("--json", "as_json", is_flag=True, help="For a script: an object with RUN, a list of them without.")
@click.pass_obj
def status(desk: Desk, name: str | None, as_json: bool) -> None:
    """Tell how runs stand: all of them, a line each, or one with its sites and its rounds."""
    runs = _runs(desk)
    if name is None:
        known = runs.runs()
        if as_json:
            echo_json([_described(runs, one) for one in known])
            return
        for one in known:
            done = f"{len(runs.adapters(one.name))} of {counted(one.round_count, 'round')}"
            click.echo(f"{one.name:30} {one.state:10} {done:16} {one.words}".rstrip())
        if not known:
            click.echo("no run was offered yet: `rainhill coordinator run` offers one", err=True)
        return
    one = runs.run(name)
    if as_json:
        echo_json(_described(runs, one))
    else:
        _tell(runs, one)


@click.command()
@click.argument("name", metavar="RUN", shell_complete=known_runs)
@click.pass_obj
def begin(desk: Desk, name: str) -> None:
    """Begin RUN's rounds with the sites that have approved it, without waiting for the others. They may join at a later round."""
    _runs(desk).begin(name, by=operator())
    click.echo(f"{name} begins")


@click.command()
@click.argument("name", metavar="RUN", shell_complete=known_runs)
@click.option("--reason", required=True, help="Kept, and shown where the run is.")
@click.pass_obj
def stop(desk: Desk, name: str, reason: str) -> None:
    """Stop a run: no further round of it begins. Rounds that are done are kept."""
    _runs(desk).stop(name, reason=reason, by=operator())
    click.echo(f"{name} is stopped. `rainhill coordinator resume {name}` goes on with it.")


@click.command()
@click.argument("name", metavar="RUN", shell_complete=known_runs)
@click.pass_obj
def resume(desk: Desk, name: str) -> None:
    """Go on with a run that was stopped or failed, after the last round that is done."""
    from datetime import UTC, datetime

    runs = _runs(desk)
    runs.resume(name, by=operator(), now=datetime.now(UTC))
    one = runs.run(name)
    after = f"is running again, after {len(runs.adapters(name))} of {counted(one.round_count, 'round')}"
    click.echo(f"{name} {after if one.state == 'running' else 'is offered again'}.")


def _runs(desk: Desk) -> Runs:
    registry = registry_of(desk.home())
    with stops_at_once():
        from server.runs import Runs

    return Runs(database=registry.database)


def _adapter(path: Path) -> Adapter:
    with stops_at_once():
        from rainhill.adapter import Adapter

    try:
        return Adapter.from_bytes(path.read_bytes())
    except ProtocolError as error:
        raise ProtocolError(f"{path}: {error}") from error


def _tell(runs: Runs, one: Run) -> None:
    click.echo(f"{one.name}: {one.state}{f': {one.words}' if one.words else ''}")
    click.echo(f"recipe {one.sha256[:12]}, offered by {one.by} on {one.made:%Y-%m-%d %H:%M} UTC")
    click.echo(f"to be approved until {one.until:%Y-%m-%d %H:%M} UTC; who stands how:")
    for standing in runs.standings(one.name).values():
        click.echo(f"  {standing.site:20} {standing.state:10} since {standing.since:%Y-%m-%d %H:%M} UTC  {standing.reason}".rstrip())
        if standing.delivered:
            click.echo(f"  {'':20} the result: {standing.delivered}")
        if standing.told is not None:
            click.echo(f"  {'':20} {standing.told.title}, {100 * standing.told.confidence:g} % intervals:")
            for line in standing.told.lines():
                click.echo(f"  {'':20}   {line}")
    records = runs.rounds(one.name)
    click.echo(f"{len(records)} of {counted(one.round_count, 'round')} done{f', {_crossed(*records)}' if records else ''}")
    for record in records:
        click.echo(f"  {record.round:4}  {len(record.answered)} of {len(record.asked)} sites  {record.seconds:8.1f} s  {_crossed(record)}")
        for site, reason in record.refused.items():
            click.echo(f"        without {site}: {one_line(reason, WIDE)}")
    if one.result is not None and one.finished is not None:
        click.echo(f"finished on {one.finished:%Y-%m-%d %H:%M} UTC with adapter {one.result}")


def _described(runs: Runs, one: Run) -> dict[str, object]:
    records, adapters = runs.rounds(one.name), runs.adapters(one.name)
    return {
        "name": one.name,
        "state": one.state,
        "words": one.words,
        "recipe": one.sha256,
        "adapter": one.adapter,
        "by": one.by,
        "made": one.made.isoformat(),
        "until": one.until.isoformat(),
        "finished": one.finished.isoformat() if one.finished else None,
        "result": one.result,
        "rounds_asked": one.round_count,
        "rounds_done": len(records),
        "sites": [
            {
                "name": site.site,
                "state": site.state,
                "reason": site.reason,
                "since": site.since.isoformat(),
                "delivered": site.delivered,
                "told": site.told.model_dump(mode="json") if site.told else None,
            }
            for site in runs.standings(one.name).values()
        ],
        "rounds": [_described_round(record, adapters) for record in records],
    }


def _described_round(record: RoundRecord, adapters: Mapping[int, str]) -> dict[str, object]:
    return {
        "round": record.round,
        "asked": list(record.asked),
        "answered": list(record.answered),
        "left_out": dict(record.refused),
        "down_bytes": dict(record.down_bytes),
        "up_bytes": dict(record.up_bytes),
        "seconds": round(record.seconds, 1),
        "adapter": adapters.get(record.round),
    }


def _crossed(*records: RoundRecord) -> str:
    down, up = (sum(sum(sizes.values()) for sizes in some) for some in ([r.down_bytes for r in records], [r.up_bytes for r in records]))
    return f"{down / 2**20:.2f} MiB down, {up / 2**20:.2f} MiB up"
