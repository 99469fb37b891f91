"""What crosses between the coordinator and a site, as frozen data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from rainhill.adapter import Adapter, factor
from rainhill.compression import Encoding
from rainhill.told import Told

SiteId = str
Factor = Literal["A", "B", "R"]

UNTOLD = "an error at the site, written to its own log"
"""All that leaves of an error whose words may tell of patients."""

BOTH: frozenset[Factor] = frozenset({"A", "B"})


@dataclass(frozen=True, kw_only=True)
class LocalRule:
    """How a site trains in one round. A whole tensor (a shared head) is always trained, and sent unless it is kept."""

    train: frozenset[Factor] = BOTH
    send: frozenset[Factor] = BOTH
    keep: tuple[str, ...] = ()
    """Patterns (`*.lora_B`, `head.*`) of tensors that stay at the site: it goes on from its own of the round before, and sends none."""
    alternate: bool = False
    """Train B in even and A in odd local steps, counted from 0, instead of both in each. LA-LoRA, ICLR 2026."""
    kept_first: int = 0
    """So many steps move the kept tensors alone, and the others all but them; no such order where 0."""
    variate: bool = False
    """Send the mean gradient over the steps too, for SCAFFOLD."""
    mu: float = 0.0
    """Weight of FedProx's proximal term mu/2 |w - w_round|^2. Li et al. 2020, arXiv:1812.06127."""
    correction: Adapter | None = None
    """Added to every gradient, name by name; SCAFFOLD's c - c_i. Karimireddy et al. 2020, arXiv:1910.06378."""

    def trains(self, name: str) -> bool:
        return factor(name) in {"", *self.train}

    def keeps(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.keep)

    def sends(self, name: str) -> bool:
        return factor(name) in {"", *self.send} and not self.keeps(name)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one site is asked for in one round."""

    run: str
    recipe: str
    """sha256 of the recipe: the site looks up what it approved under it."""
    round: int
    site: SiteId
    adapter: Adapter
    rule: LocalRule = LocalRule()
    choices: tuple[Adapter, ...] = ()
    """Further adapters: the site trains the one of all that fits its training patients best, and says which."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How an adapter does on a site's own validation patients."""

    patients: int | None
    """None where the site withholds it."""
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Update:
    """What a site gives back: the change of the tensors that its rule sends."""

    run: str
    round: int
    site: SiteId
    delta: Adapter
    patients: int | None
    """Of the training part, or what the site declares in place of it; None where it withholds both."""
    steps: int
    loss: float | None
    """Mean training loss over the last quarter of the steps; None where the site withholds it."""
    epsilon: float | None = None
    """What the site's patients spend in the whole run at most, by the ledger that it keeps; None says that the fit was not private."""
    evaluation: Evaluation | None = None
    """Of the adapter that came with the Plan, before training."""
    variate: Adapter | None = None
    """Mean gradient over the local steps, where the plan asked for it: SCAFFOLD's c_i. Karimireddy et al. 2020, arXiv:1910.06378."""
    encoding: Encoding = "float32"
    """How `delta` crosses; it holds what will arrive."""
    share: float = 1.0
    """Of the entries that `top_k` sends."""
    choice: int = 0
    """Which adapter it began from: 0 for the plan's own, 1 for the first of its further choices, and so on."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A site that was asked and gives no update, and why, in one sentence without identifiers."""

    run: str
    round: int
    site: SiteId
    reason: str


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A site that will answer later: somebody has yet to approve or to release, or it is not its hours. It wants to be asked again."""

    run: str
    round: int
    site: SiteId
    reason: str
    """In one sentence without identifiers, as of a Refusal."""
    retry_s: float
    """Not before so many seconds."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """A site has what a run came to: the adapter of the plan that follows the last round, which asks for no update."""

    run: str
    round: int
    """One more than the run has."""
    site: SiteId
    adapter: str
    """Fingerprint of what it has."""
    told: Told | None = None
    """What the run came to there; None where the site's file does not let it be told, or it could not be measured."""


@dataclass(frozen=True, kw_only=True)
class SecureMessage:
    """One exchange of secure aggregation, with one site."""

    run: str
    round: int
    site: SiteId
    phase: int
    """0 to 4, as `rainhill.secagg` counts them; the answer bears the same."""
    body: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """What happened in one round: who was asked, who answered, who did not and why."""

    round: int
    asked: tuple[SiteId, ...]
    answered: tuple[SiteId, ...]
    refused: Mapping[SiteId, str]
    down_bytes: Mapping[SiteId, int]
    up_bytes: Mapping[SiteId, int]
    losses: Mapping[SiteId, float]
    evaluations: Mapping[SiteId, Mapping[str, float]]
    seconds: float
    log: Mapping[str, float] = field(default_factory=dict)
    """What the strategy has to say of the round, such as the energy that a truncation kept."""
    epsilons: Mapping[SiteId, float] = field(default_factory=dict)
    """Of the sites that answered and train privately: what their patients spend in the whole run at most, as each says itself."""
