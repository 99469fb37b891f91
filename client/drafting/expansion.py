"""Labels -> a report in the site's own style, for films that come with labels and without text.

Sentences that say one finding are taken from the site's reports, without side, place and size, which no label tells. The labeler reads
each of them, and each report that is written, and has to find the labels again.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from client.data.clauses import State
from client.data.labeler import Label, Labeler
from client.data.vocabulary import FINDINGS
from client.drafting._language import Language, language_of
from client.drafting._learning import Learned, Ways, learn
from client.reporting.reading import CLASSES, THERE
from rainhill.errors import DataError
from rainhill.text import did_you_mean

MIN_PATIENTS = 3
"""Of whose reports a sentence must be: a rarer one may tell who somebody is."""
TRIES = 8


@dataclass(frozen=True, kw_only=True)
class Expander:
    labeler: Labeler = field(repr=False)
    learned: Learned = field(repr=False)
    sentences: Mapping[tuple[str, State], Ways]
    """The site's, and behind them the language's, which count as of one patient."""
    nothing: str
    """Said where nothing else would be."""

    @classmethod
    def of(
        cls,
        reports: Sequence[str],
        labeler: Labeler,
        *,
        patients: Sequence[int] | NDArray[np.int64],
        language: str = "en",
        own: Sequence[Path] = (),
        known: Collection[str] = (),
        min_patients: int = MIN_PATIENTS,
    ) -> "Expander":
        """`patients` are the numbers of those whom the reports are of; `own` are the phrase files that the labeler has been given.

        A sentence with a word that is not in the phrase files, the language's file or `known` is not taken: it may be a name. DataError
        where reports and patients differ in number, and for fewer patients than 2.
        """
        if len(reports) != len(patients):
            raise DataError(f"{len(reports)} reports of {len(patients)} patients: a number is wanted for each report")
        if min_patients < 2:
            raise DataError(f"min_patients = {min_patients}: a sentence of one patient may tell who that is, expected 2 or more")
        of = language_of(language)
        learned = learn(reports, patients, labeler, language=of, own=own, known=known, min_patients=min_patients)
        return cls(
            labeler=labeler,
            learned=learned,
            sentences=dict(_sentences(learned.said, of, labeler)),
            nothing=f"{of.plain.opening} {of.plain.normal}",
        )

    @property
    def order(self) -> tuple[str, ...]:
        """Of the findings in the site's reports."""
        return tuple(sorted(CLASSES, key=lambda finding: self.learned.places.get(finding, 1.0)))

    def write(self, labels: Mapping[str, Label], *, seed: int | Sequence[int]) -> str:
        """A report that the labeler reads as these labels; a finding that is not among them is unmentioned.

        `no_finding` follows from the others, and may be left out. DataError for labels that contradict it, that are none, or that no
        sentences say together.
        """
        wanted = _wanted(labels)
        rng = np.random.default_rng(seed)
        for drawn in range(TRIES + 1):
            # At last in the plainest words.
            text = self._text(wanted, rng if drawn < TRIES else None)
            read = self.labeler.labels(text)
            if all(read[finding] == label for finding, label in wanted.items()) and not self.labeler.comparisons(text):
                return text
        told = ", ".join(f"{name} {label}" for name, label in wanted.items() if name != "no_finding" and label != "unmentioned")
        raise DataError(f"no sentences say {told or 'nothing'} together")

    def _text(self, wanted: Mapping[str, Label], rng: np.random.Generator | None) -> str:
        order = self.order
        said = [self.sentences[name, label] for name in order if (label := wanted[name]) != "unmentioned"]
        body = " ".join(_drawn(ways, rng) for ways in (self.learned.openings, *said) if ways)
        if rng is None:
            return body or self.nothing
        nouns = [_drawn(ways, rng) for name in order if wanted[name] == "positive" and (ways := self.learned.nouns.get(name))]
        if not nouns and wanted["no_finding"] == "positive" and self.learned.closings:
            nouns = [_drawn(self.learned.closings, rng)]
        concluded = f"{self.learned.heading}: {self.learned.between.join(nouns)}." if nouns else ""
        return "\n".join(filter(None, (body, concluded))) or self.nothing


def _sentences(said: Mapping[tuple[str, State], Ways], language: Language, labeler: Labeler) -> Iterator[tuple[tuple[str, State], Ways]]:
    """The site's for each finding and state, and the language's behind them, to fall back on."""
    for finding in CLASSES:
        for state in get_args(State):
            plain = [(text, 1) for text in language.sentences[finding][state] if says_only(text, finding, state, labeler)]
            yield (finding, state), (*said.get((finding, state), ()), *plain)


def says_only(text: str, finding: str, state: State, labeler: Labeler) -> bool:
    mentions = labeler.mentions(text)
    return bool(mentions) and all((one.finding, one.state) == (finding, state) for one in mentions)


def _drawn(ways: Ways, rng: np.random.Generator | None) -> str:
    """As often as the site says it, and where nothing is drawn the last, which is the language's own."""
    if rng is None:
        return ways[-1][0]
    # Where a site has sentences of its own, the language's are kept for need.
    ways = tuple(way for way in ways if way[1] > 1) or ways
    counts = np.array([count for _, count in ways], dtype=np.float64)
    return ways[int(rng.choice(len(ways), p=counts / counts.sum()))][0]


def _wanted(labels: Mapping[str, Label]) -> dict[str, Label]:
    for name, label in labels.items():
        if name not in FINDINGS:
            raise DataError(f"{name} is no finding that reports are labelled with{did_you_mean(name, FINDINGS)}")
        if label not in get_args(Label):
            raise DataError(f"{name} = {label!r}, expected one of {', '.join(get_args(Label))}")
    wanted = {finding: labels.get(finding, "unmentioned") for finding in CLASSES}
    there = [finding for finding, label in wanted.items() if label in THERE and finding != "support_devices"]
    normal: Label = "negative" if there else "positive"
    given = labels.get("no_finding", "unmentioned")
    if given not in ("unmentioned", normal):
        raise DataError(f"no_finding is {given}, but of the other labels there are {', '.join(there) or 'none'}")
    return {"no_finding": normal, **wanted}
