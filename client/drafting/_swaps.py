"""A sentence with its side or its negation swapped, by rules; the labeler is the judge that this has changed, and nothing else."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from client.data.labeler import Labeler, Mention
from client.data.vocabulary import FINDINGS
from client.drafting._rewriting import capital
from client.reporting.reading import CLASSES
from rainhill.errors import ConfigError

Kind = Literal["side", "absent", "present"]
"""What is swapped: its side; or that it is absent, or present, where the sentence says the contrary."""
SIDES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "en": (("left", "right"),),
    "de": (("links", "rechts"), ("linke", "rechte"), ("linken", "rechten"), ("linker", "rechter"), ("linkes", "rechtes"),
           ("linksseitig", "rechtsseitig"), ("linksseitige", "rechtsseitige"), ("linksseitiger", "rechtsseitiger"),
           ("linksseitigen", "rechtsseitigen"), ("linksseitiges", "rechtsseitiges")),
}  # fmt: skip
ABSENT: Mapping[str, tuple[tuple[str, str], ...]] = {
    "en": (
        (r"\bthere (is|are) (?:(?:an?|some)\s)?", r"there \1 no "),
        (r"^((?:[\w ]+: )?)(?:an? )?(?=\w)", r"\1no "),
        (r"\b(is|are|appears?) (?:\w+ly )?(?=enlarged|increased|widened|consolidated|collapsed|blunted)", r"\1 not "),
        (r"\bthose of\b", "not those of"),
    ),
    "de": (
        (r"^(?:eine?n? )?(?=\w)", "kein "),
        (r"^(?:eine?n? )?(?=\w)", "keine "),
        (r"\bist (?=\w)", "ist nicht "),
    ),
}
PRESENT: Mapping[str, tuple[tuple[str, str], ...]] = {
    "en": (
        (r"\bthere (is|are) no (?:evidence of |sign of )?", r"there \1 a "),
        (r"\bthere (is|are) no (?:evidence of |sign of )?", r"there \1 "),
        (r"^((?:[\w ]+: )?)no (?:evidence of |focal |acute )?(.+ (?:is|are) )", r"\1a \2"),
        (r"^((?:[\w ]+: )?)no (?:evidence of |focal |acute )?", r"\1"),
        (r"\b(?:the )?lungs are clear of (.+)", r"there is \1"),
        (r"\b(is|are) not ", r"\1 "),
        (r"\b(?:is |are )?(?:within normal limits|of normal size|normal in size|normal)\b", "is enlarged"),
        (r"\bwithout\b", "with"),
    ),
    "de": (
        (r"\bkeine? ", ""),
        (r"\bnicht ", ""),
        (r"\bohne\b", "mit"),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Swap:
    kind: Kind
    findings: tuple[str, ...]
    """Of which the sentence now says something else."""
    text: str


def swapped(sentence: str, labeler: Labeler, *, language: str = "en") -> tuple[Swap, ...]:
    """Each way to swap it that the labeler reads as swapped. ConfigError for a language that there are no rules of."""
    if language not in SIDES:
        raise ConfigError(f"there are no rules to swap sentences of language {language!r}; there are those of {', '.join(SIDES)}")
    before, seen = _claims(sentence, labeler), {sentence}
    found = []
    for kind, text in (*_sided(sentence, language), *_negated(sentence, language)):
        findings = _changed(before, _claims(text, labeler), kind)
        if findings and text not in seen:
            seen.add(text)
            found.append(Swap(kind=kind, findings=findings, text=text))
    return tuple(found)


def _claims(text: str, labeler: Labeler) -> list[Mention]:
    return [one for one in labeler.mentions(text) if one.finding in CLASSES]


def _changed(before: Sequence[Mention], after: Sequence[Mention], kind: Kind) -> tuple[str, ...]:
    """The findings that changed in the way that was wanted; none where anything else did."""
    if [one.finding for one in before] != [one.finding for one in after]:
        return ()
    changed: set[str] = set()
    kept: set[str] = set()
    for old, new in zip(before, after, strict=True):
        if kind == "side" and old.state == new.state and old.severity == new.severity:
            moved = {old.side, new.side} == {"left", "right"}
            same = old.side == new.side
        else:
            moved = kind != "side" and {"absent": ("positive", "negative"), "present": ("negative", "positive")}[kind] == (
                old.state,
                new.state,
            )
            same = (old.state, old.side, old.severity) == (new.state, new.side, new.severity)
        if not (moved or same):
            return ()
        (changed if moved else kept).add(old.finding)
    if kind != "side" and changed & kept:
        # The sentence still says what it said.
        return ()
    return tuple(sorted(changed, key=FINDINGS.index))


def _sided(sentence: str, language: str) -> Iterator[tuple[Kind, str]]:
    """With each of its sides swapped alone, and with all."""
    other = {one: two for pair in SIDES[language] for one, two in (pair, pair[::-1])}
    word = re.compile(rf"(?<![^\W_])(?:{'|'.join(sorted(other, key=len, reverse=True))})(?![^\W_])", re.IGNORECASE)
    places = list(word.finditer(sentence))
    for at in places:
        yield "side", sentence[: at.start()] + capital(other[at[0].lower()], like=at[0]) + sentence[at.end() :]
    if len(places) > 1:
        yield "side", word.sub(lambda at: capital(other[at[0].lower()], like=at[0]), sentence)


def _negated(sentence: str, language: str) -> Iterator[tuple[Kind, str]]:
    kinds: tuple[tuple[Kind, Mapping[str, tuple[tuple[str, str], ...]]], ...] = (("absent", ABSENT), ("present", PRESENT))
    for kind, rules in kinds:
        for pattern, with_ in rules[language]:
            text = re.sub(pattern, with_, sentence, count=1, flags=re.IGNORECASE)
            if text != sentence:
                yield kind, capital(text if language == "de" else _decapitalised(text, sentence), like=sentence)


def _decapitalised(text: str, original: str) -> str:
    """A word that began the sentence and begins it no more has no capital, unless all of it is in capitals."""
    begun = re.match(r"[A-ZÄÖÜ][a-zäöüß]+\b", original)
    return re.sub(rf"(?<=[^\W_] ){begun[0]}\b", begun[0].lower(), text, count=1) if begun else text
