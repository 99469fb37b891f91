"""`rainhill strategies`: the catalogue as a table, as JSON, or as the page docs/strategies.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rainhill.cli import stops_at_once

if TYPE_CHECKING:
    from strategies._catalogue import Entry

HEADINGS = {
    "rule": "Rules",
    "server_optimizer": "Server optimisers",
    "robust": "Robust rules",
    "personal": "Personalisation modes",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For a script: a list of objects.")
@click.option("--markdown", is_flag=True, help="The page docs/strategies.md.")
@click.option("--width", type=click.IntRange(min=1), default=384, show_default=True, help="Of a module, for the bytes.")
@click.option("--rank", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--modules", type=click.IntRange(min=1), default=24, show_default=True)
@click.option("--sites", "count", type=click.IntRange(min=2), default=2, show_default=True)
def strategies(as_json: bool, markdown: bool, width: int, rank: int, modules: int, count: int) -> None:
    """List what a recipe's [strategy] can name: rules, server optimisers, robust rules, personalisation modes."""
    with stops_at_once():
        import json

        from strategies._catalogue import as_rows, catalogue

    if as_json and markdown:
        raise click.UsageError("--json and --markdown are two forms of one list: give one of them")
    if rank > width:
        raise click.UsageError(f"--rank {rank} is above --width {width}")
    entries = catalogue(width=width, rank=rank, modules=modules, sites=count)
    sizes = f"{modules} modules of {width} x {width}, rank {rank}, {count} sites"
    if as_json:
        click.echo(json.dumps(as_rows(entries), indent=1))
    elif markdown:
        click.echo(_markdown(entries, sizes), nl=False)
    else:
        _print(entries, sizes)


def _cells(entry: Entry) -> list[str]:
    return [
        entry.name,
        f"{entry.uplink_bytes / 1024:.0f}",
        f"{entry.downlink_bytes / 1024:.0f}",
        {True: "yes", False: "no", None: ""}[entry.exact],
        "yes" if entry.linear else "no",
        str(entry.min_sites),
        "yes" if entry.mixed_ranks else "no",
        "void" if entry.void else entry.noise,
        entry.summary,
    ]


LINE = "{:<17}{:>6}{:>9}  {:<6}{:<7}{:>9}  {:<12}{}"
COLUMNS = ("name", "KiB up", "KiB down", "exact", "linear", "min sites", "mixed ranks", "DP noise", "what it does")


def _print(entries: list[Entry], sizes: str) -> None:
    """Two lines for each, narrow enough for 80 columns."""
    click.echo(f"{sizes}; KiB of a site and round")
    click.echo("exact: merges products, not factors. linear: sums are enough for it.")
    for kind, heading in HEADINGS.items():
        click.secho(f"\n{heading}  ({kind} = ...)", bold=True)
        click.secho(LINE.format(*COLUMNS[:-1]).rstrip(), underline=True)
        for entry in entries:
            if entry.kind == kind:
                *cells, summary = _cells(entry)
                click.echo(LINE.format(*cells).rstrip())
                click.secho(f"    {summary}", dim=True)


def _markdown(entries: list[Entry], sizes: str) -> str:
    from importlib import resources

    keep = ", ".join(f"`{entry.name}`" for entry in entries if entry.kind == "rule" and entry.keeps_basis)
    text = resources.files("strategies").joinpath("_catalogue.md").read_text(encoding="utf-8")
    lines = [text.replace("SIZES", sizes).replace("BASIS", keep)]
    for kind, heading in HEADINGS.items():
        lines += [f'\n## {heading}: `{kind} = "..."`\n', f"| {' | '.join(COLUMNS)} | keys | source |", "|" + "---|" * (len(COLUMNS) + 2)]
        for entry in entries:
            if entry.kind == kind:
                number = entry.source.removeprefix("arXiv:")
                source = f"[{entry.source}](https://arxiv.org/abs/{number})" if number != entry.source else entry.source
                keys = ", ".join(f"`{key}` = {_told(value)}" for key, value in entry.options.items())
                lines.append(f"| {' | '.join([f'`{entry.name}`', *_cells(entry)[1:]])} | {keys} | {source} |")
    return "\n".join(lines) + "\n"


def _told(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
