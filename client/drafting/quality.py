"""Whether a report fits its image: each sentence supported, unsupported or contradicted by what else is known of the film, and by which.

Report QA as ELIXR has it (Xu et al. 2023, arXiv:2308.01317). The evidence is what models say: it is as wrong as they are, and a mark asks
for a second look.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

from client.data.clauses import Side
from client.data.labeler import Labeler, Mention
from client.drafting._house import House
from client.drafting._likelihood import Likelihood, likelihood_of, log_likelihoods
from client.drafting._sentences import CONCLUDES, sentences_of
from client.drafting._swaps import Kind, Swap, swapped
from client.drafting._witness import Limit, Ratios, Witness
from client.reporting.reading import CLASSES, THERE, Reading, reading
from rainhill.errors import DataError

__all__ = [
    "Contradiction", "Evidence", "House", "Kind", "Likelihood", "Limit", "Mark", "Quality", "Ratios", "Sentence", "Swap", "Witness",
    "check", "contradictions", "likelihood_of", "log_likelihoods", "ratios_of", "swapped",
]  # fmt: skip

Mark = Literal["supported", "unsupported", "contradicted", "unchecked"]
"""The last of a sentence that says nothing that can be checked."""
WORDS: Mapping[Kind, str] = {"side": "on the other side", "absent": "absent", "present": "there"}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of the film besides the report. Any of it may be missing."""

    scores: Mapping[str, float] = field(default_factory=dict)
    """Finding -> probability that a classifier gives it."""
    sides: Mapping[tuple[str, Side], float] = field(default_factory=dict)
    """The same on the left and on the right, of a classifier that can tell."""
    low: float = 0.1
    high: float = 0.9
    """A probability below the one speaks against a finding, above the other for it; between them it says nothing."""
    draft: Reading | None = None
    """Of what the site's own model has drafted."""
    witness: Witness | None = None

    def __post_init__(self) -> None:
        sided = {" ".join((side, finding)): value for (finding, side), value in self.sides.items()}
        for name, value in {**self.scores, **sided, "low": self.low, "high": self.high}.items():
            if not (isfinite(value) and 0 <= value <= 1):
                raise DataError(f"{name}: {value}, expected a probability from 0 to 1")
        if self.low > self.high:
            raise DataError(f"low = {self.low} and high = {self.high}: expected low to be at most high")


@dataclass(frozen=True, kw_only=True)
class Sentence:
    text: str
    mark: Mark
    words: tuple[str, ...]
    """That the mark rests on."""
    reasons: tuple[str, ...]
    ratios: Ratios = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Quality:
    sentences: tuple[Sentence, ...]

    @property
    def flagged(self) -> bool:
        """Whether any sentence is contradicted."""
        return any(one.mark == "contradicted" for one in self.sentences)

    def marked(self, mark: Mark) -> tuple[Sentence, ...]:
        return tuple(one for one in self.sentences if one.mark == mark)


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    finding: str
    said: Literal["there", "absent"]
    score: float

    def __str__(self) -> str:
        return f"{_plain(self.finding)} is said to be {self.said}, and a classifier gives it {self.score:.2f}"


def contradictions(
    draft: Reading, scores: Mapping[str, float], *, low: float = Evidence.low, high: float = Evidence.high
) -> tuple[Contradiction, ...]:
    """Between a draft and a classifier's probabilities, in the order of `CLASSES`; what is unmentioned or uncertain contradicts nothing."""
    Evidence(scores=scores, low=low, high=high)
    found = []
    for finding in CLASSES:
        score, label = scores.get(finding), draft.labels[finding]
        if score is not None and label == "positive" and score < low:
            found.append(Contradiction(finding=finding, said="there", score=score))
        elif score is not None and label == "negative" and score > high:
            found.append(Contradiction(finding=finding, said="absent", score=score))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class _Vote:
    supports: bool
    words: str
    reason: str


def check(report: str, *, evidence: Evidence, labeler: Labeler) -> Quality:
    """Every sentence of the report with its mark. A sentence is contradicted where any evidence is against it."""
    itself, body, found = reading(labeler, report).contradicted, None, []
    for begun, text in _begun(report):
        claims = _claims(text, labeler)
        votes = [vote for claim in claims for vote in _votes(claim, evidence, itself)]
        if CONCLUDES.match(text):
            body = reading(labeler, begun)
        if body is not None:
            votes += [vote for claim in claims for vote in _of_conclusion(claim, body)]
        ratios = _ratios(begun, text, evidence.witness, labeler) if claims else {}
        if evidence.witness is not None and evidence.witness.limit is not None:
            votes += list(_of_ratios(ratios, evidence.witness.limit, text))
        found.append(_sentence(text, bool(claims), votes, ratios))
    return Quality(sentences=tuple(found))


