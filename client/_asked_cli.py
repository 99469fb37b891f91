"""`rainhill site pending`, `approve`, `refuse`, `held` and so on: what a hospital's people decide, and what they can look up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from client._names import held_runs, offered_runs
from rainhill.cli import stops_at_once
from rainhill.errors import RefusedError
from rainhill.text import did_you_mean

if TYPE_CHECKING:
    from client.home import SiteHome
    from client.offers import Offers

File = click.Path(path_type=Path, dir_okay=False)
Site = click.argument("site_file", metavar="SITE.toml", type=File)
LONGEST_NAME, LONGEST_REASON = 200, 2000


def _line(context: click.Context, parameter: click.Parameter, text: str) -> str:  # noqa: ARG001 - click's signature
    longest = LONGEST_NAME if parameter.name == "by" else LONGEST_REASON
    if not text.strip() or not text.isprintable() or len(text) > longest:
        raise click.BadParameter(f"is one line of 1 to {longest} characters that can be printed")
    return text


By = click.option(
    "--by",
    metavar="NAME",
    required=True,
    callback=_line,
    help="Who decides: it is written into the site's journal, and does not leave.",
)
Which = click.option("--update", metavar="SHA256", default="", help="The one that begins so, where two of the round are held.")
AsJson = click.option("--json", "as_json", is_flag=True, help="For a script.")


@click.command()
@Site
@click.option("--all", "everything", is_flag=True, help="Also what was decided before.")
@AsJson
def pending(site_file: Path, everything: bool, as_json: bool) -> None:
    """Show what the site is asked to take part in, and waits for somebody to decide."""
    from client._asked_text import asked_text
    from client.asked import asked

    offers = _offers(site_file)
    found = [one for one in (asked(offers, run) for run in offers.names()) if everything or one.state == "pending"]
    if as_json:
        _echo_json(found)
    elif not found:
        click.echo("nothing waits for a decision")
    for one in found if not as_json else ():
        click.echo(asked_text(one), nl=False)


@click.command()
@Site
@click.argument("run", shell_complete=offered_runs)
@By
@click.option("--rounds", type=click.IntRange(min=1), help="For so many rounds; for all of the recipe's where not given.")
@click.option("--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="For so many days.")
@click.option("--repeats", type=click.IntRange(0, 1000), default=0, show_default=True, help="Also so many further runs of this recipe.")
def approve(site_file: Path, run: str, by: str, rounds: int | None, days: int, repeats: int) -> None:
    """Approve RUN: its recipe, by its sha256, and nothing else."""
    approved = _offers(site_file).approve(run, by=by, rounds=rounds, days=days, repeats=repeats)
    click.echo(
        f"run {run} is approved by {approved.by}: recipe {approved.recipe[:12]}, {approved.rounds} rounds, "
        f"until {approved.until:%Y-%m-%d %H:%M} UTC" + (f", and {repeats} further runs of it" if repeats else "")
    )
    _warn_of_clock(site_file)


def _warn_of_clock(site_file: Path) -> None:
    """What is written down bears this machine's time, and an approval ends by it."""
    from client.home import SiteHome
    from client.status import status_of

    ahead = status_of(SiteHome.open(site_file))["clock_ahead_s"]
    if ahead:
        side = "ahead of" if ahead > 0 else "behind"
        click.echo(f"this machine's clock is {abs(ahead):.0f} s {side} the coordinator's: see `rainhill site check`", err=True)


@click.command()
@Site
@click.argument("run", shell_complete=offered_runs)
@By
@click.option("--reason", required=True, callback=_line, help="The consortium is told: write nothing that tells of a patient.")
def refuse(site_file: Path, run: str, by: str, reason: str) -> None:
    """Refuse RUN, or take back that it was approved."""
    _offers(site_file).decline(run, by=by, reason=reason)
    click.echo(f"run {run} is refused; the coordinator is told when it asks next")


@click.command()
@Site
@AsJson
def held(site_file: Path, as_json: bool) -> None:
    """List the updates that wait to be released."""
    from client._asked_text import held_text
    from client.egress import held_updates

    offers = _offers(site_file)
    found = held_updates(offers.home, offers.journal)
    if as_json:
        _echo_json(found)
        return
    for one in found:
        click.echo(held_text(one, offers.home.config.policy.max_update_norm), nl=False)
    if not found:
        click.echo("no update is held")


