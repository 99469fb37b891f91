"""The words that a labeler goes by, read from phrase files: of a language, and of a site that speaks it in its own way."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from client.data import sentences
from client.data.sentences import Cuts, Token
from rainhill.errors import ConfigError
from rainhill.text import did_you_mean
from rainhill.toml import Section, read_toml

HERE = Path(__file__).with_name("phrases")
PATHOLOGIES = (
    "enlarged_cardiomediastinum", "cardiomegaly", "lung_opacity", "lung_lesion", "edema", "consolidation", "pneumonia", "atelectasis",
    "pneumothorax", "pleural_effusion", "pleural_other", "fracture",
)  # fmt: skip
FINDINGS = ("no_finding", *PATHOLOGIES, "support_devices")
"""The fourteen of CheXpert. Irvin et al. 2019, AAAI, arXiv:1901.07031."""
Kind = Literal[
    "finding", "absent", "subject", "predicate", "normal", "other", "side", "severity",
    "uncertain_first", "negated_before", "negated_after", "uncertain_before", "uncertain_after", "pseudo", "history",
    "stop", "exception", "doubt", "comma", "and", "or",
]  # fmt: skip
_KINDS: Mapping[str, tuple[Kind, ...]] = {
    "stops": ("stop",),
    "exceptions": ("stop", "exception"),
    "doubts": ("negated_before", "doubt"),
    "limits": (),
    "conjunctions": ("and",),
    "alternatives": ("or",),
}
Meaning = tuple[Kind, str]
"""What a phrase says, and of which finding, side or severity; the second is empty where it says nothing of the kind."""
_OPTIONAL = re.compile(r"\[([^][]*)\]|\{([^{}]*)\}")
_PLAIN = Cuts()


def tokens(text: str, cuts: Cuts | None = None) -> Iterator[Token]:
    """Cut as the labeler cuts a text, whatever its language, unless a site has words of its own for that."""
    return sentences.tokens(text, cuts or cuts_of())


def _words(phrase: str) -> str:
    if not any(token.word for token in sentences.tokens(phrase, _PLAIN)):
        raise ValueError("has no word")
    return phrase


def _written_out(phrases: tuple[str, ...]) -> tuple[str, ...]:
    """`{no|without} [any] sign` is four phrases: one of what is in braces, and one or none of what is in brackets."""
    found: list[str] = []
    for phrase in phrases:
        choice = _OPTIONAL.search(phrase)
        if choice is None:
            found.append(phrase)
            continue
        ways = ("", *choice[1].split("|")) if choice[1] is not None else choice[2].split("|")
        begun, ended = phrase[: choice.start()], phrase[choice.end() :]
        found.extend(_written_out(tuple(" ".join(f"{begun} {way} {ended}".split()) for way in ways)))
    return tuple(dict.fromkeys(found))


def _known(finding: str) -> str:
    if finding not in FINDINGS or finding == "no_finding":
        raise ValueError(f"{finding} is no finding that reports are labelled with{did_you_mean(finding, FINDINGS)}")
    return finding


Phrases = Annotated[tuple[Annotated[str, AfterValidator(_words)], ...], AfterValidator(_written_out)]


class FindingPhrases(Section):
    words: Phrases = ()
    """Each is a mention of the finding."""
    absent: Phrases = ()
    """Each says that it is not there."""
    subjects: Phrases = ()
    """Of which a predicate says that it is there, and a word of `normal` that it is not."""
    predicates: Phrases = ()


class Cues(Section):
    uncertain_first: Phrases = ()
    """Uncertain whatever negation is in them, such as `cannot exclude`; before or after a mention."""
    negated_before: Phrases = ()
    negated_after: Phrases = ()
    uncertain_before: Phrases = ()
    uncertain_after: Phrases = ()
    pseudo: Phrases = ()
    """They look like a negation and are none, such as `no change`."""
    stops: Phrases = ()
    """No cue reaches over them."""
    exceptions: Phrases = ()
    """Stops behind which stands what is not meant, such as `apart from`."""
    doubts: Phrases = ()
    """Negations of a whole statement, such as `no evidence that`: of a negation in it they leave nothing."""
    limits: Phrases = ()
    """Words of a negation that denies a kind of a finding only, as `acute` in `no acute fracture`."""
    history: Phrases = ()
    """What follows is of the past, or of what was asked, and no mention."""
    conjunctions: Phrases = ()
    """`and`: a negation ends at one that an own size follows, unless the list goes on with `or`."""
    alternatives: Phrases = ()
    """`or`."""


class SentencePhrases(Section):
    """Where a sentence ends."""

    abbreviations: Phrases = ()
    """Their full stops end none, unless one of the openers follows."""
    trailing: Phrases = ()
    """Abbreviations that may stand behind their noun: between two nouns one ends a sentence."""
    openers: Phrases = ()
    """Words that have a capital only where a sentence begins."""
    continuing: Phrases = ()
    """No statement begins with them."""
    unfinished: Phrases = ()
    """No statement ends with them: the next line goes on."""


class NormalPhrases(Section):
    words: Phrases = ()


class Vocabulary(Section):
    """A phrase file. What a site's own file says is added to that of the language; `without` takes phrases away."""

    language: Annotated[str, Field(min_length=2)]
    findings: dict[Annotated[str, AfterValidator(_known)], FindingPhrases] = Field(default_factory=dict)
    normal: NormalPhrases = NormalPhrases()
    other: NormalPhrases = NormalPhrases()
    """Abnormalities of none of the classes: a report with one of them is not normal."""
    temporal: NormalPhrases = NormalPhrases()
    """They hold this examination against an earlier one."""
    cues: Cues = Cues()
    ends: SentencePhrases = SentencePhrases()
    sides: Mapping[Literal["left", "right", "both"], Phrases] = Field(default_factory=dict)
    severity: Mapping[Literal["mild", "moderate", "severe"], Phrases] = Field(default_factory=dict)
    without: Phrases = ()

    def meanings(self) -> Iterator[tuple[str, Meaning]]:
        for finding, of in self.findings.items():
            for kind, phrases in (("finding", of.words), ("absent", of.absent), ("subject", of.subjects), ("predicate", of.predicates)):
                yield from ((phrase, (kind, finding)) for phrase in phrases)  # type: ignore[misc]
        for kind, phrases in (("normal", self.normal.words), ("other", self.other.words)):
            yield from ((phrase, (kind, "")) for phrase in phrases)  # type: ignore[misc]
        for name in type(self.cues).model_fields:
            for kind in _KINDS.get(name, (name,)):
                yield from ((phrase, (kind, "")) for phrase in getattr(self.cues, name))  # type: ignore[misc]
        for kind, table in (("side", self.sides), ("severity", self.severity)):
            for value, phrases in table.items():
                yield from ((phrase, (kind, value)) for phrase in phrases)  # type: ignore[misc]


