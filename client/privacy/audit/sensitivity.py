"""How far one patient moves what is released, over whole rounds in the shipped order: the shared part first, the private part after.

With everything else fixed, the mask and the noise among it, each of several patients is taken out in turn with all its images.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from client.privacy.audit.finding import Finding, Trial
from client.privacy.audit.watch import MAX_GRAD_NORM, Release, Watched, mechanism, watched
from client.privacy.audit.worlds import World, patients, renumbered, without
from client.privacy.randomness import simulated_key
from client.training import lora
from client.training.features import Features
from client.training.fit import fit
from rainhill.adapter import Array
from rainhill.recipe import FitSection

ROUNDING = 1e-5
"""Of C, by float32."""
COUNT, IMAGES = 24, 4
ROUNDS, SAMPLE_RATE = 2, 0.5


def sensitivity(trial: Trial) -> Finding:
    """What the noise is made for: a patient that is drawn moves the sum by no more than C."""
    moved, _ = _moved(trial)
    value = float(moved.max())
    passed = value <= 1 + ROUNDING
    found = (
        f"each of {len(moved)} patients of {IMAGES} images was taken out in turn, and moved the sum that one of {moved.shape[1]} steps "
        f"releases by at most {value:.7f} C"
    )
    return Finding(
        layer="sensitivity",
        passed=passed,
        verdict=found if passed else f"{found}: noise made for C does not cover one patient",
        value=value,
        bound=1 + ROUNDING,
    )


def order(trial: Trial) -> Finding:
    """What subsampling is accounted for: a patient that is not drawn moves nothing, also not by way of a part that is never sent."""
    moved, drawn = _moved(trial)
    value = float(moved[~drawn].max(initial=0.0))
    passed = value <= ROUNDING
    found = f"in the {(~drawn).sum()} steps that did not draw the patient taken out, the released sum moved by at most {value:.2g} C"
    return Finding(
        layer="order",
        passed=passed,
        verdict=found
        if passed
        else f"{found}: patients reach it past clipping and noise, as by a private part trained along with the shared",
        value=value,
        bound=ROUNDING,
    )


@lru_cache(maxsize=1)
def _moved(trial: Trial) -> tuple[Array, Array]:
    """(patients taken out, steps) how far the sum moved, in units of C, and whether the patient was drawn; for two layers."""
    world = patients(count=COUNT, images=IMAGES, seed=trial.seed)
    taken_out = range(8 if trial.quick else 20)
    whole = _train(world, trial, None)
    releases = [release for round_seen in whole for release in round_seen.releases]
    drawn = np.array([mask for round_seen in whole for mask in round_seen.masks])
    moved = []
    for patient in taken_out:
        others = [release for round_seen in _train(world, trial, patient, whole) for release in round_seen.releases]
        moved.append([_distance(one, other) for one, other in zip(releases, others, strict=True)])
    return np.array(moved), drawn.T[: len(taken_out)]


def _train(world: World, trial: Trial, gone: int | None, replay: Sequence[Watched] = ()) -> list[Watched]:
    """Each round as it was seen; the private part that is fitted after it leaves with nobody."""
    stay = np.arange(COUNT) != gone
    features = without(world.features, ~stay)
    section = FitSection(steps=5 if trial.quick else 10, learning_rate=1e-2)
    shared, rounds = world.start, []
    for number in range(ROUNDS):
        lora.write_adapter(world.net, shared, name=lora.SHARED)
        granted = mechanism(key=simulated_key((trial.seed, number)), drawable=stay, noise_multiplier=1.0, sample_rate=SAMPLE_RATE)
        seen = watched(trial.plant(granted), replay[number].releases if replay else ())
        fit(world.net, features, world.task, section, parameters=world.parameters(), seed=(0,), mechanism=seen)
        rounds.append(seen)
        shared = lora.read_adapter(world.net, name=lora.SHARED, with_head=False)
        _personalise(world, features)
    return rounds


def _personalise(world: World, features: Features) -> None:
    parameters = {name: parameter for name, parameter in world.parameters(head=True).items() if name.startswith(lora.HEAD)}
    fit(world.net, renumbered(features), world.task, FitSection(steps=3, learning_rate=0.1), parameters=parameters, seed=(0,))


def _distance(one: Release, other: Release) -> float:
    """In units of C, over all tensors together."""
    return float(np.sqrt(sum(float(((one[name] - other[name]) ** 2).sum()) for name in one))) / MAX_GRAD_NORM
