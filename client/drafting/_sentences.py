"""A text as its sentences, cut where the labeler cuts it, and what stands between them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from client.data.vocabulary import tokens

CONCLUDES = re.compile(r"(?:impression|imp|summary|opinion|conclusion|beurteilung|zusammenfassung)\s*:", re.IGNORECASE)
"""What begins the part of a report that says no finding for the first time."""


@dataclass(frozen=True, kw_only=True)
class Sentence:
    before: str
    """White space, bullets and brackets since the sentence before."""
    text: str
    """From its first word to its last, and what stands behind that."""
    end: str
    """A full stop and the like; empty where a line or the text ends it."""


def sentences_of(text: str) -> Iterator[Sentence]:
    """Joined they are the text, but for what stands behind the last; a piece without a word is part of what stands before the next."""
    begun, first = 0, -1
    for token in tokens(text):
        if token.word:
            first = token.start if first < 0 else first
        elif first >= 0:
            stop = text[token.start : token.end].strip()
            yield Sentence(before=text[begun:first], text=text[first : token.start], end=stop)
            begun, first = token.start + len(stop), -1
    if first >= 0:
        yield Sentence(before=text[begun:first], text=text[first:].rstrip(), end="")
