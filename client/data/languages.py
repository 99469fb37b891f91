"""In which language reports are: of one that is read by another's phrases little is understood, and its negations go unseen."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from client.data.labeler import Labeler
from client.data.vocabulary import languages


@dataclass(frozen=True, kw_only=True)
class Heard:
    reports: int
    speaking: int
    """Those that speak of any finding in the language that is taken for theirs."""
    elsewhere: int
    """Those that speak of more in another one. Of a few words that are the same in both, such as "Kein Pneumothorax.", nobody knows."""
    other: str
    """The language that most of these are in; empty where there are none."""


def labelers_of(own: str, labeler: Labeler) -> dict[str, Labeler]:
    """Of all languages of which there are phrases; of its own the one that is given."""
    return {language: labeler if language == own else Labeler(language=language) for language in languages()}


def heard(reports: Sequence[str], own: str, labelers: Mapping[str, Labeler]) -> Heard:
    """`own` is the language that is taken for theirs."""
    speaking, elsewhere = 0, Counter[str]()
    for report in reports:
        found = {language: len(labeler.mentions(report)) for language, labeler in labelers.items()}
        speaking += bool(found[own])
        other = max(found, key=lambda language: found[language])
        if found[other] > found[own]:
            elsewhere[other] += 1
    most = elsewhere.most_common(1)
    return Heard(reports=len(reports), speaking=speaking, elsewhere=elsewhere.total(), other=most[0][0] if most else "")
