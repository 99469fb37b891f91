"""The words of a text, and where its sentences end: at a full stop that is no abbreviation's, and at a line that begins a statement."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

WIDTH = 40
"""Characters of the longest line of a text that is wrapped at a width: in narrower ones a line ends because its statement does."""
_LONGEST = 4
"""Words of what leaves a statement unfinished."""
_UNSEEN = r"[\x00-\x08\x0e-\x1f\x7f\u00ad\u200b-\u200d\u2060\ufeff]"
"""Control characters and soft hyphens, which are no part of the word that they stand in."""
_NEWLINE = r"(?:\r\n?|[\n\v\f\x85\u2028\u2029])"
_TOKEN = re.compile(
    rf"(?P<word>[^\W_]+(?:{_UNSEEN}+[^\W_]+)*(?:\.\d+)?|[,:])|(?P<asked>\?)"
    r"|(?P<stop>\.)|(?P<end>[!;])"
    # A list's next line, and a heading, begin a sentence; of any other line it depends.
    rf"|(?P<break>{_NEWLINE}(?:[^\S\r\n]*{_NEWLINE}|(?=\s*(?:[-*•]|\d+[.)]\s|[A-ZÄÖÜ][A-Za-zÄÖÜäöüß /]{{2,30}}:))))"
    rf"|(?P<line>{_NEWLINE})|(?P<item>\s(?=(?:(?:\d{{1,2}}|[a-h])\)|[•|])\s))"
)
_ENDS = re.compile(r"\.(?=\s|$)|(?<=[^\W\d_][^\W\d_])\.(?=\.*[\"'„“«(\[]?[A-ZÄÖÜ])|(?<=\w\))\.(?=[A-ZÄÖÜ])")
"""A full stop without a space behind it ends a sentence where two letters stand before it and a capital behind it."""
_STOPPED = re.compile(r"\.(?=\s|$)")
_UNSEEN_IN = re.compile(_UNSEEN)
_LINES = re.compile(_NEWLINE)
_WORDS = re.compile(r"[^\W_]+")
_WORD = re.compile(r"[ \t\u00a0]*(\S+)")
_TAIL = 100
"""Characters of a line that its last words are looked for in."""
_FIRST = re.compile(r"[ \t\u00a0\"'„“«(\[]*([^\W_]+)")
_NEXT = re.compile(r"[^\S\r\n]*(?:([^\W\d_]+)|$)")
_GOES_ON = (",", ":", "(", "/", "-", "–", "&", "+")


@dataclass(frozen=True, slots=True)
class Token:
    word: str
    """In lower case; a question mark is `?` before what it asks for, and `(?)` after it; empty where a sentence ends."""
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """What tells an end from what only looks like one."""

    abbreviations: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    """First word -> what follows it, from the full stop on."""
    trailing: frozenset[str] = frozenset()
    """Of the abbreviations those that may stand behind their noun: between two nouns one ends a sentence."""
    openers: frozenset[str] = frozenset()
    """Words with a capital only where a sentence begins."""
    continuing: frozenset[str] = frozenset()
    """Words that no statement begins with."""
    unfinished: frozenset[tuple[str, ...]] = frozenset()
    """Words that no statement ends with."""

    @classmethod
    def of(
        cls,
        *,
        abbreviations: Iterable[str],
        trailing: Iterable[str],
        openers: Iterable[str],
        continuing: Iterable[str],
        unfinished: Iterable[str],
    ) -> "Cuts":
        further: dict[str, set[str]] = {}
        behind = tuple(trailing)
        for one in (*abbreviations, *behind):
            first, *others = re.findall(r"[^\W_]+", one.lower())
            further.setdefault(first, set()).add(r"\." + "".join(rf"[^\S\r\n]?{word}\." for word in others))
        patterns = {word: re.compile("|".join(sorted(of, key=len, reverse=True)), re.IGNORECASE) for word, of in further.items()}
        return cls(
            abbreviations=patterns,
            trailing=frozenset(one.lower().removesuffix(".") for one in behind),
            openers=frozenset(word.lower() for word in openers),
            continuing=frozenset(word.lower() for word in continuing),
            unfinished=frozenset(tuple(phrase.lower().split()) for phrase in unfinished),
        )

    def abbreviated(self, word: str, text: str, at: int) -> int:
        """Where the abbreviation ends that begins with a word before this full stop; 0 where there is none."""
        further = self.abbreviations.get(word)
        found = further.match(text, at) if further is not None else None
        return found.end() if found is not None else 0

    def ended(self, text: str, at: int, said: str, before: str) -> bool:
        """Whether a sentence ends with the abbreviation that ends here, of the last word that is said."""
        following = _NEXT.match(text, at)
        if following is None:
            return False
        # Between two nouns, as in "Erguss re. Kardiomegalie".
        trails = said.lower() in self.trailing and before.istitle() and (before.lower(),) not in self.unfinished
        return not following[1] or self.opens(following[1]) or (trails and following[1].istitle())

    def opens(self, word: str) -> bool:
        return word.istitle() and word.lower() in self.openers


def tokens(text: str, cuts: Cuts) -> Iterator[Token]:
    begun, last, short = 0, 0, 0
    before = said = ""
    lines: Lines | None = None
    for found in _TOKEN.finditer(text):
        kind, (start, end) = found.lastgroup, found.span()
        if kind == "word":
            last, before, said = end, said, found["word"]
            yield Token(_word(said), start, end)
            continue
        if kind == "asked":
            yield Token("?" if start == 0 or text[start - 1].isspace() else "(?)", start, end)
            continue
        if kind == "stop":
            if start == last and start >= short:
                short = cuts.abbreviated(said.lower(), text, start)
            if end < short or not (cuts.ended(text, end, said, before) if end == short else _ENDS.match(text, start)):
                continue
        elif kind == "line":
            lines = lines or Lines(text, cuts)
            if not said or not lines.begins(end):
                continue
        elif kind == "item" and text.rfind("(", max(begun, start - _TAIL), start) > text.rfind(")", begun, start):
            # "(see 2)".
            continue
        begun, said = end, ""
        yield Token("", start, end)


def _word(written: str) -> str:
    if not written.isalnum():
        written = _UNSEEN_IN.sub("", written)
    return "," if written == ":" else written.lower()


class Lines:
    """Of a text: whether they are wrapped at a width, and so where a line is merely full."""

    def __init__(self, text: str, cuts: Cuts) -> None:
        self._text, self._cuts, self._capitals = text, cuts, text.isupper()
        ends = [found.span() for found in _LINES.finditer(text)]
        self._line = {end: text[begun:start].rstrip() for (start, end), begun in zip(ends, (0, *(end for _, end in ends)), strict=False)}
        """Before each end of one."""
        self._width = max([*map(len, self._line.values()), len(text) - (ends[-1][1] if ends else 0)])
        self._wrapped = self._width >= WIDTH and self._is_wrapped()

    def begins(self, end: int) -> bool:
        """Whether the line after this end of one begins a statement: with a capital, and not for want of room in the line before."""
        first = _FIRST.match(self._text, end) if end in self._line else None
        if first is None or not (first[1][0].isupper() or first[1][0].isdigit()) or self._midst(end, first[1]):
            return False
        if not self._capitals and self._cuts.opens(first[1]):
            return True
        return not (self._wrapped and self._full(end))

    def _midst(self, end: int, first: str) -> bool:
        """Whether a statement goes on over this end of a line, by the words before it and the first one after."""
        line = self._line[end]
        if first.lower() in self._cuts.continuing:
            return True
        words = tuple(_WORDS.findall(line[-_TAIL:].lower())[-_LONGEST:])
        return line.endswith(_GOES_ON) or any(words[-length:] in self._cuts.unfinished for length in range(1, len(words) + 1))

    def _full(self, end: int) -> bool:
        """Whether the next line's first word would not have gone into this one."""
        first = _WORD.match(self._text, end)
        return first is not None and len(self._line[end]) + 1 + len(first[1]) > self._width

    def _is_wrapped(self) -> bool:
        """Full lines in the midst of a statement tell; and full stops, where no line without one is less than full."""
        full = dict.fromkeys(end for end in self._line if self._full(end))
        if full and _STOPPED.search(self._text):
            short = (line for end, line in self._line.items() if line and end not in full)
            if all(line.endswith(".") for line in short):
                return True
        firsts = ((end, _FIRST.match(self._text, end)) for end in full)
        return any(first is not None and (first[1][0].islower() or self._midst(end, first[1])) for end, first in firsts)
