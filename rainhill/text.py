"""Words of an error that many places use: a value shortened, and the nearest name that there is."""

import difflib
from collections.abc import Iterable

SHOWN = 60
"""Characters of a value that an error shows."""


def shown(text: str) -> str:
    """On one line, and not whole where it is long."""
    line = text if text.isprintable() else repr(text)
    return line if len(line) <= SHOWN else f"{line[: SHOWN // 2]}...{line[-SHOWN // 2 + 3 :]}"


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """`, did you mean 'NEAREST'?`, or nothing where none is near enough (difflib's ratio, from 0 to 1)."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f", did you mean {close[0]!r}?" if close else ""
