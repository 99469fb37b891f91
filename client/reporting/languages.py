"""In which language reports are: one that is read by another's phrases says little, and its negations go unseen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from client.data.labeler import Labeler
from client.data.vocabulary import languages

MANY, TIMES = 300, 2
"""Reports that are read for it at most; and how many times as many findings as in their own language they speak of in another if that is
rather theirs."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """How often reports speak of findings, as the phrases of two languages have it."""

    reports: int
    speaking: int
    """Reports of them that speak of any finding in the language that is taken for theirs."""
    own: int
    """Mentions in that language."""
    other: str
    """The language in which they have the most."""
    others: int
    """Mentions in that."""

    @property
    def is_rather_another(self) -> bool:
        return self.others > TIMES * self.own


def labelers_of(own: str, labeler: Labeler) -> dict[str, Labeler]:
    """Of all languages of which there are phrases; of its own the one that is given."""
    return {language: labeler if language == own else Labeler(language=language) for language in languages()}


def heard(reports: Sequence[str], own: str, labelers: Mapping[str, Labeler]) -> Heard:
    """Of the first of them; `own` is the language that is taken for theirs."""
    read = reports[:MANY]
    found = {language: [len(labeler.mentions(report)) for report in read] for language, labeler in labelers.items()}
    other = max(found, key=lambda language: sum(found[language]))
    return Heard(reports=len(read), speaking=sum(map(bool, found[own])), own=sum(found[own]), other=other, others=sum(found[other]))
