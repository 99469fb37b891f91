"""Rules over the words of a sentence, and the mending of what is left of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from client.data.vocabulary import Vocabulary
from client.drafting._language import Compiled, Language

_SPACES = (
    (re.compile(r"\s+"), " "),
    (re.compile(r"\(\s*[,;]?\s*\)"), " "),
    (re.compile(r"\s+(?=[,;:.)])"), ""),
    (re.compile(r"(?<=\()\s+"), ""),
)
_COMMAS = ((re.compile(r"[,;]\s*(?=[,;:.])"), ""), (re.compile(r"[,;:]\s*(?=\))"), ""), (re.compile(r"^[\s,;:)-]+|[\s,;:(-]+$"), ""))


def applied(rules: Compiled, text: str) -> str:
    for pattern, with_ in rules:
        text = pattern.sub(with_, text)
    return text


def tidy(text: str, first: Compiled = (), last: Compiled = ()) -> str:
    """Without doubled spaces, commas that nothing stands between, and the words of `first` and `last` at its ends."""
    while True:
        mended = applied(_COMMAS, applied(_SPACES, text)).strip()
        mended = applied(last, applied(first, mended)).strip()
        if mended == text:
            return text
        text = mended


def capital(text: str, *, like: str) -> str:
    """With a capital where the original began with one."""
    return text[:1].upper() + text[1:] if like[:1].isupper() else text


@dataclass(frozen=True, kw_only=True)
class Unplacing:
    """What takes side, place and size out of a sentence."""

    before: Compiled
    words: re.Pattern[str]
    after: Compiled
    first: Compiled
    last: Compiled

    @classmethod
    def of(cls, language: Language, vocabularies: Sequence[Vocabulary]) -> "Unplacing":
        phrases = {phrase for one in vocabularies for table in (one.sides, one.severity) for some in table.values() for phrase in some}
        longest = sorted(phrases, key=len, reverse=True)
        words = "|".join(r"[\s-]+".join(map(re.escape, phrase.split())) for phrase in longest)
        first, last = language.ends(language.scrubbing)
        return cls(
            before=language.compiled(language.placing.rules),
            words=re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_])", re.IGNORECASE),
            after=language.compiled(language.placing.mends),
            first=first,
            last=last,
        )


def unplaced(sentence: str, unplacing: Unplacing) -> str:
    """Without side, place and size, as a sentence with a full stop."""
    bare = applied(unplacing.before, sentence)
    bare = tidy(applied(unplacing.after, tidy(unplacing.words.sub(" ", bare))), unplacing.first, unplacing.last)
    return capital(bare, like="A") + "."
