"""What a model that sees the film holds for likelier: what a report says, or the same with its side or its negation swapped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from client.data.clauses import State
from client.data.labeler import Labeler
from client.drafting._house import House
from client.drafting._likelihood import Likelihood
from client.drafting._swaps import Kind, Swap, swapped
from client.reporting.reading import CLASSES
from rainhill.errors import DataError

Ratios = Mapping[Kind, float]
"""Of one sentence: log-likelihood of what it says less that of the same swapped, by what is swapped."""
OPPOSITE: Mapping[State, State] = {"positive": "negative", "negative": "positive"}
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The ratio below which a sentence is held for contradicted; one for all kinds, since all are log-odds."""

    at: float
    """At most 0: what a model holds for likelier than its contrary is not contradicted."""
    most_false: float
    """Share of true reports that may be flagged."""
    of: int
    """True reports that this was seen on."""

    certainty: float
    """That no more of them are, over draws of validation patients."""

    @classmethod
    def calibrated(cls, reports: Sequence[Sequence[Ratios]], *, most_false: float = 0.1, certainty: float = 0.95) -> "Limit":
        """On validation films' own reports, one per patient, sentence by sentence.

        DataError for numbers that are no shares, and for fewer reports than show such a share with that certainty.
        """
        count = len(reports)
        if not (0 < most_false < 1 and 0 < certainty < 1):
            raise DataError(f"most_false = {most_false} and certainty = {certainty}: expected more than 0 and less than 1")
        # A tolerance bound of an order statistic: of the n reports the k least may be flagged. Wilks 1941, doi:10.1214/aoms/1177731788.
        rank = int(np.searchsorted(binom.cdf(np.arange(count), count, most_false), 1 - certainty, side="right")) - 1
        if rank < 0:
            raise DataError(f"{count} reports: too few to flag at most {most_false:.0%} of true ones with {certainty:.0%} certainty")
        least = sorted(min((value for one in each for value in one.values()), default=np.inf) for each in reports)
        return cls(at=min(least[rank], 0.0), most_false=most_false, of=count, certainty=certainty)


@dataclass(frozen=True, kw_only=True, repr=False)
class Witness:
    """A model that drafts, and this film."""

    likelihood: Likelihood
    limit: Limit | None = None
    """What is uncalibrated flags nothing."""
    house: House = field(default_factory=lambda: House(sentences={}))
    language: str = "en"

    def ratios(self, begun: str, sentence: str, labeler: Labeler) -> Ratios:
        """Of a sentence in a report that says `begun` before it; empty where nothing of it can be swapped."""
        claims = [one for one in labeler.mentions(sentence) if one.finding in CLASSES]
        swaps = swapped(sentence, labeler, language=self.language)
        found: dict[Kind, float] = {}
        sided = [swap.text for swap in swaps if swap.kind == "side"]
        if sided:
            values = self.likelihood(begun, [sentence, *sided])
            found["side"] = float(values[0] - values[1:].max())
        states = {one.state for one in claims}
        if len(states) == 1 and (state := states.pop()) in OPPOSITE:
            value = self._of_state(begun, sentence, {one.finding for one in claims}, state, swaps)
            if value is not None:
                found["absent" if state == "positive" else "present"] = value
        return found

    def _of_state(self, begun: str, sentence: str, findings: set[str], state: State, swaps: Sequence[Swap]) -> float | None:
        """Over all ways in which the site says it: a rare way is no sign that it is not so."""
        own, other = (
            dict.fromkeys(text for name in CLASSES if name in findings for text in self.house.sentences.get((name, which), ()))
            for which in (state, OPPOSITE[state])
        )
        ways = list(dict.fromkeys((sentence, *own)))
        contrary = list(other) if own or other else [swap.text for swap in swaps if swap.kind != "side"]
        if not contrary and not own:
            return None
        values = self.likelihood(begun, [*ways, *contrary])
        said = _sum(values[: len(ways)])
        # A site that never says the contrary says nothing of it then.
        return said - (_sum(values[len(ways) :]) if contrary else float(np.log(np.maximum(-np.expm1(min(said, 0.0)), _TINY))))


def _sum(logs: NDArray[np.float64]) -> float:
    return float(np.logaddexp.reduce(logs))
