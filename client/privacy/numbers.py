"""What leaves a site beside its update: nothing, what enough patients stand behind, or what was noised; the site's own choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from client.privacy.charging import Granted
from client.privacy.randomness import Stream, derived_key
from rainhill.adapter import Array
from rainhill.config import PrivacyConfig
from rainhill.messages import Evaluation

LARGEST_LOSS = 2.0
"""A patient's mean loss counts as no more than this where losses are noised: the most that one patient moves their sum by."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What a site knows of a round, as it is."""

    train_patients: int
    loss: float | None
    val_losses: Sequence[float]
    """Of each validation patient, the mean over its images."""
    metrics: Mapping[str, float]
    behind: Mapping[str, int]
    """Of each metric, how many validation patients it is of."""


@dataclass(frozen=True, kw_only=True)
class Released:
    """What it tells of that."""

    patients: int | None
    loss: float | None = None
    evaluation: Evaluation | None = None


def release(numbers: Numbers, config: PrivacyConfig, granted: Granted) -> Released:
    declared = config.declared_patients
    if config.release == "suppressed":
        enough, val = config.min_patients, len(numbers.val_losses)
        train = numbers.train_patients if numbers.train_patients >= enough else None
        metrics = {name: value for name, value in numbers.metrics.items() if numbers.behind[name] >= enough}
        return Released(
            patients=declared or train,
            loss=numbers.loss if train else None,
            evaluation=Evaluation(patients=val, metrics=metrics) if val >= enough else None,
        )
    if granted.numbers is None:
        return Released(patients=declared)
    return Released(patients=declared, evaluation=Evaluation(patients=None, metrics={"loss": _noised_mean(numbers.val_losses, granted)}))


def _noised_mean(losses: Sequence[float], granted: Granted) -> float:
    """Mean of the losses cut at `LARGEST_LOSS`, with Gaussian noise on their sum."""
    assert granted.numbers is not None
    able: Array = np.clip(np.nan_to_num(np.asarray(losses), nan=LARGEST_LOSS), 0.0, LARGEST_LOSS)[granted.val_drawable]
    # A stream of its own: the update's draws are not to depend on whether numbers leave too.
    stream = Stream(derived_key(granted.key, "numbers"))
    noise = granted.numbers.noise_multiplier * LARGEST_LOSS * float(stream.normal(1)[0])
    return (float(able.sum()) + noise) / max(1, len(losses))
