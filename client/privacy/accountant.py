"""What a history of Poisson-subsampled Gaussian steps has spent, and the noise that a budget needs.

The claim is the upper bound of numerical composition (PRV; Gopi et al. 2021, arXiv:2106.02848) by Opacus, and is held against Rényi
differential privacy (Mironov et al. 2019, arXiv:1908.10530) by Google's dp_accounting. Neighbouring data sets differ by one patient.
"""

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rainhill.errors import AccountingError, ConfigError

UNIT: Literal["patient"] = "patient"
NEIGHBOURS: Literal["add or remove one patient"] = "add or remove one patient"
LARGEST_EPSILON = 100.0
"""Above it the mesh of the numerical composition outgrows memory: RDP's looser bound is the claim there, and no budget is solved."""
SMALLEST_DELTA = 1e-12
"""Below it the rounding of float64 is no longer small beside delta."""
NOISE_MULTIPLIERS = (0.05, 10_000.0)
"""Between them noise is solved for; none above is accounted for."""
_SMALLEST_ERROR = 0.002
"""Of the numerical composition, in parts of RDP's bound. Its upper bound lies two errors above the truth at most, and so does the claim."""
_POINTS = 2**20, 2**23
"""Of the mesh, for one phase and for all. Many phases of many steps are worked out more coarsely, which claims more and never less."""
_LOWEST_SHARE, _TELLING = 0.4, 0.05
_TOLERANCE = 5e-4


@dataclass(frozen=True, kw_only=True, order=True)
class Phase:
    """Steps of one kind: every patient is drawn by itself, and Gaussian noise is added to the sum of what those drawn gave."""

    noise_multiplier: float
    """The paper's sigma."""
    sample_rate: float
    """The paper's q."""

    def __post_init__(self) -> None:
        if not 0 < self.noise_multiplier <= NOISE_MULTIPLIERS[1]:
            raise AccountingError(f"noise multiplier {self.noise_multiplier} is not above 0 and at most {NOISE_MULTIPLIERS[1]:g}")
        if not 0 < self.sample_rate <= 1:
            raise AccountingError(f"sample rate {self.sample_rate} is not above 0 and at most 1")


History = Mapping[Phase, int]
"""How many steps of each phase one patient took part in."""
_Key = tuple[tuple[Phase, int], ...]


def combined(histories: Iterable[History]) -> History:
    """One history after another; neither order nor parts matter."""
    total: dict[Phase, int] = {}
    for history in histories:
        for phase, steps in history.items():
            total[phase] = total.get(phase, 0) + steps
    return total


def epsilon(history: History, delta: float) -> float:
    """What a patient with this history has spent, as an upper bound; 0.0 where nothing was.

    Raises AccountingError where the two accountants contradict each other.
    """
    return _bounds(_key(history), delta)[0]


def cross_check(history: History, delta: float) -> float:
    """The bound by RDP, which `epsilon` was held against: another theory, by another library."""
    return _bounds(_key(history), delta)[1]


