"""Two recipes held against each other, key by key: what is asked now that was not asked before."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Change:
    """A key of a recipe that was another in an earlier one; "-" where it had none, or has none."""

    key: str
    """With its tables: "rounds.count"."""
    before: str
    now: str


def recipe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Change, ...]:
    """Of two recipes as JSON has them, by key."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return tuple(
        Change(key=key, before=old.get(key, "-"), now=new.get(key, "-")) for key in sorted({*old, *new}) if old.get(key) != new.get(key)
    )


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _flat(value, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), str(tree)
