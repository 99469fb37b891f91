"""Texts as vectors by their words: hashed TF-IDF, so that reports and a site's guidelines can be searched without a model.

The hashing trick: Weinberger et al. 2009, ICML, arXiv:0902.2206; inverse document frequency: Sparck Jones 1972, J Doc 28(1).
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import log
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.reporting.wording import words
from rainhill.errors import DataError

WIDTH = 4096
_HEADING = re.compile(r"#{1,6}\s+(.*?)[\s#.:]*$")
LONGEST = 20_000
"""Characters of a paragraph: a longer one is no guideline text."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Snippet:
    """A paragraph of a guideline."""

    name: str
    """Its file, and the line that it begins at, such as `effusion.md:12`."""
    text: str


def text_weights(texts: Sequence[str], *, width: int = WIDTH) -> NDArray[np.float32]:
    """(width,) how rare each place is among the texts. To be kept with an index: questions are weighted by the same."""
    having = np.zeros(width)
    for text in texts:
        having[list({place for place, _ in _counts(text, width)})] += 1
    return (np.log((1 + len(texts)) / (1 + having)) + 1).astype(np.float32)


def text_vectors(texts: Sequence[str], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, d) of length 1; of a text without a word, 0. Words and pairs of words count, by the logarithm of how often they are said."""
    vectors = np.zeros((len(texts), len(weights)), dtype=np.float32)
    for vector, text in zip(vectors, texts, strict=True):
        for (place, sign), count in _counts(text, len(weights)).items():
            vector[place] += sign * (1 + log(count)) * weights[place]
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)


def _counts(text: str, width: int) -> Counter[tuple[int, int]]:
    said = words(text)
    return Counter(_place(term, width) for term in (*said, *map(" ".join, pairwise(said))))


@lru_cache(maxsize=100_000)
def _place(term: str, width: int) -> tuple[int, int]:
    """The same on every machine, which Python's hash is not; with a sign, so that terms that meet cancel out on average."""
    number = int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest())
    return (number >> 1) % width, 1 if number & 1 else -1


def read_snippets(folder: Path) -> tuple[Snippet, ...]:
    """The paragraphs of a folder's .md and .txt files, by name and line. DataError for no folder, and for a file that cannot be read."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder, expected guidelines as .md or .txt files")
    found: list[Snippet] = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".md", ".txt") and path.is_file()):
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as UTF-8 text") from error
        found.extend(_paragraphs(path.relative_to(folder).as_posix(), lines))
    return tuple(found)


def _paragraphs(name: str, lines: Sequence[str]) -> list[Snippet]:
    """Each with the Markdown heading that it stands under."""
    found: list[Snippet] = []
    begun: list[str] = []
    heading = ""
    for number, line in enumerate((*lines, ""), start=1):
        said, titled = line.strip(), _HEADING.match(line)
        if said and not titled:
            begun.append(said)
            continue
        if begun:
            text = " ".join(filter(None, (heading, *begun)))
            first = f"{name}:{number - len(begun)}"
            if len(text) > LONGEST:
                raise DataError(f"{first}: a paragraph of {len(text)} characters, expected at most {LONGEST}")
            found.append(Snippet(name=first, text=text))
            begun = []
        if titled:
            heading = f"{titled[1]}."
    return found