@lru_cache(maxsize=4096)
def noise_multiplier(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """The smallest noise, to 0.1 %, with which so many steps spend no more than `epsilon`. Raises ConfigError where there is none."""
    from scipy.optimize import brentq

    asked = f"epsilon {epsilon:g} at delta {delta:g} over {steps} steps of sample rate {sample_rate:g}"
    if not 0 < epsilon <= LARGEST_EPSILON:
        raise ConfigError(f"{asked}: epsilon is not above 0 and at most {LARGEST_EPSILON:g}")

    def excess(logarithm: float) -> float:
        phase = Phase(noise_multiplier=min(math.exp(logarithm), NOISE_MULTIPLIERS[1]), sample_rate=sample_rate)
        return math.log(max(_bounds(((phase, steps),), delta)[0], 1e-9) / epsilon)

    found = float(brentq(excess, *_bracket(excess, asked), xtol=_TOLERANCE / 4))
    while excess(found) > 0:
        found += _TOLERANCE / 4
    return math.exp(found)


def _bracket(excess: Callable[[float], float], asked: str) -> tuple[float, float]:
    """Logarithms of a noise multiplier that is too small, and of one that is enough."""
    least, most = NOISE_MULTIPLIERS
    low, high = math.log(0.5), 0.0
    while excess(high) > 0:
        if high >= math.log(most):
            raise ConfigError(f"{asked}: needs a noise multiplier above {most:g}")
        low, high = high, min(high + math.log(4), math.log(most))
    while excess(low) <= 0:
        low, high = low - math.log(2), low
        if low < math.log(least):
            raise ConfigError(f"{asked}: a noise multiplier of {math.exp(high):.2g} is enough, and none below {least:g} is solved for")
    return low, high


def _key(history: History) -> _Key:
    return tuple(sorted((phase, steps) for phase, steps in history.items() if steps))


@lru_cache(maxsize=4096)
def _bounds(history: _Key, delta: float) -> tuple[float, float]:
    """The claim and RDP's bound."""
    if not SMALLEST_DELTA <= delta < 1:
        raise AccountingError(f"delta {delta:g} is not at least {SMALLEST_DELTA:g} and below 1")
    if any(steps < 0 for _, steps in history):
        raise AccountingError(f"{min(steps for _, steps in history)} steps is not a number of steps")
    if not history:
        return 0.0, 0.0
    bound = _by_rdp(history, delta)
    if bound > LARGEST_EPSILON:
        return bound, bound
    error = _error(history, delta, bound)
    claim = _by_composition(history, delta, error)
    _refuse_contradiction(history, delta, claim, bound, error)
    return claim, bound


def _error(history: _Key, delta: float, bound: float) -> float:
    """Grows with every step and phase added, so that the claim does too."""
    steps = sum(steps for _, steps in history)
    # Opacus chooses its mesh by Gopi et al. 2021, theorem 5.5, with a delta_error of delta / 1000 and a domain of RDP's bound and 3 more.
    mesh_per_error = 1 / math.sqrt(steps * math.log(12_000 / delta) / 2)
    points = min(_POINTS[0], _POINTS[1] // len(history))
    return min(max(_SMALLEST_ERROR * bound, 2 * (bound + 3) / mesh_per_error / points), 0.5)


def _by_composition(history: _Key, delta: float, error: float) -> float:
    import numpy as np
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(phase.noise_multiplier, phase.sample_rate, steps) for phase, steps in history]
    # With a sample rate of 1 Opacus takes the logarithm of 0 for a threshold, and means minus infinity by it.
    with _quiet(), np.errstate(divide="ignore"):
        return max(float(accountant.get_epsilon(delta, eps_error=error)), 0.0)


def _by_rdp(history: _Key, delta: float) -> float:
    from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE)
    with _quiet():
        for phase, steps in history:
            accountant.compose(PoissonSampledDpEvent(phase.sample_rate, GaussianDpEvent(phase.noise_multiplier)), steps)
        return float(accountant.get_epsilon(delta))


def _refuse_contradiction(history: _Key, delta: float, claim: float, bound: float, error: float) -> None:
    # RDP is above the truth, and the claim at most two errors above it. Nor is the claim far below RDP's bound: never under 0.57 of it in
    # 1,400 phases of noise 0.1 to 100, but where a patient is hardly ever drawn, or next to nothing is spent, RDP knows little.
    drawn = tuple((phase, steps) for phase, steps in history if phase.sample_rate * steps >= 1)
    least = bound if drawn == history else _by_rdp(drawn, delta) if drawn else 0.0
    lowest = _LOWEST_SHARE * least if least > _TELLING else 0.0
    if not lowest <= claim <= bound + 2 * error:
        raise AccountingError(
            f"accountants contradict each other over {len(history)} phases: epsilon {claim:g} by numerical composition, {bound:g} by RDP"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Both libraries leave out orders of RDP that do not converge, or end at the largest: looser, as valid, and nothing to act on."""
    absl = logging.getLogger("absl")
    before, absl.disabled = absl.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Optimal order is the (largest|smallest) alpha", category=UserWarning)
            yield
    finally:
        absl.disabled = before
