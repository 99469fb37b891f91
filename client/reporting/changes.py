"""What a report says has come or stayed since the film before, finding by finding."""

import re
from collections.abc import Mapping
from typing import Literal

from client.data.labeler import Labeler
from client.data.vocabulary import tokens
from client.reporting.reading import CLASSES, THERE

Change = Literal["new", "unchanged"]
_WORDS: Mapping[str, Mapping[Change, str]] = {
    "en": {"new": r"new|newly", "unchanged": r"unchanged|stable|persists|persistent|persisting|again"},
    "de": {"new": r"neu\w*|erstmal\w*", "unchanged": r"unverändert\w*|stabil\w*|weiterhin|persistier\w*|bekannt\w*"},
}


def changes(labeler: Labeler, text: str, *, language: str = "en") -> dict[str, Change]:
    """Finding that is there, or may be -> what is said of it. A sentence without a finding speaks of the one before it.

    KeyError for a language that there are no words of.
    """
    words, found = _WORDS[language], dict[str, Change]()
    last: tuple[str, ...] = ()
    for sentence in _sentences(text):
        own = tuple(dict.fromkeys(one.finding for one in labeler.mentions(sentence) if one.finding in CLASSES and one.state in THERE))
        denied = any(one.finding in CLASSES and one.state == "negative" for one in labeler.mentions(sentence))
        last = own or (() if denied else last)
        for change, pattern in words.items():
            if re.search(rf"\b(?:{pattern})\b", sentence, re.IGNORECASE):
                found |= dict.fromkeys(last, change)
    return found


def _sentences(text: str) -> list[str]:
    """As the labeler cuts them."""
    cut, begun = [], 0
    for token in tokens(text):
        if not token.word:
            cut.append(text[begun : token.end])
            begun = token.end
    return [one for one in (*cut, text[begun:]) if one.strip()]
