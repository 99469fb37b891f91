"""The words that a labeler goes by, read from phrase files: of a language, and of a site that speaks it in its own way."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

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
    "stop", "comma", "and", "or",
]  # fmt: skip
Meaning = tuple[Kind, str]
"""What a phrase says, and of which finding, side or severity; the second is empty where it says nothing of the kind."""
_TOKEN = re.compile(
    # A list's next line, and a heading, begin a sentence; a line that is merely full does not.
    r"(?P<end>[.!;](?=\s|$)|\n[^\S\n]*\n|\n(?=\s*(?:[-*•]|\d+[.)]\s|[A-Z][A-Za-z /]{2,30}:)))"
    r"|(?P<word>[^\W_]+(?:\.\d+)?|[,:])|(?P<asked>\?)"
)


@dataclass(frozen=True, slots=True)
class Token:
    word: str
    """In lower case; a question mark is `?` before what it asks for, and `(?)` after it; empty where a sentence ends."""
    start: int
    end: int


def tokens(text: str) -> Iterator[Token]:
    for found in _TOKEN.finditer(text):
        start, end = found.span()
        if found["word"]:
            yield Token("," if found["word"] == ":" else found["word"].lower(), start, end)
        elif found["asked"]:
            yield Token("?" if start == 0 or text[start - 1].isspace() else "(?)", start, end)
        else:
            yield Token("", start, end)


def _words(phrase: str) -> str:
    if not any(token.word for token in tokens(phrase)):
        raise ValueError("has no word")
    return phrase


def _known(finding: str) -> str:
    if finding not in FINDINGS or finding == "no_finding":
        raise ValueError(f"{finding} is no finding that reports are labelled with{did_you_mean(finding, FINDINGS)}")
    return finding


Phrases = tuple[Annotated[str, AfterValidator(_words)], ...]


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
    history: Phrases = ()
    """What follows is of the past, or of what was asked, and no mention."""
    conjunctions: Phrases = ()
    """`and`: a negation ends at one that an own size follows, unless the list goes on with `or`."""
    alternatives: Phrases = ()
    """`or`."""


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
    sides: Mapping[Literal["left", "right", "both"], Phrases] = Field(default_factory=dict)
    severity: Mapping[Literal["mild", "moderate", "severe"], Phrases] = Field(default_factory=dict)
    without: Phrases = ()

    def meanings(self) -> Iterator[tuple[str, Meaning]]:
        for finding, of in self.findings.items():
            for kind, phrases in (("finding", of.words), ("absent", of.absent), ("subject", of.subjects), ("predicate", of.predicates)):
                yield from ((phrase, (kind, finding)) for phrase in phrases)  # type: ignore[misc]
        for kind, phrases in (("normal", self.normal.words), ("other", self.other.words)):
            yield from ((phrase, (kind, "")) for phrase in phrases)  # type: ignore[misc]
        names = {"stops": "stop", "conjunctions": "and", "alternatives": "or"}
        for name in type(self.cues).model_fields:
            yield from ((phrase, (names.get(name, name), "")) for phrase in getattr(self.cues, name))  # type: ignore[misc]
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
        for token in tokens(phrase):
            node = node.further.setdefault(token.word, Node())
        if meaning not in node.meanings:
            node.meanings += (meaning,)
    return root


def languages() -> list[str]:
    """Of which there are phrases."""
    return sorted(path.stem for path in HERE.glob("*.toml"))


def read_vocabularies(language: str, own: Sequence[Path] = ()) -> list[Vocabulary]:
    """The language's, and then those of the files. ConfigError for a language that there is no file of, and for a file of another one."""
    there = languages()
    if language not in there:
        raise ConfigError(f"there are no phrases of language {language!r}; there are those of {', '.join(there)}")
    found = [read_toml(HERE / f"{language}.toml", Vocabulary)]
    for path in own:
        found.append(read_toml(path, Vocabulary))
        if found[-1].language != language:
            raise ConfigError(f"{path}: its phrases are of language {found[-1].language!r}, wanted are those of {language!r}")
    return found
