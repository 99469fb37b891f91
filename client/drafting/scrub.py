"""Training text without what compares with an earlier examination, for films that come without one.

CXR-ReDonE: Ramesh, Chi, Rajpurkar 2022, arXiv:2210.06340. There a language model rewrites; here rules do, and each rewritten sentence is
read again by the labeler and only taken if it says what it said.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from client.data.clauses import OTHER
from client.data.labeler import Labeler, Mention
from client.drafting._language import Compiled, Language, language_of
from client.drafting._rewriting import applied, capital, tidy
from client.drafting._sentences import Sentence, sentences_of
from client.reporting.reading import Reading, reading

_PART = re.compile(r"([,;:](?=\s|$)\s*)")
FEWEST = 3
"""Words of what is left of a part of a sentence that has no finding: a shorter one says nothing."""


@dataclass(frozen=True, kw_only=True)
class _Rules:
    language: Language
    gradings: Compiled
    references: Compiled
    rules: Compiled
    predicates: Compiled
    mends: Compiled
    articles: Compiled
    first: Compiled
    last: Compiled


@cache
def _rules_of(name: str) -> _Rules:
    language = language_of(name)
    of = language.scrubbing
    first, last = language.ends(of)
    return _Rules(
        language=language,
        gradings=language.compiled(of.gradings),
        references=language.removing(of.references),
        rules=language.compiled(of.rules),
        predicates=language.removing(of.predicates),
        mends=language.compiled(of.mends),
        articles=language.removing(("^(?:{the}) ",)),
        first=first,
        last=last,
    )


def scrub(text: str, labeler: Labeler, *, language: str = "en") -> str:
    """The text without comparisons, and otherwise as it was; one that has none is given back to the letter.

    Labels, sides and severities stay: what has resolved is not there. A word that grades a change, as in `slightly increased`, goes.
    """
    if not labeler.comparisons(text):
        return text
    rules, written = _rules_of(language), []
    for one in sentences_of(text):
        if not labeler.comparisons(one.text):
            written.append(one.before + one.text + one.end)
            continue
        left = _scrubbed(one, labeler, rules)
        # A line that begins stays begun, or two sentences would become one.
        gap = one.before if left else "".join(re.findall(r"\n", one.before))
        written.append(gap + left + (one.end if left else ""))
    return "".join(written).strip()


def ungraded(text: str, labeler: Labeler, *, language: str = "en") -> str:
    """Its comparing sentences without the words that grade a change: the labeler takes them for the severity of a finding."""
    rules = _rules_of(language)
    told = ((one, _ungraded(one, labeler, rules) if labeler.comparisons(one.text) else one.text) for one in sentences_of(text))
    return "".join(one.before + left + one.end for one, left in told)


def _ungraded(sentence: Sentence, labeler: Labeler, rules: _Rules) -> str:
    text = " ".join(sentence.text.split())
    shorter = applied(rules.gradings, text)
    return shorter if labeler.labels(shorter) == labeler.labels(text) else text


def _scrubbed(sentence: Sentence, labeler: Labeler, rules: _Rules) -> str:
    """The first way to write it that says the same of each finding and compares with nothing; empty where it says nothing else."""
    text = _ungraded(sentence, labeler, rules)
    wanted = _said(reading(labeler, text))
    for way in _ways(text, labeler, rules):
        if not labeler.comparisons(way) and _said(reading(labeler, way)) == wanted:
            return _cased(way, sentence.text, rules.language)
    return ""


def _cased(way: str, original: str, language: Language) -> str:
    """What began the sentence, and does so no more, has no capital."""
    begun = re.match(r"[A-Z][a-z]+", original)
    if begun and not language.capital_nouns:
        way = re.sub(rf"(?<=[^\W_] ){begun[0]}\b", begun[0].lower(), way)
    return capital(way, like=original)


def _ways(text: str, labeler: Labeler, rules: _Rules) -> Iterator[str]:
    shorter = tidy(applied(rules.references, text))
    for begun in (shorter, text):
        pieces = _PART.split(begun)
        parts = [_part(part, labeler, rules) for part in pieces[::2]]
        joined = "".join(part + mark for part, mark in zip(parts, [*pieces[1::2], ""], strict=True))
        yield tidy(applied(rules.mends, joined), rules.first, rules.last)
        yield ". ".join(capital(part, like="A") for part in parts if part)
    for begun in (shorter, text):
        yield tidy(_without_comparisons(begun, labeler), rules.first, rules.last)
    yield from _anew(labeler.mentions(text), labeler, rules.language)


def _part(part: str, labeler: Labeler, rules: _Rules) -> str:
    """One between two commas."""
    if not labeler.comparisons(part):
        return part
    left = part
    for rule in rules.rules:
        left = tidy(applied((rule,), left))
        if not labeler.comparisons(left):
            break
    bare = tidy(applied(rules.predicates, left)) if labeler.comparisons(left) else left
    predicate = bare != left
    left = tidy(_without_comparisons(bare, labeler), rules.first, rules.last)
    says = bool(labeler.mentions(left))
    if predicate and says:
        # "The left effusion" was a subject.
        left = applied(rules.articles, left)
    return left if says or (not predicate and len(left.split()) >= FEWEST) else ""


def _without_comparisons(text: str, labeler: Labeler) -> str:
    """Word by word, for what no rule has rewritten."""
    while words := labeler.comparisons(text):
        longest = "|".join(sorted(map(re.escape, set(words)), key=len, reverse=True))
        text = tidy(re.sub(rf"(?<![^\W_])(?:{longest})(?![^\W_])", " ", text))
    return text


def _anew(mentions: Sequence[Mention], labeler: Labeler, language: Language) -> Iterator[str]:
    """What the labeler has read in it, one sentence for each finding: in the words of the report, and else in those of the language."""
    told = [one for one in mentions if one.finding != OTHER or one.state != "negative"]
    for ways in (_in_its_words, _in_plain_words):
        sentences = (next((way for way in ways(one, labeler, language) if _says(way, one, labeler)), "") for one in told)
        yield " ".join(dict.fromkeys(filter(None, sentences))).removesuffix(".")


def _in_its_words(one: Mention, labeler: Labeler, language: Language) -> Iterator[str]:
    plain, words = language.plain, tidy(_without_comparisons(one.words, labeler))
    if one.state == "negative":
        yield plain.negative.format(words=words)
    else:
        placed = " ".join(filter(None, (*plain.placed(one.side, one.severity), words)))
        yield capital(f"{placed}." if one.state == "positive" else plain.uncertain.format(words=placed), like="A")
    # A subject is said with its predicate: `the lungs are clear`.
    yield capital(f"{words}.", like="A")


def _in_plain_words(one: Mention, _labeler: Labeler, language: Language) -> Iterator[str]:
    for sentence in language.sentences[one.finding][one.state] if one.finding != OTHER else ():
        placed = " ".join(language.plain.placed(one.side, one.severity)) if one.state != "negative" else ""
        yield f"{sentence.removesuffix('.')}, {placed}." if placed else sentence


def _says(way: str, one: Mention, labeler: Labeler) -> bool:
    return _told(one) in map(_told, labeler.mentions(way))


def _told(one: Mention) -> tuple[str, ...]:
    """Where and how much of what is absent is no matter."""
    return (one.finding, one.state) if one.state == "negative" else (one.finding, one.state, one.side, one.severity)


def _said(of: Reading) -> tuple[object, ...]:
    return of.labels, of.sides, of.severities
