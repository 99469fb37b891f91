"""What a shell completes at a site: names of runs, read from its folder without loading what the commands themselves load."""

import tomllib
from pathlib import Path

import click


def offered_runs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    """Those that the site was asked, of the site's file that was typed before."""
    return [name for name in _names(context, "offers", ".offer") if name.startswith(incomplete)]


def held_runs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    """Those with an update that is held, or was."""
    names = (name.rpartition(".round-")[0] for name in _names(context, "held", ".safetensors"))
    return sorted({name for name in names if name.startswith(incomplete)})


def _names(context: click.Context, folder: str, suffix: str) -> list[str]:
    try:
        file = Path(context.params["site_file"])
        about = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        state = file.absolute().parent / Path(about.get("state") or f"{about['name']}-state").expanduser()
        return sorted(path.name.removesuffix(suffix) for path in (state / folder).glob(f"*{suffix}"))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        # Whatever is amiss, the command itself says it.
        return []
