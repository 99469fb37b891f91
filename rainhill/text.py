"""Words that many places use: a value shortened, how many there are of something, and the nearest name that there is."""

import difflib
from collections.abc import Iterable

SHOWN = 60
"""Characters of a value that an error shows."""


def shown(text: str) -> str:
    """On one line, and not whole where it is long."""
    return one_line(text, SHOWN)


def one_line(text: str, longest: int) -> str:
    """What somebody else wrote, so that it can be kept and shown: nothing in it moves a cursor, and its middle goes where it is longer."""
    line = text if text.isprintable() else repr(text)
    return line if len(line) <= longest else f"{line[: longest // 2]}...{line[-longest // 2 + 3 :]}"


def counted(number: int, what: str) -> str:
    """ "1 round", "2 rounds"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """`, did you mean 'NEAREST'?`, or nothing where none is near enough (difflib's ratio, from 0 to 1)."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f", did you mean {close[0]!r}?" if close else ""
