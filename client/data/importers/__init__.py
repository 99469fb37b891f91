"""Public data sets as sites: one file per layout, each of which reads a download as it comes and changes nothing in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Protocol

import client.data.importers as _package
from client.data.importers._films import Source
from rainhill import plugins, toml

__all__ = ["Layout", "describe", "from_options", "names"]


class Layout(Protocol):
    """A layout is a pydantic model: its fields are what `--set KEY=VALUE` may say."""

    title: ClassVar[str]
    terms: ClassVar[str]
    """Where the set's terms are, and what they are known to ask for."""

    def read(self, folder: Path) -> Source:
        """Tables are read here; reports may be read while the source is gone through. Raises DataError, also for another layout."""
        ...


def names() -> list[str]:
    return plugins.names(_package)


def from_options(name: str, options: Mapping[str, str]) -> Layout:
    """Raises PluginError for no such layout, and ConfigError for an option that it does not have."""
    layout = plugins.load(_package, name, kind="layout")
    parsed: Layout = toml.parse(dict(options), layout, origin=f"layout {name}")
    return parsed


def describe(name: str) -> tuple[str, tuple[str, ...]]:
    """What the layout is, in a line, and the keys of its options."""
    layout = plugins.load(_package, name, kind="layout")
    return layout.title, tuple(layout.model_fields)
