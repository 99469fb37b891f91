"""`rainhill simulate`: the researcher's way in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rainhill.cli import stops_at_once
from rainhill.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from sites.runs import Engine

HERE = Path(__file__).parent
RECIPES = HERE / "recipes"


@click.command()
@click.argument("recipe", required=False)
@click.option(
    "--sites",
    "sites_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of site files, one TOML per hospital.  [default: the six phantom hospitals]",
)
@click.option(
    "--engine",
    type=click.Choice(["inline", "flower"]),
    help="inline: all sites in this process. flower: Flower's simulation engine on Ray, also on a cluster.  [default: inline]",
)
@click.option("--seed", type=click.IntRange(min=0), help="In place of the recipe's own seed.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="RUN",
    help="Go on with the run in this folder, from its last finished round.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for everything the run leaves behind.  [default: runs/NAME-SEED]")
def simulate(
    recipe: str | None, sites_folder: Path | None, engine: Engine | None, seed: int | None, resume: Path | None, out: Path | None
) -> None:
    """Simulate a consortium of hospitals on this machine.

    RECIPE is a TOML file, or the name of one that ships with Rainhill (demo, six, cxr); `demo` where none is given.
    The sites train by themselves, together, and in one forbidden pool; results.json and report.html say what each was worth.
    """
    with stops_at_once():
        from rich.console import Console

        import strategies
        from sites.consortium import find_sites
        from sites.runs import Run, new_folder, resumed

    if resume is not None:
        if recipe or sites_folder or seed is not None or out:
            raise ConfigError("--resume goes on with a run as it began: give no RECIPE, --sites, --seed or --out with it")
        run = resumed(resume, engine)
    else:
        chosen, path = _read(recipe or "demo", seed)
        run = Run(
            folder=new_folder(chosen, out),
            recipe=chosen,
            recipe_folder=path.parent,
            sites_folder=sites_folder or HERE,
            engine=engine or "inline",
        )
    # What is wrong with a file is told before torch is imported, which takes seconds.
    strategies.from_section(run.recipe.strategy)
    find_sites(run.recipe, run.sites_folder)

    with stops_at_once():
        from sites.simulate import simulate as simulate_run

    try:
        with _Bar(Console(stderr=True)) as progress:
            document = simulate_run(run, cache=cache_folder(), progress=progress)
    except KeyboardInterrupt:
        raise ConfigError(
            f"stopped; go on with: rainhill simulate --resume {run.folder}" if run.begun else "stopped before anything was trained"
        ) from None
    _print_table(Console(), document)
    click.echo(f"{run.folder / 'report.html'}")


def cache_folder() -> Path:
    """Where phantoms and decoded films are kept from run to run."""
    import os

    return Path(os.environ.get("RAINHILL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rainhill")


def _read(name: str, seed: int | None) -> tuple[Any, Path]:
    """The recipe, with the seed asked for, and the file it came from."""
    import difflib

    from rainhill.recipe import read_recipe

    path = Path(name)
    embedded = {file.stem: file for file in sorted(RECIPES.glob("*.toml"))}
    if not path.exists() and path.suffix != ".toml":
        if name not in embedded:
            close = difflib.get_close_matches(name, embedded, n=1, cutoff=0.4)
            hint = f", did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"no file and no recipe is called {name!r}{hint} (there are: {', '.join(embedded)})")
        path = embedded[name]
    recipe = read_recipe(path)
    return (recipe if seed is None else recipe.model_copy(update={"seed": seed})), path


class _Bar:
    """A progress bar on a terminal; silence elsewhere."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._bar = Progress(
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def start(self, total: int) -> None:
        self._bar.update(self._task, total=total)

    def step(self, what: str) -> None:
        self._bar.update(self._task, advance=1, description=what)


def _print_table(console: Console, document: dict[str, Any]) -> None:
    """Mean AUROC of every hospital and arm, narrow enough for 80 columns."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    arms = ("base", "local", "shared", "private", "pooled")
    table = Table(
        title=escape(document["title"] or document["name"]), title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False
    )
    table.add_column("mean AUROC", overflow="ellipsis", no_wrap=True, max_width=21)
    for heading in (*arms, "gap"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=max(5, len(heading)))
    table.add_column("verdict", no_wrap=True, min_width=len("no different"))
    source = document["source"]
    if source and "auroc" in source:
        table.add_row(escape(source["title"]), _value(source), *[""] * len(arms), "source", style="dim")
    colours = {"better": "green", "worse": "red"}
    for site in document["sites"].values():
        verdict = site["verdict"]
        table.add_row(
            escape(site["title"]),
            *(_value(site[arm]) for arm in arms),
            _percent(site["recovered"]),
            f"[{colours.get(verdict, 'default')}]{verdict}[/]",
        )
    means = document["consortium"]
    table.add_section()
    cells = (f"{means[arm]:.3f}" if means[arm] is not None else "-" for arm in arms)
    table.add_row("mean over hospitals", *cells, _percent(means["recovered"]), "", style="bold")
    console.print(table)
    console.print(
        "base: as it arrived. local: each alone. shared: federated. private: federated, then its own part. "
        "pooled: all films in one place, which the real world forbids. gap: share of base to pooled that private closed.",
        style="dim",
    )
    kib, ratio = document["bytes_per_site_round"] / 1024, document["bytes_ratio"]
    console.print(
        f"{kib:.0f} KiB crossed per site and round, {ratio:.1f} times less than the whole model would take; "
        f"{document['seconds']:.0f} s, {document['peak_rss_mb'] / 1000:.1f} GB; no differential privacy in this run"
    )


def _value(arm: dict[str, Any]) -> str:
    return f"{arm['auroc']['value']:.3f}" if "auroc" in arm else "-"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"
