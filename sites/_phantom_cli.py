"""`rainhill phantom` and `rainhill adapter`: what a rehearsal of a consortium begins with, made where torch is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rainhill.cli import stops_at_once
from rainhill.errors import ConfigError, RefusedError
from rainhill.text import did_you_mean

if TYPE_CHECKING:
    from sites.hospital import HospitalConfig

Folder = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("name")
@click.option(
    "--sites",
    "sites_folder",
    type=Folder,
    envvar="RAINHILL_SITES",
    show_envvar=True,
    help="Folder of site files.  [default: the six phantom hospitals]",
)
@click.option("--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True, help="Another one draws other patients.")
@click.option("--out", type=Folder, metavar="FOLDER", help="NAME where not given.")
def phantom(name: str, sites_folder: Path | None, seed: int, out: Path | None) -> None:
    """Draw the phantom hospital NAME: its films as DICOM, their manifest, and a site file for `rainhill site` to rehearse with."""
    with stops_at_once():
        import tomli_w

        from rainhill.config import SiteConfig
        from rainhill.files import write_whole
        from rainhill.toml import parse
        from sites import hospital
        from sites.consortium import HERE, read_sites

    known = read_sites(sites_folder or HERE)
    if not known:
        raise ConfigError(f"{sites_folder}: there is no site file in it")
    if name not in known:
        raise ConfigError(f"no hospital is called {name!r}{did_you_mean(name, known)} (there are: {', '.join(known)})")
    config, folder = known[name].config, out or Path(name)
    if config.phantom is None:
        raise ConfigError(f"{name}: is no phantom: its file names films of its own")
    _refuse_others(config, folder, seed)
    folder.mkdir(parents=True, exist_ok=True)
    hospital.write(config, folder, seed=seed)
    data = hospital.data_config(Path()).model_dump(mode="json", exclude_defaults=True)
    document = {
        "name": config.name,
        "title": config.title,
        "data": data,
        # Of phantoms nobody has to be protected, and a rehearsal is to come out as the simulation does.
        "privacy": {"epsilon": 8.0, "declared_patients": hospital.training_patients(config, seed=seed), "noise": "simulated"},
    }
    parse(document, SiteConfig, origin=name)
    path = folder / f"{name}.toml"
    if path.exists():
        click.echo(f"{path}: is there already, and stays as it is")
    else:
        write_whole(path, tomli_w.dumps(document).encode())
        click.echo(f"{path}: next, `rainhill site init {path}`")


def _refuse_others(config: HospitalConfig, folder: Path, seed: int) -> None:
    """To draw replaces what is in a folder, which may be a hospital's own."""
    from sites import hospital

    if folder.exists() and any(folder.iterdir()) and not hospital.is_drawn(config, folder, seed=seed):
        raise RefusedError(
            f"{folder}: holds other films than {config.name} with seed {seed}, or those of a drawing that was broken off, and is not drawn "
            "over: name another folder with --out, or remove it"
        )


@click.command()
@click.argument("recipe")
@click.option(
    "--sites",
    "sites_folder",
    type=Folder,
    envvar="RAINHILL_SITES",
    show_envvar=True,
    help='Folder with source/, whose public patients `init = "gradient"` goes by.',
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="NAME.safetensors where not given.")
def adapter(recipe: str, sites_folder: Path | None, out: Path | None) -> None:
    """Make the adapter that a run of RECIPE begins from, for `rainhill coordinator run`: the coordinator has no torch."""
    with stops_at_once():
        from client.workbench import first_adapter, open_bench
        from rainhill.files import write_whole
        from sites.bench import open_site
        from sites.cli import cache_folder, read_named
        from sites.consortium import HERE, find_source, refuse_without_source

    read, path = read_named(recipe, None)
    folder = sites_folder or HERE
    refuse_without_source(read, folder)
    bench = open_bench(read, path.parent)
    source = find_source(folder) if read.lora.init == "gradient" else None
    first = first_adapter(bench, open_site(bench, source, cache_folder()) if source else None)
    file = out or Path(f"{read.name}.safetensors")
    write_whole(file, first.to_bytes())
    click.echo(f"{file}: {len(first)} tensors, fingerprint {first.fingerprint()}")
    click.echo(f"Next: `rainhill coordinator run {path} --adapter {file}`")
