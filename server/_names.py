"""What a shell completes at a coordinator: names of runs and sites, read from its own database without loading what opens others."""

import os
import sqlite3
import tomllib
from contextlib import closing
from pathlib import Path

import click


def known_runs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    """The newest first."""
    return _names(context, "SELECT name FROM run ORDER BY made DESC", incomplete)


def known_sites(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    return _names(context, "SELECT name FROM site WHERE revoked IS NULL ORDER BY name", incomplete)


def _names(context: click.Context, query: str, incomplete: str) -> list[str]:
    """None where the database is elsewhere: to ask PostgreSQL takes longer than somebody waits for a name."""
    try:
        home = _home(context)
        about = tomllib.loads((home / "coordinator.toml").read_text(encoding="utf-8-sig"))
        if about.get("database", {}).get("url"):
            return []
        uri = f"{(home / 'rainhill.sqlite').absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=0.5)) as connection:
            return [name for (name,) in connection.execute(query) if name.startswith(incomplete)]
    except (OSError, ValueError, AttributeError, sqlite3.Error):
        # Whatever is amiss, the command itself says it.
        return []


def _home(context: click.Context) -> Path:
    typed = context.parent.params.get("home") if context.parent else None
    return Path(typed or os.environ.get("RAINHILL_COORDINATOR") or "coordinator")
