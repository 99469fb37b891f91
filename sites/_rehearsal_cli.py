"""`rainhill rehearse`: a consortium from nothing to its last round, on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from rainhill.cli import stops_at_once

Folder = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("recipe", default="rehearsal")
@click.option(
    "--sites", "sites_folder", type=Folder, help="Folder of site files that say how to draw them.  [default: the six phantom hospitals]"
)
@click.option(
    "--out",
    type=Folder,
    default=Path("runs/rehearsal"),
    show_default=True,
    help="Folder for all of it; of an earlier rehearsal, its films are used again.",
)
@click.option("--compare", is_flag=True, help="Also simulate the same recipe, and tell how far the two shared adapters are apart.")
@click.option(
    "--namespaces",
    is_flag=True,
    help="Coordinator and hospitals in network namespaces of their own, each hospital with one cable, to the coordinator. Linux, as root.",
)
@click.option("--stay", is_flag=True, help="Keep the daemons running at the end, until Ctrl-C.")
def rehearse(recipe: str, sites_folder: Path | None, out: Path, compare: bool, namespaces: bool, stay: bool) -> None:
    """Rehearse a consortium: a coordinator and phantom hospitals, on this machine, by the commands that people type.

    RECIPE is a TOML file, or the name of one that ships with Rainhill. Every command is printed before it is run. Ctrl-C ends it at any
    moment, and with it all that it started.
    """
    with stops_at_once():
        from contextlib import nullcontext

        from rainhill.files import held
        from rainhill.supervise import stopped_by_signals
        from sites.cli import read_named
        from sites.consortium import HERE, find_sites, refuse_without_source
        from sites.namespaces import HOST, laid
        from sites.processes import Processes
        from sites.rehearsal import HUB, LOCK, Rehearsal, clear, cores_each, refuse_taken

    read, path = read_named(recipe, None)
    folder, sites = out.absolute(), find_sites(read, sites_folder or HERE)
    refuse_without_source(read, sites_folder or HERE)
    refuse_taken(folder)
    stop = stopped_by_signals()
    threads = {"OMP_NUM_THREADS": str(cores_each(sites))}
    network = laid(HUB, [site.name for site in sites]) if namespaces else nullcontext()
    with held(folder / LOCK, "a rehearsal"), network as ground, Processes(stop=stop, environment=threads) as processes:
        clear(folder, sites)
        if ground is not None:
            processes.within = lambda cwd: () if cwd == folder else ground.within(cwd.name)
        rehearsal = Rehearsal(
            folder=folder,
            recipe=read,
            recipe_file=path.absolute(),
            sites_folder=sites_folder.absolute() if sites_folder else None,
            sites=sites,
            processes=processes,
            say=click.echo,
            host=HOST if namespaces else "",
        )
        rehearsal.rehearse(compare=compare)
        rehearsal.further()
        if stay:
            click.echo("The daemons go on until Ctrl-C.")
            stop.wait()
