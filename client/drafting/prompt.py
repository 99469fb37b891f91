"""What a drafting model is asked: blocks in a fixed order, bounded, and such that no text of a hospital can pass for one of them.

The blocks of findings and of the prior report follow RaDialog (Pellegrini et al. 2023, arXiv:2311.18681) and MAIRA-1 (Hyland et al. 2023,
arXiv:2311.13668).
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite

from client.data.vocabulary import FINDINGS
from client.drafting.retrieval import Neighbour
from client.reporting.reading import CLASSES, THERE, Reading
from rainhill.errors import DataError

INDICATION, PRIOR, FOUND, SIMILAR, ANSWER = "Indication", "Comparison", "Predicted findings", "Similar reports", "Report"
HEADINGS = (INDICATION, PRIOR, FOUND, SIMILAR, ANSWER)
MOST_WORDS: Mapping[str, int] = {INDICATION: 60, PRIOR: 200, FOUND: 80, SIMILAR: 100}
"""Of a block; of similar reports, of each."""
MOST_WORDS_OF_A_NAME = 5
MOST_NEIGHBOURS = 5
LONGEST_WORD = 60
"""Characters: what is longer is no word, and is cut."""
CUT = "(cut)"
_NAMES = "|".join(heading.replace(" ", r"[\s_-]*") for heading in HEADINGS)
_HEADING = re.compile(rf"({_NAMES})([\s*_]*)[:：﹕︓∶꞉]", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?;](?=\s|$)")


@dataclass(frozen=True, kw_only=True, repr=False)
class Prompt:
    indication: str = ""
    prior: str = ""
    """The report of the examination before; empty where there is none."""
    findings: tuple[str, ...] | None = None
    """Of the findings task; None where it was not asked, and empty where it found none."""
    neighbours: tuple[Neighbour, ...] = ()

    def text(self) -> str:
        """One line for each block that there is something of, and at last the one that the answer follows."""
        return "\n".join((*self._blocks(), f"{ANSWER}:"))

    def _blocks(self) -> Iterator[str]:
        for heading, said in ((INDICATION, self.indication), (PRIOR, self.prior)):
            if bounded := bound(defused(said), MOST_WORDS[heading]):
                yield f"{heading}: {bounded}"
        if self.findings is not None:
            said = ", ".join(filter(None, map(defused, self.findings))) or "none"
            yield f"{FOUND}: {bound(said, MOST_WORDS[FOUND])}"
        cited = [
            (bound(defused(one.name), MOST_WORDS_OF_A_NAME), bound(defused(one.report), MOST_WORDS[SIMILAR]))
            for one in self.neighbours[:MOST_NEIGHBOURS]
        ]
        if cited:
            yield f"{SIMILAR}: " + " ".join(f"[{number}] ({name}) {said}" for number, (name, said) in enumerate(cited, start=1))


def has_prior(prompt: str) -> bool:
    """Whether there is a report of the examination before in it: no text of a hospital can look like that."""
    return re.search(rf"\b{PRIOR}\s*:", prompt, re.IGNORECASE) is not None


def defused(text: str) -> str:
    """On one line, without control characters, and without what a heading, a citation or a special token of a tokenizer looks like."""
    text = "".join(_shown(character) for character in text)
    # `<image>`, `</s>`, `<|im_end|>`, `[INST]` and `[1]`; not `< 2 cm`.
    text = re.sub(r"<(?=[^\s\d=])", "< ", text).translate({ord("["): "(", ord("]"): ")"})
    return " ".join(_HEADING.sub(r"\1\2 -", text).split())


def _shown(character: str) -> str:
    kind = unicodedata.category(character)
    if kind in ("Cc", "Zl", "Zp", "Zs"):
        return " "
    # Format characters are not seen: they hide a heading from whoever looks for it.
    return "" if kind in ("Cf", "Cs", "Co", "Cn") else character


def bound(text: str, most_words: int) -> str:
    """Its first sentences that have together no more words, and a note that it goes on; of a longer sentence its first words."""
    said = [word if len(word) <= LONGEST_WORD else f"{word[:LONGEST_WORD]}…" for word in text.split()]
    if len(said) <= most_words:
        return " ".join(said)
    kept = " ".join(said[:most_words])
    ends = [found.end() for found in _SENTENCE_END.finditer(kept)]
    return f"{kept[: ends[-1]] if ends else kept} {CUT}"


def findings_of(reading: Reading) -> tuple[str, ...]:
    """What a report has there, or may have, in the order of the classes: `mild left pleural effusion`, `possible pneumonia`."""
    return tuple(_phrase(finding, reading) for finding in CLASSES if reading.labels[finding] in THERE)


def _phrase(finding: str, reading: Reading) -> str:
    sides = reading.sides.get(finding, frozenset())
    side = "bilateral" if {"left", "right"} <= sides else next(iter(sorted(sides)), "")
    maybe = "possible" if reading.labels[finding] == "uncertain" else ""
    return " ".join(filter(None, (maybe, reading.severities.get(finding, ""), side, finding.replace("_", " "))))


def findings_above(scores: Mapping[str, float], thresholds: float | Mapping[str, float]) -> tuple[str, ...]:
    """What a classifier finds, from probabilities: those of at least the threshold, in the order of CheXpert and then their own.

    DataError for a score or threshold that is not from 0 to 1, and for a finding without a threshold.
    """
    found = []
    for finding in sorted(scores, key=lambda name: FINDINGS.index(name) if name in FINDINGS else len(FINDINGS)):
        threshold = thresholds.get(finding) if isinstance(thresholds, Mapping) else thresholds
        if threshold is None:
            raise DataError(f"{finding}: has a score and no threshold, expected one of each finding")
        for name, value in (("score", scores[finding]), ("threshold", threshold)):
            if not (isfinite(value) and 0 <= value <= 1):
                raise DataError(f"{finding}: {name} {value}, expected a probability from 0 to 1")
        if finding != "no_finding" and scores[finding] >= threshold:
            found.append(finding.replace("_", " "))
    return tuple(found)