@click.command()
@Site
@click.argument("run", shell_complete=held_runs)
@click.argument("number", metavar="ROUND", type=click.IntRange(min=1))
@By
@Which
def release(site_file: Path, run: str, number: int, by: str, update: str) -> None:
    """Let the held update of RUN's ROUND leave."""
    from client.egress import decide_held

    offers = _offers(site_file)
    sha256 = decide_held(offers.home, offers.journal, run, number, by=by, update=update)
    click.echo(f"update {sha256[:12]} of run {run}, round {number}, is released; it leaves when the coordinator asks next")


@click.command()
@Site
@click.argument("run", shell_complete=held_runs)
@click.argument("number", metavar="ROUND", type=click.IntRange(min=1))
@By
@Which
@click.option("--reason", required=True, callback=_line, help="Kept in the site's journal; it does not leave.")
def withhold(site_file: Path, run: str, number: int, by: str, update: str, reason: str) -> None:
    """Never let the held update of RUN's ROUND leave. What it has cost in privacy stays charged."""
    from client.egress import decide_held

    offers = _offers(site_file)
    sha256 = decide_held(offers.home, offers.journal, run, number, by=by, update=update, withheld=reason)
    click.echo(f"update {sha256[:12]} of run {run}, round {number}, is withheld")


@click.command()
@Site
@click.option("--verify", is_flag=True, help="Only check that no entry was changed or is gone; exit code 2 where one was or is.")
@AsJson
def log(site_file: Path, verify: bool, as_json: bool) -> None:
    """Tell what the site was asked, what was decided, and what left."""
    from client._asked_text import entry_text

    offers = _offers(site_file)
    entries = offers.journal.entries()
    if verify:
        newest = entries[-1].hash if entries else ""
        if as_json:
            _echo_json({"journal": str(offers.journal.path), "entries": len(entries), "newest": newest})
        else:
            click.echo(f"{offers.journal.path}: {len(entries)} entries hold, the newest has hash {newest}")
        return
    if as_json:
        _echo_json([{"time": one.time, "kind": one.kind, **offers.journal.event(one).model_dump(mode="json")} for one in entries])
        return
    for one in entries:
        click.echo(entry_text(one.time, offers.journal.event(one)))


@click.command()
@Site
@click.argument("run", required=False, shell_complete=offered_runs)
@AsJson
def outcome(site_file: Path, run: str | None, as_json: bool) -> None:
    """Tell what runs came to at this site, or one: measured on its own held-out patients."""
    from client._asked_text import outcome_text
    from client.home import outcomes

    home = _home(site_file)
    found = outcomes(home)
    if run is not None and run not in found:
        raise RefusedError(f"run {run}: has no outcome here{did_you_mean(run, found)} (there are: {', '.join(found) or 'none'})")
    shown = [found[run]] if run is not None else list(found.values())
    if as_json:
        _echo_json(shown)
        return
    for one in shown:
        click.echo(outcome_text(one), nl=False)
    if not shown:
        click.echo("no run has come to an end here")


@click.command()
@Site
@By
def pause(site_file: Path, by: str) -> None:
    """Work on nothing until `resume`; a fit that has begun is finished, and its update stays."""
    from client import pausing

    home = _home(site_file)
    pausing.pause(home, by=by)
    click.echo(f"{home.config.name} has paused; `rainhill site resume` goes on")


@click.command()
@Site
@By
def resume(site_file: Path, by: str) -> None:
    """Go on after a pause."""
    from client import pausing

    home = _home(site_file)
    pausing.resume(home, by=by)
    click.echo(f"{home.config.name} goes on")


COMMANDS = (pending, approve, refuse, held, release, withhold, log, outcome, pause, resume)


def _home(site_file: Path) -> SiteHome:
    with stops_at_once():
        from client.home import SiteHome

    return SiteHome.open(site_file)


def _offers(site_file: Path) -> Offers:
    """Of a site that has joined a consortium."""
    home = _home(site_file)
    home.bundle()
    with stops_at_once():
        from client.offers import Offers

    return Offers.open(home)


def _echo_json(document: object) -> None:
    import json
    from dataclasses import asdict, is_dataclass

    def plain(one: object) -> object:
        return asdict(one) if is_dataclass(one) and not isinstance(one, type) else str(one)

    click.echo(json.dumps(document, indent=1, default=plain))
