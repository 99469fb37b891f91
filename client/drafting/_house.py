"""How a site says that a finding is there, and that it is not: the whole sentences of its own reports."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from client.data.clauses import State
from client.data.labeler import Labeler
from client.drafting._sentences import sentences_of
from client.reporting.reading import CLASSES
from rainhill.errors import DataError

MIN_PATIENTS = 3
"""Of whose reports a sentence must be: a rarer one may tell who somebody is."""
MOST = 32
"""Sentences of one finding and state, those of the most patients."""


@dataclass(frozen=True, kw_only=True, repr=False)
class House:
    sentences: Mapping[tuple[str, State], tuple[str, ...]]

    @classmethod
    def of(cls, reports: Sequence[str], labeler: Labeler, *, patients: Sequence[int], min_patients: int = MIN_PATIENTS) -> "House":
        """`patients` are the numbers of those whom the reports are of. DataError where the two differ in number."""
        if len(reports) != len(patients):
            raise DataError(f"{len(reports)} reports of {len(patients)} patients: a number is wanted for each report")
        said: dict[str, set[int]] = defaultdict(set)
        for report, patient in zip(reports, patients, strict=True):
            for sentence in sentences_of(report):
                said[sentence.text + sentence.end].add(int(patient))
        found: dict[tuple[str, State], list[str]] = defaultdict(list)
        for text in sorted(said, key=lambda text: (-len(said[text]), text)):
            mentions = labeler.mentions(text) if len(said[text]) >= min_patients and not labeler.comparisons(text) else []
            # Airspace opacification is an opacity and a consolidation; what is said in two places is two things.
            if len({(one.start, one.state) for one in mentions}) == 1:
                for one in mentions:
                    if one.finding in CLASSES and len(found[one.finding, one.state]) < MOST:
                        found[one.finding, one.state].append(text)
        return cls(sentences={claim: tuple(texts) for claim, texts in found.items()})
