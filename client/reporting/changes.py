"""What a report says has come or stayed since the film before, finding by finding."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from client.data.labeler import Labeler
from client.data.vocabulary import tokens
from client.reporting.reading import CLASSES, findings_there

Change = Literal["new", "unchanged"]
_WORDS: Mapping[str, Mapping[Change, str]] = {
    "en": {"new": r"new|newly", "unchanged": r"unchanged|stable|persists|persistent|persisting|again"},
    "de": {"new": r"neu\w*|erstmal\w*", "unchanged": r"unverändert\w*|stabil\w*|weiterhin|persistier\w*|bekannt\w*"},
}


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """One sentence of a report."""

    text: str
    findings: tuple[str, ...]
    """That it speaks of and that are there, or may be: its own, and where it has none those of the sentence before."""
    changes: tuple[Change, ...]
    """What it says of all of them."""


def spoken(labeler: Labeler, text: str, *, language: str = "en") -> Iterator[Spoken]:
    """Sentence by sentence, which joined are the text. KeyError for a language that there are no words of."""
    words = {change: re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE) for change, pattern in _WORDS[language].items()}
    last: tuple[str, ...] = ()
    for sentence in _sentences(text):
        mentions = labeler.mentions(sentence)
        denied = any(one.finding in CLASSES and one.state == "negative" for one in mentions)
        last = findings_there(mentions) or (() if denied else last)
        yield Spoken(text=sentence, findings=last, changes=tuple(change for change, pattern in words.items() if pattern.search(sentence)))


def changes(labeler: Labeler, text: str, *, language: str = "en") -> dict[str, Change]:
    """Finding that is there, or may be -> what is said of it, and of two things the last.

    KeyError for a language that there are no words of.
    """
    found = dict[str, Change]()
    for sentence in spoken(labeler, text, language=language):
        for change in sentence.changes:
            found |= dict.fromkeys(sentence.findings, change)
    return found


def _sentences(text: str) -> list[str]:
    """As the labeler cuts them."""
    cut, begun = [], 0
    for token in tokens(text):
        if not token.word:
            cut.append(text[begun : token.end])
            begun = token.end
    return [one for one in (*cut, text[begun:]) if one]
