"""What a site's reports teach of its style: its sentences of one finding, their order, how a report begins and what it concludes."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from client.data.clauses import State
from client.data.labeler import Labeler, Mention
from client.data.vocabulary import Vocabulary, read_vocabularies, tokens
from client.drafting._language import Language
from client.drafting._rewriting import Unplacing, unplaced
from client.drafting._sentences import sentences_of

Ways = tuple[tuple[str, int], ...]
"""Of saying one thing, with the number of patients in whose reports each is, most first."""
HABIT = 0.2
"""Share of the patients whose reports begin, or end, with a sentence that makes it the way to begin or end one."""
LONGEST = 25
"""Words of a sentence."""
_MARKS = frozenset({",", "?", "(?)"})
_CONCLUSION = re.compile(r"\n\s*(?P<heading>[^\W\d_][^\W\d_ ]*):\s+(?P<said>[^\n]+?)\.?\s*$")
"""A last line of its own with a heading of one word."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    said: Mapping[tuple[str, State], Ways]
    """Sentences of one finding in one state."""
    places: Mapping[str, float]
    """Of the findings in a report, from 0 to 1."""
    openings: Ways
    heading: str
    """Of the conclusion; empty where reports have none."""
    between: str
    """What stands between two findings of a conclusion."""
    nouns: Mapping[str, Ways]
    """What a conclusion calls a finding that is there."""
    closings: Ways
    """What a conclusion says where there is none."""


@dataclass(slots=True)
class _Heard:
    patients: set[int] = field(default_factory=set)
    first: set[int] = field(default_factory=set)
    """Patients of whom it begins a report."""
    places: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Conclusions:
    of: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Patients by heading."""
    parts: defaultdict[tuple[str, str], set[int]] = field(default_factory=lambda: defaultdict(set))
    """By heading and part."""
    whole: defaultdict[tuple[str, str], set[int]] = field(default_factory=lambda: defaultdict(set))
    """By heading and all that is concluded, of reports that find nothing."""
    between: Counter[str] = field(default_factory=Counter)


def learn(
    reports: Sequence[str],
    patients: Sequence[int] | NDArray[np.int64],
    labeler: Labeler,
    *,
    language: Language,
    own: Sequence[Path],
    known: Collection[str],
    min_patients: int,
) -> Learned:
    vocabularies = read_vocabularies(language.language, own)
    words = _known(vocabularies, language, known)
    heard, concluded = _heard(reports, patients, labeler, Unplacing.of(language, vocabularies))

    def usable(text: str, of: Collection[int]) -> bool:
        return len(of) >= min_patients and _is_safe(text, words) and not labeler.comparisons(text)

    common = {text: of for text, of in heard.items() if usable(text, of.patients)}
    habit = max(min_patients, HABIT * len({int(patient) for patient in patients}))
    heading = max(concluded.of, key=lambda name: len(concluded.of[name]), default="")
    if not (usable(heading, concluded.of[heading]) and len(concluded.of[heading]) >= habit):
        heading = ""
    nouns = {noun: len(of) for (under, noun), of in concluded.parts.items() if under == heading and usable(noun, of)}
    closed = {said: len(of) for (under, said), of in concluded.whole.items() if under == heading and usable(said, of)}
    return Learned(
        **_sentences(common, labeler),
        openings=_ways({text: len(of.first) for text, of in common.items() if len(of.first) >= habit and not labeler.mentions(text)}),
        heading=heading,
        between=max(concluded.between, key=concluded.between.__getitem__, default=", "),
        nouns=_nouns(nouns, heading, labeler),
        closings=_ways({said: count for said, count in closed.items() if not labeler.mentions(f"{heading}: {said}.")}),
    )


def _ways(counts: Mapping[str, int]) -> Ways:
    return tuple(Counter(counts).most_common())


class _Sentences(TypedDict):
    said: Mapping[tuple[str, State], Ways]
    places: Mapping[str, float]


def _sentences(common: Mapping[str, "_Heard"], labeler: Labeler) -> _Sentences:
    said: defaultdict[tuple[str, State], dict[str, int]] = defaultdict(dict)
    places: defaultdict[str, list[float]] = defaultdict(list)
    for text, of in common.items():
        if (one := _only(labeler.mentions(text))) is not None:
            said[one][text] = len(of.patients)
            places[one[0]].extend(of.places)
    return {
        "said": {one: _ways(texts) for one, texts in said.items()},
        "places": {finding: float(np.mean(at)) for finding, at in places.items()},
    }


def _nouns(counts: Mapping[str, int], heading: str, labeler: Labeler) -> dict[str, Ways]:
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for noun, count in counts.items():
        one = _only(labeler.mentions(f"{heading}: {noun}."))
        if one is not None and one[1] == "positive":
            found[one[0]][noun] = count
    return {finding: _ways(of) for finding, of in found.items()}


def _heard(
    reports: Sequence[str], patients: Sequence[int] | NDArray[np.int64], labeler: Labeler, unplacing: Unplacing
) -> tuple[dict[str, _Heard], _Conclusions]:
    heard: defaultdict[str, _Heard] = defaultdict(_Heard)
    concluded = _Conclusions()
    seen: dict[str, str] = {}
    for report, patient in zip(reports, map(int, patients), strict=True):
        conclusion = _CONCLUSION.search(report)
        body = report[: conclusion.start()] if conclusion else report
        sentences = [" ".join(one.text.split()) for one in sentences_of(body)]
        for place, sentence in enumerate(sentences):
            if sentence not in seen:
                seen[sentence] = unplaced(sentence, unplacing)
            of = heard[seen[sentence]]
            of.patients.add(patient)
            of.places.append(place / len(sentences))
            if place == 0:
                of.first.add(patient)
        if conclusion:
            normal = labeler.labels(report)["no_finding"] == "positive"
            _conclude(concluded, conclusion["heading"], conclusion["said"], patient, normal=normal, unplacing=unplacing)
    return heard, concluded


def _conclude(concluded: _Conclusions, heading: str, said: str, patient: int, *, normal: bool, unplacing: Unplacing) -> None:
    concluded.of[heading].add(patient)
    concluded.between.update(re.findall(r"[,;] ", said))
    if normal:
        concluded.whole[heading, said].add(patient)
        return
    for part in re.split(r"[,;] ", said):
        noun = unplaced(part, unplacing).removesuffix(".")
        # As it is written behind a heading, not as a sentence.
        noun = noun if part[:1].isupper() or noun[1:2].isupper() else noun[:1].lower() + noun[1:]
        concluded.parts[heading, noun].add(patient)


def _only(mentions: Sequence[Mention]) -> tuple[str, State] | None:
    """The one finding in the one state that they say, without side and severity."""
    said = {(one.finding, one.state) for one in mentions}
    plain = all(not (one.side or one.severity) for one in mentions)
    return said.pop() if len(said) == 1 and plain and mentions[0].finding != "other" else None


def _known(vocabularies: Iterable[Vocabulary], language: Language, known: Collection[str]) -> frozenset[str]:
    sentences = (text for of in language.sentences.values() for texts in of.values() for text in texts)
    phrases = (phrase for one in vocabularies for phrase, _ in one.meanings())
    return frozenset(token.word for text in (*phrases, *sentences, language.words, *known) for token in tokens(text) if token.word)


def _is_safe(text: str, known: Collection[str]) -> bool:
    """Whether nobody's name, number or date can be in it."""
    words = [token.word for token in tokens(text) if token.word and token.word not in _MARKS]
    return len(words) <= LONGEST and not re.search(r"\d", text) and all(word in known for word in words)
