"""Whether a released adapter gives away who was in training: the likelihood ratio attack. Carlini et al. 2022, arXiv:2112.03570.

Each patient's loss is held against those of shadow adapters that were trained with it and without it; each adapter takes its turn as the
one attacked, the others being its shadows.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from client.privacy import accountant
from client.privacy.accountant import Phase
from client.privacy.audit.finding import Finding, Trial
from client.privacy.audit.lira import Attack, attack, balanced_accuracy, likelihood_ratios
from client.privacy.audit.watch import mechanism
from client.privacy.audit.worlds import World, patients, renumbered, without
from client.privacy.randomness import simulated_key
from client.training.features import logits
from client.training.fit import fit
from client.training.mechanism import Mechanism
from rainhill.adapter import Array
from rainhill.recipe import FitSection

EPSILON, DELTA = 1.0, 1e-5
FALSE_POSITIVE_RATES = 0.001, 0.01
COUNT = 64
SAMPLE_RATE, STEPS = 0.25, 60


def membership(trial: Trial) -> Finding:
    shadows = 12 if trial.quick else 48
    sigma = accountant.noise_multiplier(EPSILON, DELTA, SAMPLE_RATE, STEPS)
    claimed = accountant.epsilon({Phase(noise_multiplier=sigma, sample_rate=SAMPLE_RATE): STEPS}, DELTA)
    members = _members(trial.seed, shadows)
    attacks, accuracy = _attacked(_private(trial, members, sigma), members, claimed)
    open_attacks, open_accuracy = _attacked(_without_privacy(trial.seed, shadows), members, claimed)
    worst = max(attacks, key=lambda one: one.at_least / one.cap)
    passed = worst.at_least <= worst.cap
    rates = " and ".join(f"{rate:.1%}" for rate in FALSE_POSITIVE_RATES)
    found = (
        f"attacks on {shadows} adapters at epsilon {claimed:.2f} find {_told(attacks)} of members at {rates} false alarms (balanced "
        f"accuracy {accuracy:.0%}), where epsilon allows {_caps(attacks)}; without privacy {_told(open_attacks)} ({open_accuracy:.0%})"
    )
    return Finding(
        layer="membership",
        passed=passed,
        verdict=found if passed else f"{found}: more than is allowed",
        value=worst.at_least,
        bound=worst.cap,
    )


def _told(attacks: Sequence[Attack]) -> str:
    return " and ".join(f"{one.true_positives:.1%}" for one in attacks)


def _caps(attacks: Sequence[Attack]) -> str:
    return " and ".join(f"{one.cap:.1%}" for one in attacks)


def _attacked(confidences: Array, members: NDArray[np.bool_], epsilon: float) -> tuple[list[Attack], float]:
    """At each false positive rate; and the balanced accuracy."""
    # The last patient is a member always, and is not attacked.
    ratios, inside = likelihood_ratios(confidences, members)[:, :-1], members[:, :-1]
    return [attack(ratios, inside, rate, epsilon, DELTA) for rate in FALSE_POSITIVE_RATES], balanced_accuracy(ratios, inside)


def _members(seed: int, shadows: int) -> NDArray[np.bool_]:
    """(S, P) by a coin, but the last patient, which keeps its number so that patients are counted right."""
    members = np.random.default_rng([seed, 5]).random((shadows, COUNT)) < 0.5
    members[:, -1] = True
    return members


def _world(seed: int) -> World:
    return patients(count=COUNT, images=1, seed=seed, width=32, rank=8)


def _private(trial: Trial, members: NDArray[np.bool_], sigma: float) -> Array:
    world, rows = _world(trial.seed), []
    for number, own in enumerate(members):
        key = simulated_key((trial.seed, 6, number))
        granted = mechanism(key=key, drawable=own, noise_multiplier=sigma, sample_rate=SAMPLE_RATE)
        rows.append(_confidences(world, number, own, trial.plant(granted)))
    return np.stack(rows)


@lru_cache(maxsize=1)
def _without_privacy(seed: int, shadows: int) -> Array:
    """For scale; no fault changes it."""
    world = _world(seed)
    return np.stack([_confidences(world, number, own, None) for number, own in enumerate(_members(seed, shadows))])


def _confidences(world: World, number: int, members: NDArray[np.bool_], granted: Mechanism | None) -> Array:
    """(P,) log odds of each patient's own labels under an adapter that was trained on `members`."""
    world.restart()
    features = without(world.features, ~members)
    section = FitSection(steps=STEPS, learning_rate=3e-2, patients_per_step=int(SAMPLE_RATE * COUNT / 2))
    fit(
        world.net,
        features if granted else renumbered(features),
        world.task,
        section,
        parameters=world.parameters(head=True),
        seed=(number,),
        mechanism=granted,
    )
    values = torch.from_numpy(logits(world.net, world.features.hidden))
    losses = world.task.loss(values, world.features.targets).numpy().astype(np.float64)
    # log(p / (1 - p)) with p = exp(-loss).
    return np.asarray(-losses - np.log(-np.expm1(-np.maximum(losses, 1e-12))))