@dataclass(slots=True)
class Node:
    """Of a tree of phrases, word by word."""

    meanings: tuple[Meaning, ...] = ()
    further: "dict[str, Node]" = field(default_factory=dict)


def tree_of(phrases: Iterable[tuple[str, Meaning]]) -> Node:
    root = Node(further={",": Node(meanings=(("comma", ""),))})
    for phrase, meaning in phrases:
        node = root
        # An abbreviation's full stops are not matched.
        for token in filter(lambda token: token.word, sentences.tokens(phrase, _PLAIN)):
            node = node.further.setdefault(token.word, Node())
        if meaning not in node.meanings:
            node.meanings += (meaning,)
    return root


def languages() -> list[str]:
    """Of which there are phrases."""
    return list(_shipped())


def read_vocabularies(language: str, own: Sequence[Path] = ()) -> list[Vocabulary]:
    """The language's, and then those of the files. ConfigError for a language that there is no file of, and for a file of another one."""
    there = _shipped()
    if language not in there:
        raise ConfigError(f"there are no phrases of language {language!r}; there are those of {', '.join(there)}")
    found = [there[language]]
    for path in own:
        found.append(read_toml(path, Vocabulary))
        if found[-1].language != language:
            raise ConfigError(f"{path}: its phrases are of language {found[-1].language!r}, wanted are those of {language!r}")
    return found


def cuts_of(own: Sequence[Vocabulary] = ()) -> Cuts:
    """Of all languages, and of the site's files: reports mix them, and few of their abbreviations mean another thing elsewhere."""
    return _shipped_cuts() if not own else _cuts((*_shipped().values(), *own))


@cache
def _shipped() -> Mapping[str, Vocabulary]:
    return {path.stem: read_toml(path, Vocabulary) for path in sorted(HERE.glob("*.toml"))}


@cache
def _shipped_cuts() -> Cuts:
    return _cuts(tuple(_shipped().values()))


def _cuts(vocabularies: Sequence[Vocabulary]) -> Cuts:
    without = {phrase for one in vocabularies for phrase in one.without}

    def said(name: str) -> list[str]:
        return [phrase for one in vocabularies for phrase in getattr(one.ends, name) if phrase not in without]

    return Cuts.of(**{name: said(name) for name in SentencePhrases.model_fields})
