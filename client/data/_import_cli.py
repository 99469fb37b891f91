"""`rainhill import`: a public data set, or a table of one's own, as a site that can be simulated."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rainhill.cli import stops_at_once
from rainhill.text import counted, shown

if TYPE_CHECKING:
    from client.data.importers._selection import Tally
    from client.data.importers._site import Imported

HELP = """Make a site of the data set in FOLDER, which is laid out as LAYOUT says. Nothing is fetched, and no image is copied.

`rainhill import --list` tells the layouts and their options.
"""


def _list(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    from client.data.importers import describe, names

    for name in names():
        title, options = describe(name)
        click.echo(f"{name:<17} {title}{'' if not options else '; --set ' + ', '.join(options)}")
    context.exit()


@click.command("import", help=HELP, short_help="Make a site of a public data set.")
@click.argument("layout")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--out", required=True, metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="Where NAME.csv and NAME.toml go."
)
@click.option("--name", metavar="SITE", help="Of the site.  [default: the layout's]")
@click.option("--views", default="PA,AP,FRONTAL", show_default=True, metavar="V,V,...", help="Films of these views; `all` for all.")
@click.option("--limit", type=click.IntRange(min=1), metavar="PATIENTS", help="Only the first so many patients.")
@click.option("--findings", metavar="F,F,...", help="Only these labels.  [default: all of the set]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="An option of the layout; may be given several times.")
@click.option("--skip-missing", is_flag=True, help="Leave images out that the tables name and that are not there.")
@click.option("--replace", is_flag=True, help="Write over what an earlier import wrote.")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="Tell the layouts and their options.")
def import_(
    layout: str,
    folder: Path,
    out: Path,
    name: str | None,
    views: str,
    limit: int | None,
    findings: str | None,
    settings: tuple[str, ...],
    skip_missing: bool,
    replace: bool,
) -> None:
    with stops_at_once():
        from client.data.importers import from_options
        from client.data.importers._selection import Choice
        from client.data.importers._site import import_site, refuse_target

    chosen = from_options(layout, _options(settings))
    choice = Choice(
        views=None if views.strip().lower() == "all" else frozenset(one.upper() for one in _listed(views)),
        patients=limit,
        findings=_listed(findings or ""),
        skip_missing=skip_missing,
    )
    refuse_target(out, name or layout, replace=replace)
    made = import_site(chosen.read(folder), folder=folder, out=out, name=name or layout, title=chosen.title, choice=choice)
    click.echo(f"{chosen.title} in {folder}: {counted(made.tally.films, 'film')} of {counted(made.tally.patients, 'patient')}")
    _tell(made)
    click.echo(f"\nterms: {chosen.terms}. Look at them before you go on.")
    _tell_next(made, out)


def _options(settings: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for one in settings:
        key, given, value = one.partition("=")
        if not given or not key.strip():
            raise click.UsageError(f"--set {one}: expected KEY=VALUE")
        found[key.strip()] = value.strip()
    return found


def _listed(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (one.strip() for one in text.split(","))))


def _tell(made: Imported) -> None:
    tally = made.tally
    filled = tally.filled
    click.echo(
        f"  reports     {filled['report']} films with one, {filled['indication']} with an indication, {filled['prior']} with a prior report"
    )
    click.echo(f"  views       {_counts(tally.views)}")
    if tally.other_views:
        click.echo(f"  left out    {_counts(tally.other_views)} (--views all takes them)")
    if set(tally.parts) != {""}:
        click.echo(f"  patients    {_counts(tally.parts)}")
    if tally.labels:
        _tell_labels(tally)
    for note in made.notes:
        click.secho(f"note: {note}", fg="yellow")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{shown(name) or 'unknown'} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _tell_labels(tally: Tally) -> None:
    width = max(len(finding) for finding in tally.labels) + 2
    click.echo(f"  {'films':<{width}}{'there':>9}{'not there':>11}{'uncertain':>11}{'not labelled':>14}")
    for finding, counts in tally.labels.items():
        click.echo(f"  {finding:<{width}}{counts['1']:>9}{counts['0']:>11}{counts['-1']:>11}{counts['']:>14}")


def _tell_next(made: Imported, out: Path) -> None:
    click.echo(f"written: {made.manifest} and {made.site_file}")
    useful = [finding for finding, counts in made.tally.labels.items() if counts["1"] and counts["0"]]
    click.echo(f"next: rainhill simulate RECIPE.toml --sites {shlex.quote(str(out))}")
    if useful:
        click.echo("      where the recipe has findings = [" + ", ".join(f'"{finding}"' for finding in useful) + "], or some of them")
