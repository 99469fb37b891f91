"""What stands between a plan and a site's patients: the site's limits, its ledger, and what it keeps of a round.

A round's secret key lies on the site's disk until its update is finished, so that a round that was broken off is done again with the same
draws: it comes out the same, and is paid for. A finished update is kept, and given again to whoever asks again.
"""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import rainhill
from client.privacy.events import Charged, Sent
from client.privacy.ledger import KEYS, UPDATES, Ledger
from rainhill import wire
from rainhill.config import PrivacyConfig
from rainhill.errors import RefusedError
from rainhill.files import write_whole
from rainhill.messages import Plan, SiteId, Update
from rainhill.recipe import PrivacySection, Recipe


@dataclass(frozen=True, kw_only=True)
class Guard:
    site: SiteId
    config: PrivacyConfig
    ledger: Ledger
    folder: Path
    """For keys of rounds in work and for finished updates; nobody but the site reads it."""
    cohort: str
    """Fingerprint of the site's data."""
    train: tuple[str, ...]
    """Pseudonym of each training patient, in the order that training numbers them in."""
    val: tuple[str, ...]
    seed: tuple[int, ...] | None = None
    """Of a simulation, whose noise anybody can work out; None where noise is to protect somebody."""


def admit(config: PrivacyConfig, recipe: Recipe) -> PrivacySection:
    """What the recipe asks, which the site allows; RefusedError with both values where it does not."""
    asked = recipe.privacy
    if asked is None:
        raise RefusedError(f"recipe {recipe.name} asks for no privacy, the site trains only under epsilon {config.epsilon:g} or less")
    limit = config.most_in_one_run
    if asked.epsilon > limit:
        of = " of any 365 days (epsilon_per_year)" if limit == config.epsilon_per_year else ""
        raise RefusedError(f"recipe {recipe.name} asks for epsilon {asked.epsilon:g} in one run, the site allows {limit:g}{of}")
    if asked.delta > config.delta:
        raise RefusedError(f"recipe {recipe.name} asks for delta {asked.delta:g}, the site allows {config.delta:g}")
    if recipe.strategy.weights != "equal" and config.declared_patients is None and config.release != "suppressed":
        raise RefusedError(
            f"recipe {recipe.name} weighs updates by patients, and the site's file tells no number: declared_patients in [privacy]"
        )
    return asked


def finished(guard: Guard, plan: Plan) -> Update | None:
    """The update that this very plan was answered with before, which may be given again: it tells nothing new.

    Raises RefusedError where the ledger does not know that it was paid for: then it is not the ledger that it was made under.
    """
    path = _update_path(guard, plan)
    if not path.exists():
        return None
    paid = (event for event in guard.ledger.events() if isinstance(event, Charged) and event.what == "update")
    if not any((event.run, event.round) == (plan.run, plan.round) for event in paid):
        raise RefusedError(
            f"run {plan.run}, round {plan.round}: an update is kept, but {guard.ledger.path.name} holds no charge for it: an older ledger, "
            "or another, was put in its place"
        )
    blob = path.read_bytes()
    answer = wire.answer_from_bytes(blob)
    assert isinstance(answer, Update)
    _leaves(guard, plan, blob)
    return answer


def finish(guard: Guard, plan: Plan, update: Update) -> None:
    """Keeps the update, which may leave from then on."""
    blob = wire.answer_to_bytes(update)
    write_whole(_update_path(guard, plan), blob, private=True)
    _leaves(guard, plan, blob)


def _leaves(guard: Guard, plan: Plan, blob: bytes) -> None:
    """Notes what leaves, each time, and forgets the key: who had both could take the noise off again."""
    guard.ledger.append(Sent(run=plan.run, round=plan.round, update=hashlib.sha256(blob).hexdigest(), size=len(blob)))
    key_path(guard, plan).unlink(missing_ok=True)


def digest(guard: Guard, plan: Plan) -> str:
    """Of the plan, the data and the program: the same key with anything else would give two sums with one noise."""
    software = f"rainhill {rainhill.__version__} torch {version('torch')} {guard.cohort} "
    return hashlib.sha256(software.encode() + wire.plan_to_bytes(plan)).hexdigest()


def key_path(guard: Guard, plan: Plan) -> Path:
    return guard.folder / KEYS / f"{digest(guard, plan)}.key"


def _update_path(guard: Guard, plan: Plan) -> Path:
    """By the plan alone: what was given stays given, whatever has changed since."""
    return guard.folder / UPDATES / f"{hashlib.sha256(wire.plan_to_bytes(plan)).hexdigest()}.safetensors"
