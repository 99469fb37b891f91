"""The sentences and rules of rewriting of a language, read from its file in `sentences`."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from client.data.clauses import Severity, Side, State
from client.data.vocabulary import FINDINGS
from rainhill.errors import ConfigError
from rainhill.toml import Section, read_toml

HERE = Path(__file__).with_name("sentences")
Patterns = tuple[str, ...]
Rule = tuple[str, str]
"""A pattern, and what takes its place. A space is any white space, and {name} a piece of the language."""
Compiled = tuple[tuple[re.Pattern[str], str], ...]


def _known(finding: str) -> str:
    if finding not in FINDINGS or finding == "no_finding":
        raise ValueError(f"{finding} is no finding that a sentence can be of")
    return finding


class Scrubbing(Section):
    """How a sentence loses what it compares with; in this order."""

    gradings: tuple[Rule, ...]
    """Words that grade a change, and not the finding."""
    references: Patterns
    """What is compared with."""
    rules: tuple[Rule, ...]
    predicates: Patterns
    """What is said of a subject and is nothing but a comparison: without a finding, the subject goes too."""
    mends: tuple[Rule, ...]
    """Afterwards."""
    first: Patterns
    last: Patterns
    """Words that no part of a sentence begins or ends with."""


class Placing(Section):
    """How a sentence loses the side, place and size of what it finds, which no label tells."""

    rules: tuple[Rule, ...]
    """Before the words of sides and sizes go."""
    mends: tuple[Rule, ...]
    """And after."""


class Plain(Section):
    """Sentences that say of a finding that it is there, is not, or may be; and words for those that are said anew."""

    opening: str
    normal: str
    """Says of no finding anything."""
    negative: str
    uncertain: str
    sides: Mapping[Literal["left", "right", "both"], str]
    severities: Mapping[Literal["mild", "moderate", "severe"], str]

    def placed(self, side: Side, severity: Severity) -> tuple[str, ...]:
        """The words for a severity and a side, as far as there are any."""
        return (
            *(word for name, word in self.severities.items() if name == severity),
            *(word for name, word in self.sides.items() if name == side),
        )


class Language(Section):
    language: str
    capital_nouns: bool = False
    pieces: dict[str, str]
    scrubbing: Scrubbing
    placing: Placing
    plain: Plain
    sentences: dict[Annotated[str, AfterValidator(_known)], dict[State, tuple[str, ...]]]
    words: Annotated[str, Field(min_length=1)]
    """That a sentence of a site may have besides those of the labeler's phrases: nobody's name is among them."""

    def compiled(self, rules: tuple[Rule, ...]) -> Compiled:
        return tuple((_pattern(pattern, self.pieces), with_) for pattern, with_ in rules)

    def ends(self, of: "Scrubbing") -> tuple[Compiled, Compiled]:
        """What takes the words off a beginning, and off an end: all of them at once, for a list of them may be long."""
        first, last = "|".join(of.first), "|".join(of.last)
        return self.removing((rf"^(?:(?:{first})(?:\s+|$))+",)), self.removing((rf"(?:(?:^|(?<=\s))(?:{last})\s*)+$",))

    def removing(self, patterns: Patterns) -> Compiled:
        return self.compiled(tuple((pattern, "") for pattern in patterns))


@cache
def language_of(name: str) -> Language:
    """ConfigError for a language that there is no file of."""
    there = sorted(path.stem for path in HERE.glob("*.toml"))
    if name not in there:
        raise ConfigError(f"there are no sentences of language {name!r}; there are those of {', '.join(there)}")
    return read_toml(HERE / f"{name}.toml", Language)


def _pattern(pattern: str, pieces: Mapping[str, str]) -> re.Pattern[str]:
    while (whole := re.sub(r"\{([a-z]+)\}", lambda found: f"(?:{pieces[found[1]]})", pattern)) != pattern:
        pattern = whole
    # Whole words, as the labeler matches them.
    return re.compile(rf"(?<![^\W_])(?:{pattern.replace(' ', chr(92) + 's+')})(?:(?<=\s)|(?![^\W_]))", re.IGNORECASE)