def ratios_of(report: str, witness: Witness, labeler: Labeler) -> tuple[Ratios, ...]:
    """Sentence by sentence, for `Limit.calibrated` on reports that are true."""
    return tuple(_ratios(begun, text, witness, labeler) for begun, text in _begun(report))


def _begun(report: str) -> Iterator[tuple[str, str]]:
    """Each sentence, and what the report says before it."""
    begun = ""
    for one in sentences_of(report):
        begun += one.before
        yield begun, one.text + one.end
        begun += one.text + one.end


def _claims(text: str, labeler: Labeler) -> list[Mention]:
    return [one for one in labeler.mentions(text) if one.finding in CLASSES and one.state != "uncertain"]


def _ratios(begun: str, text: str, witness: Witness | None, labeler: Labeler) -> Ratios:
    if witness is None:
        return {}
    found = witness.ratios(begun, text, labeler)
    before = {one.finding for one in _claims(begun, labeler)}
    if any(one.finding in before for one in _claims(text, labeler)):
        # After "left effusion" a model expects an effusion in the impression, whatever it sees.
        return {kind: value for kind, value in found.items() if kind == "side"}
    return found


def _sentence(text: str, claims: bool, votes: Sequence[_Vote], ratios: Ratios) -> Sentence:
    against = [vote for vote in votes if not vote.supports]
    mark: Mark = "contradicted" if against else "supported" if votes else "unsupported" if claims else "unchecked"
    told = against or votes
    words, reasons = (tuple(dict.fromkeys(each)) for each in ((vote.words for vote in told), (vote.reason for vote in told)))
    nothing = {"unsupported": ("no evidence speaks of it",), "unchecked": ("says nothing that can be checked",)}
    return Sentence(text=text, mark=mark, words=words, reasons=reasons or nothing[mark], ratios=ratios)


def _votes(claim: Mention, evidence: Evidence, itself: Sequence[str]) -> Iterator[_Vote]:
    there, finding, name = claim.state == "positive", claim.finding, _plain(claim.finding)
    score = evidence.scores.get(finding)
    if score is not None and not evidence.low <= score <= evidence.high:
        yield _Vote(supports=(score > evidence.high) == there, words=claim.words, reason=f"a classifier gives {name} {score:.2f}")
    if finding in itself:
        yield _Vote(supports=False, words=claim.words, reason=f"the report has {name} both there and absent")
    if there and claim.side in ("left", "right"):
        yield from _of_sides(claim, evidence)
    if evidence.draft is not None:
        yield from _of_draft(claim, evidence.draft)


def _of_sides(claim: Mention, evidence: Evidence) -> Iterator[_Vote]:
    other: Side = "left" if claim.side == "right" else "right"
    own, against = evidence.sides.get((claim.finding, claim.side)), evidence.sides.get((claim.finding, other))
    if own is None or against is None:
        return
    reason = f"a classifier gives {_plain(claim.finding)} {own:.2f} on the {claim.side} and {against:.2f} on the {other}"
    if own > evidence.high or (own < evidence.low and against > evidence.high):
        yield _Vote(supports=own > evidence.high, words=claim.words, reason=reason)


def _of_draft(claim: Mention, draft: Reading) -> Iterator[_Vote]:
    label, there, name = draft.labels[claim.finding], claim.state == "positive", _plain(claim.finding)
    if label in ("positive", "negative"):
        same = (label == "positive") == there
        yield _Vote(supports=same, words=claim.words, reason=f"the model's own draft has {name} {'there' if label in THERE else 'absent'}")
        sides = draft.sides.get(claim.finding, frozenset())
        if same and there and claim.side in ("left", "right") and sides and claim.side not in sides:
            yield _Vote(supports=False, words=claim.words, reason=f"the model's own draft has {name} on the {', '.join(sorted(sides))}")


def _of_conclusion(claim: Mention, body: Reading) -> Iterator[_Vote]:
    sides = body.sides.get(claim.finding, frozenset())
    if claim.state == "positive" and claim.side in ("left", "right") and sides and claim.side not in sides:
        reason = f"the report has {_plain(claim.finding)} on the {', '.join(sorted(sides))} before it concludes"
        yield _Vote(supports=False, words=claim.words, reason=reason)


def _of_ratios(ratios: Ratios, limit: Limit, text: str) -> Iterator[_Vote]:
    for kind, value in ratios.items():
        # Between the limit and 0 it says nothing.
        if value < limit.at or value > 0:
            reason = f"to the model that sees the film it is e^{value:.1f} times as likely as that it is {WORDS[kind]}"
            yield _Vote(supports=value >= limit.at, words=text, reason=reason)


def _plain(finding: str) -> str:
    return finding.replace("_", " ")
