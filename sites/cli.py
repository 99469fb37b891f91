"""`rainhill simulate`: the researcher's way in."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rainhill.cli import stops_at_once
from rainhill.errors import ConfigError
from rainhill.text import did_you_mean, shown

if TYPE_CHECKING:
    from rich.console import Console

    from rainhill.config import BasePrecision, Device
    from sites.runs import Engine

HERE = Path(__file__).parent
RECIPES = HERE / "recipes"
SEEDS = 2**63


@click.command()
@click.argument("recipe", required=False)
@click.option(
    "--sites",
    "sites_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of site files, one TOML per hospital.  [default: that of a recipe that ships with one of its name, or the six phantom "
    "hospitals]",
)
@click.option(
    "--engine",
    type=click.Choice(["inline", "flower"]),
    help="inline: all sites in this process. flower: Flower's simulation engine on Ray, also on a cluster.  [default: inline]",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Where networks compute; auto takes a GPU where there is one, and another device gives other numbers.  [default: cpu]",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "nf4"]),
    help="Of the frozen base model's weights; adapters are float32. auto: float32 on the CPU, bfloat16 on a GPU, or nf4 (4 bits, by "
    "bitsandbytes) where the GPU is too small for that.  [default: float32]",
)
@click.option("--seed", type=click.IntRange(min=0, max=SEEDS - 1), help="In place of the recipe's own seed.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="RUN",
    help="Go on with the run in this folder, from its last finished round.",
)
@click.option(
    "--compare",
    metavar="A,B,...",
    help="Compare strategies on the same sites and seeds, each NAME or NAMES joined by +; `rainhill strategies` lists them, and bf16, int8 "
    "or top_k compresses updates.",
)
@click.option("--seeds", metavar="N,N,...", help="With --compare: as many runs of each.  [default: the recipe's own seed]")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for all that is left behind.  [default: runs/NAME-SEED, or runs/NAME-compare]"
)
def simulate(
    recipe: str | None,
    sites_folder: Path | None,
    engine: Engine | None,
    device: Device | None,
    precision: BasePrecision | None,
    seed: int | None,
    resume: Path | None,
    compare: str | None,
    seeds: str | None,
    out: Path | None,
) -> None:
    """Simulate a consortium of hospitals on this machine.

    RECIPE is a TOML file, or the name of one that ships with Rainhill (demo, six, private, reporting, cxr); `demo` where none is given.
    The sites train by themselves, together, and in one forbidden pool; results.json and report.html say what each was worth.
    """
    with stops_at_once():
        from rich.console import Console

        import strategies
        from rainhill.secagg import check_sites
        from sites.consortium import find_sites, refuse_without_source
        from sites.runs import Run, new_folder, resumed

    if compare is not None:
        if resume is not None or seed is not None or engine is not None:
            raise ConfigError("--compare takes --seeds, and goes on by itself in its --out: give no --resume, --engine or --seed with it")
        if device is not None or precision is not None:
            raise ConfigError("--compare computes on the CPU, in float32: give no --device or --precision with it")
        _compare(recipe or "demo", compare, seeds, sites_folder or _sites_of(recipe), out)
        return
    if seeds is not None:
        raise ConfigError("--seeds goes with --compare; one run takes --seed")
    if resume is not None:
        if recipe or sites_folder or seed is not None or out or device or precision:
            raise ConfigError(
                "--resume goes on with a run as it began: give no RECIPE, --sites, --seed, --device, --precision or --out with it"
            )
        run = resumed(resume, engine)
    else:
        chosen, path = read_named(recipe or "demo", seed)
        run = Run(
            folder=new_folder(chosen, out),
            recipe=chosen,
            recipe_folder=path.parent,
            sites_folder=sites_folder or _sites_of(recipe),
            engine=engine or "inline",
            device=device or "cpu",
            precision=precision or "float32",
        )
    # What is wrong with a file is told before torch is imported, which takes seconds.
    with _said_of(f"recipe {run.recipe.name}"):
        strategy = strategies.from_recipe(run.recipe)
    asked = find_sites(run.recipe, run.sites_folder)
    refuse_without_source(run.recipe, run.sites_folder)
    strategies.refuse_few(strategy, len(asked), f"recipe {run.recipe.name}")
    if run.recipe.secure_aggregation is not None:
        check_sites([site.name for site in asked], dropouts=run.recipe.secure_aggregation.dropouts)

    with stops_at_once():
        from sites.simulate import simulate as simulate_run
        from sites.tables import print_run

    try:
        with _Bar(Console(stderr=True)) as progress:
            document = simulate_run(run, cache=cache_folder(), progress=progress)
    except KeyboardInterrupt:
        raise ConfigError(
            f"stopped; go on with: rainhill simulate --resume {run.folder}" if run.begun else "stopped before anything was trained"
        ) from None
    print_run(Console(), document)
    click.echo(f"{run.folder / 'report.html'}")


def _sites_of(recipe: str | None) -> Path:
    """Of a recipe that ships with Rainhill: the folder of its name, where there is one."""
    own = HERE / recipe if recipe is not None and (RECIPES / f"{recipe}.toml").exists() else HERE
    return own if own.is_dir() else HERE


def _compare(name: str, names: str, seeds: str | None, sites_folder: Path, out: Path | None) -> None:
    import strategies

    with stops_at_once():
        from rich.console import Console

        from sites.compare import check_comparison_folder, compare, entrants
        from sites.consortium import find_sites, refuse_without_source
        from sites.tables import print_comparison

    recipe, path = read_named(name, None)
    asked = entrants(names, recipe)
    count = len(find_sites(recipe, sites_folder))
    refuse_without_source(recipe, sites_folder)
    for one in asked:
        with _said_of(f"--compare {one.name}"):
            strategy = strategies.from_recipe(one.recipe)
        strategies.refuse_few(strategy, count, f"--compare {one.name}")
    chosen = [recipe.seed] if seeds is None else _seeds(seeds)
    folder = out or Path("runs") / f"{recipe.name}-compare"
    check_comparison_folder(folder, recipe)
    try:
        with _Bar(Console(stderr=True)) as progress:
            document = compare(
                recipe,
                asked,
                recipe_folder=path.parent,
                sites_folder=sites_folder,
                seeds=chosen,
                out=folder,
                cache=cache_folder(),
                progress=progress,
            )
    except KeyboardInterrupt:
        raise ConfigError(f"stopped; the same command with --out {folder} goes on from the last finished round") from None
    print_comparison(Console(), document)
    click.echo(f"{folder / 'comparison.png'}")


@contextmanager
def _said_of(what: str) -> Iterator[None]:
    """Puts in front of a refusal what it is about."""
    try:
        yield
    except ConfigError as error:
        raise type(error)(f"{what}: {error}") from error


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(one) for one in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--seeds {shown(text)!r}: expected numbers separated by commas, such as 0,1,2") from error
    if min(seeds) < 0 or max(seeds) >= SEEDS or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {shown(text)!r}: expected different numbers from 0 to 2**63 - 1")
    return seeds


def cache_folder() -> Path:
    """Where phantoms and decoded films are kept from run to run."""
    import os

    return Path(os.environ.get("RAINHILL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rainhill")


def read_named(name: str, seed: int | None) -> tuple[Any, Path]:
    """The recipe, with the seed asked for, and the file it came from."""
    from rainhill.recipe import read_recipe

    path = Path(name)
    embedded = {file.stem: file for file in sorted(RECIPES.glob("*.toml"))}
    if not path.exists() and path.suffix != ".toml":
        if name not in embedded:
            hint = did_you_mean(name, embedded, cutoff=0.4)
            raise ConfigError(f"no file and no recipe is called {name!r}{hint} (there are: {', '.join(embedded)})")
        path = embedded[name]
    recipe = read_recipe(path)
    return (recipe if seed is None else recipe.model_copy(update={"seed": seed})), path


class _Bar:
    """A progress bar on a terminal; silence elsewhere. A Ctrl-C that got lost in a destructor is raised again at the next step."""

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
        self._stopped = False
        self._before = signal.signal(signal.SIGINT, self._stop)
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
        signal.signal(signal.SIGINT, self._before)

    def _stop(self, *_: object) -> None:
        self._stopped = True
        raise KeyboardInterrupt

    def start(self, total: int) -> None:
        self._bar.update(self._task, total=total)

    def step(self, what: str) -> None:
        if self._stopped:
            raise KeyboardInterrupt
        self._bar.update(self._task, advance=1, description=what)
