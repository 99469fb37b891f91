"""Findings that a report speaks of: present, absent or uncertain, on which side and how severe, and by which of its words.

Rules over the words of a clause, in the order of CheXpert (Irvin et al. 2019, arXiv:1901.07031): uncertainty that contains a negation,
then negation, then any other uncertainty. The words are in phrase files, which a site may add to: docs/labeler.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.data.clauses import (
    OTHER,
    Item,
    Severity,
    Side,
    State,
    around,
    claims,
    near,
    reached,
    severity_of,
    side_of,
    starts,
    state_of,
    told_apart,
)
from client.data.sentences import Token
from client.data.vocabulary import FINDINGS, PATHOLOGIES, Kind, Meaning, Node, cuts_of, read_vocabularies, tokens, tree_of

Label = Literal["positive", "negative", "uncertain", "unmentioned"]
LONGEST = 200
"""Words of a sentence: what goes on for longer is a list or no text, and is cut, for each word is held against all before it."""
_SAYING: tuple[Kind, ...] = ("finding", "absent", "other", "normal", "negated_before", "negated_after")
"""That tell what is there, and what is not."""
_MANY = 30
"""Phrases of a sentence that are gone through for each mention in it."""
_RANK: Mapping[Label, int] = {"positive": 3, "uncertain": 2, "negative": 1, "unmentioned": 0}


@dataclass(frozen=True, kw_only=True)
class Mention:
    finding: str
    state: State
    side: Side
    severity: Severity
    start: int
    end: int
    """Of its words in the text."""
    words: str
    cue: str
    """The words that made it negative or uncertain; empty of a plain one."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A mention, and what of its sentence may take it back."""

    mention: Mention
    limited: bool
    """It is denied of a kind of the finding only, as in `no acute fracture`."""
    excepted: bool
    """It is named as the exception to what stands before it."""


class Labeler:
    def __init__(self, *, language: str = "en", own: Sequence[Path] = ()) -> None:
        """`own` are phrase files of the site. ConfigError for one that is none."""
        vocabularies = read_vocabularies(language, own)
        without = {phrase for one in vocabularies for phrase in one.without}
        self._tree = tree_of((phrase, meaning) for one in vocabularies for phrase, meaning in one.meanings() if phrase not in without)
        # Apart: such words also stand in the phrases that say what is there.
        temporal = (phrase for one in vocabularies for phrase in one.temporal.words if phrase not in without)
        self._temporal = tree_of((phrase, ("other", "")) for phrase in temporal)
        self._limits = frozenset(phrase for one in vocabularies for phrase in one.cues.limits if phrase not in without)
        self._cuts = cuts_of(vocabularies[1:])

    def mentions(self, text: str) -> list[Mention]:
        """In their order. A phrase that stands for two findings is a mention of both."""
        found: list[_Read] = []
        sentence: list[Token] = []
        for token in (*tokens(text, self._cuts), None):
            if token is not None and token.word:
                sentence.append(token)
            if sentence and (token is None or not token.word or len(sentence) == LONGEST):
                found.extend(_but_for_exceptions(list(self._of_sentence(text, sentence))))
                sentence = []
        there = {one.mention.finding for one in found if one.mention.state == "positive"}
        return [one.mention for one in found if not (one.limited and one.mention.finding in there)]

    def labels(self, text: str) -> dict[str, Label]:
        """Each of `FINDINGS`: what is said of it most strongly, where several mentions differ."""
        return labels_of(self.mentions(text))

    def comparisons(self, text: str) -> list[str]:
        """The words that hold this examination against an earlier one, in their order."""
        said = list(tokens(text, self._cuts))
        return [text[said[one.first].start : said[one.last].end] for one in phrases_in(said, self._temporal) if not one.has("comma")]

    def is_silent(self, text: str) -> bool:
        """Whether no word by itself says that something is there or is not, or that all is well: of a text without a mention."""
        return not any(one.has(*_SAYING) for one in phrases_in(list(tokens(text, self._cuts)), self._tree))

    def _of_sentence(self, text: str, sentence: list[Token]) -> Iterator[_Read]:
        items = phrases_in(sentence, self._tree)
        kinds = {kind for item in items for kind, _ in item.meanings}
        if not kinds.isdisjoint(("side", "doubt")):
            items = told_apart(items)
        excepted = next((place for place, item in enumerate(items) if item.has("exception")), 0) if "exception" in kinds else len(items)
        begun = starts(items) if len(items) > _MANY else None
        for whole in claims(items):
            of, claim = around(items, whole, begun[whole.begin]) if begun else (items, whole)
            if reached(of, claim, ("history",)) is not None:
                continue
            state, cue = state_of(of, claim)
            first, last = sentence[of[claim.begin].first], sentence[of[claim.at].last]
            mention = Mention(
                finding=claim.finding,
                state=state,
                side=side_of(of, claim),
                severity=severity_of(*(near(of, claim) if begun else (of, claim))),
                start=first.start,
                end=last.end,
                words=text[first.start : last.end],
                cue=text[sentence[cue.first].start : sentence[cue.last].end] if cue else "",
            )
            denied = range(cue.first, of[claim.begin].first) if cue and state == "negative" else ()
            yield _Read(mention, any(sentence[place].word in self._limits for place in denied), whole.at > excepted)


def _but_for_exceptions(sentence: list[_Read]) -> list[_Read]:
    """`Lungs clear apart from a consolidation` does not deny the consolidation."""
    there = {one.mention.finding for one in sentence if one.excepted and one.mention.state != "negative"}
    return [one for one in sentence if one.excepted or one.mention.state != "negative" or one.mention.finding not in there]


def phrases_in(sentence: Sequence[Token], tree: Node) -> list[Item]:
    """The longest phrase at each place, from left to right."""
    found: list[Item] = []
    place, length, further = 0, len(sentence), tree.further
    while place < length:
        best: tuple[Meaning, ...] = ()
        node, end = further.get(sentence[place].word), place
        at = place
        while node is not None:
            if node.meanings:
                best, end = node.meanings, at
            at += 1
            node = node.further.get(sentence[at].word) if at < length else None
        if best:
            found.append(Item(best, place, end))
        place = end + 1
    return found


def labels_of(mentions: Sequence[Mention]) -> dict[str, Label]:
    found: dict[str, Label] = dict.fromkeys(FINDINGS, "unmentioned")
    other = False
    for one in mentions:
        if one.finding == OTHER:
            other = other or one.state != "negative"
        elif _RANK[one.state] > _RANK[found[one.finding]]:
            found[one.finding] = one.state
    abnormal = other or any(_RANK[found[finding]] > 1 for finding in PATHOLOGIES)
    found["no_finding"] = "negative" if abnormal else "positive"
    return found
