"""The one door: nothing of a run leaves a site but through here.

An update is held against the plan that it answers: names, shapes, dtype, finite values, length, size, and the numbers beside it. What
leaves is written into the site's journal first. Where the policy says so, it waits for a person to release it.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

import strategies
from client.chain import Event
from client.home import SiteHome
from client.journal import Approved, Held, Journal, Left, OutcomeTold, Released, Said, Withheld, standing_hold
from client.secure import Masker, hidden
from rainhill import wire
from rainhill.adapter import Adapter
from rainhill.config import PrivacyConfig
from rainhill.errors import ProtocolError, RefusedError
from rainhill.files import write_whole
from rainhill.messages import Plan, Refusal, SecureMessage, Update, Waiting
from rainhill.offer import Offer
from rainhill.recipe import Recipe
from rainhill.text import one_line
from rainhill.told import Told

log = logging.getLogger(__name__)

RETRY_S = 15.0
"""After which a coordinator may ask again for an update that is held."""
OVERHEAD = 1.2
"""The most bytes that an update may cross in, as a multiple of its tensors' own."""
FRAME = 64 * 1024
"""Bytes that it may have beside them: names, and what is said of them."""
LONGEST = 1000
"""Characters that are kept of what a site said."""
METRICS = frozenset({"loss", "auroc", "label_f1"})
"""What an evaluation may hold."""


@dataclass(frozen=True, kw_only=True)
class Door:
    home: SiteHome
    journal: Journal

    def kept(self, plan: Plan) -> Update | None:
        """The update of this very plan that waits to be released, or was released since."""
        path = self._held(plan)
        if not path.exists():
            return None
        update = wire.answer_from_bytes(path.read_bytes())
        assert isinstance(update, Update)
        return update

    def let_out(self, plan: Plan, offer: Offer, approved: Approved, update: Update) -> Update | Waiting | Refusal:
        """What may leave in answer to a plan. Raises ProtocolError or RefusedError where the update is not what was approved."""
        blob = _bytes(update)
        length = self._checked(plan, offer, update, size=len(blob))
        sha256 = hashlib.sha256(blob).hexdigest()
        held = standing_hold(self.journal.events(), plan.run, plan.round, sha256)
        # Whatever the site's file says of holding by now.
        if isinstance(held, Withheld):
            return self.refused(Refusal(run=plan.run, round=plan.round, site=plan.site, reason="its update was withheld by the site"))
        if self.home.config.policy.hold and not isinstance(held, Released):
            return self._hold(plan, blob, sha256, known=held is not None)
        self.journal.append(
            Left(
                run=plan.run,
                round=plan.round,
                recipe=plan.recipe,
                plan=digest(plan),
                to=offer.consortium,
                approved_by=approved.by,
                update=sha256,
                size=len(blob),
                tensors={name: array.shape for name, array in update.delta.items()},
                norm=length,
                numbers=_numbers(update),
                epsilon=update.epsilon,
            )
        )
        return update

    def let_out_masked(self, masker: Masker, message: SecureMessage, blob: bytes) -> None:
        """An update that its masks hide is written down as what it is. RefusedError where it did not leave, or is held."""
        first = left(self.journal.events(), message.run, message.round)
        update = hidden(masker, message.run, message.round)
        self.journal.append(
            first.model_copy(
                update={
                    "update": hashlib.sha256(blob).hexdigest(),
                    "size": len(blob),
                    "tensors": {name: array.shape for name, array in update.delta.items()},
                    "norm": norm(update.delta),
                }
            )
        )

    def let_out_outcome(self, offer: Offer, outcome: Mapping[str, Any]) -> Told | None:
        """What a run came to here, as `client.outcome` has described it; None where the site's file does not let it be told."""
        config = self.home.config
        if not config.policy.tell_outcome:
            return None
        if outcome["patients"] < config.least_patients:
            log.info("run %s: what it came to is not told: %d patients, at least %d", offer.run, outcome["patients"], config.least_patients)
            return None
        told = Told.of(outcome)
        self.journal.append(OutcomeTold(run=offer.run, recipe=offer.recipe.sha256, to=offer.consortium, outcome=told))
        return told

    def refused(self, refusal: Refusal) -> Refusal:
        """What a site says in place of an update leaves too."""
        # The run's name and the reason may be as the coordinator wrote them.
        self.journal.append(Said(run=one_line(refusal.run, LONGEST), round=refusal.round, reason=one_line(refusal.reason, LONGEST)))
        log.info("round %d of run %s: %s", refusal.round, refusal.run, refusal.reason)
        return refusal

    def forget(self, run: str, before: int) -> None:
        """Held updates of rounds that are over."""
        for path in self.home.held.glob(f"{run}.round-*.safetensors"):
            if int(path.name.split(".round-")[1].partition(".")[0]) < before:
                path.unlink(missing_ok=True)

    def _checked(self, plan: Plan, offer: Offer, update: Update, *, size: int) -> float:
        """The update's l2 norm."""
        recipe = offer.recipe
        if plan.recipe != recipe.sha256:
            raise RefusedError(f"plan is for recipe {plan.recipe[:12]}, approved was {recipe.sha256[:12]}")
        strategy = strategies.from_recipe(recipe)
        expected = {} if recipe.secure_aggregation else strategy.uplink(plan.adapter, plan.rule)
        wire.check_answer(update, plan, expected)
        room = OVERHEAD * sum(4 * int(np.prod(shape)) for shape in expected.values()) * (2 if update.variate else 1) + FRAME
        if size > room:
            raise ProtocolError(f"the update has {size} bytes, its tensors allow {room:.0f}")
        _check_told(update, recipe, self.home.config.privacy)
        length, limit = norm(update.delta), self.home.config.policy.max_update_norm
        if limit is not None and length > limit:
            raise RefusedError(f"the update has l2 norm {length:.4g}, the site lets out at most {limit:g}")
        return length

    def _hold(self, plan: Plan, blob: bytes, sha256: str, *, known: bool) -> Waiting:
        self.home.held.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._held(plan).exists():
            write_whole(self._held(plan), blob, private=True)
        if not known:
            self.journal.append(Held(run=plan.run, round=plan.round, update=sha256))
        reason = "its update waits for somebody at the site to release it"
        return Waiting(run=plan.run, round=plan.round, site=plan.site, reason=reason, retry_s=RETRY_S)

    def _held(self, plan: Plan) -> Path:
        # By the plan: another one of the same round, after the coordinator lost its own, is another update.
        return self.home.held / f"{plan.run}.round-{plan.round:06d}.{digest(plan)[:16]}.safetensors"


def left(events: Iterable[Event], run: str, number: int) -> Left:
    """The newest update of that round that was let out. RefusedError where none was."""
    found = [event for event in events if isinstance(event, Left) and (event.run, event.round) == (run, number)]
    if not found:
        raise RefusedError(f"run {run}, round {number}: no update was let out")
    return found[-1]


def digest(plan: Plan) -> str:
    """sha256 of its wire form."""
    return hashlib.sha256(wire.plan_to_bytes(plan)).hexdigest()


def _bytes(update: Update) -> bytes:
    """Its wire form. ProtocolError where it has none, such as for a loss that is not finite."""
    try:
        return wire.answer_to_bytes(update)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ProtocolError(f"the update: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def _check_told(update: Update, recipe: Recipe, privacy: PrivacyConfig | None) -> None:
    """The numbers beside the tensors, by name, and under privacy those alone that the site's file lets out."""
    evaluation = update.evaluation
    unknown = set(evaluation.metrics) - METRICS if evaluation else set()
    if unknown:
        raise ProtocolError(f"the update tells {', '.join(sorted(unknown))}; {', '.join(sorted(METRICS))} may leave")
    for what, got, expected in (
        ("encoding", update.encoding, recipe.compression.encoding),
        ("steps", update.steps, recipe.rounds.steps),
        ("epsilon", update.epsilon, recipe.privacy.epsilon if recipe.privacy else None),
    ):
        if got != expected:
            raise ProtocolError(f"the update's {what} is {got}, the recipe's {expected}")
    if privacy is None or privacy.release == "suppressed":
        return
    if update.patients != privacy.declared_patients:
        raise RefusedError(f"the update tells {update.patients} patients, the site's file {privacy.declared_patients}")
    told = {"loss"} if update.loss is not None else set()
    told |= {f"evaluation.{name}" for name in evaluation.metrics} if evaluation else set()
    beyond = told - ({"evaluation.loss"} if privacy.release == "noised" else set())
    if beyond or (evaluation is not None and evaluation.patients is not None):
        raise RefusedError(f"the update tells {', '.join(sorted(beyond)) or 'patients'}, and [privacy] release is {privacy.release!r}")


@dataclass(frozen=True, kw_only=True)
class HeldUpdate:
    run: str
    round: int
    update: str
    """sha256."""
    size: int
    """In bytes."""
    tensors: Mapping[str, tuple[int, ...]]
    norm: float
    numbers: Mapping[str, float]


def held_updates(home: SiteHome, journal: Journal) -> list[HeldUpdate]:
    """Those that nobody has decided on."""
    found, events = [], journal.events()
    for path in sorted(home.held.glob("*.safetensors")):
        blob = path.read_bytes()
        update = wire.answer_from_bytes(blob)
        assert isinstance(update, Update)
        sha256 = hashlib.sha256(blob).hexdigest()
        if isinstance(standing_hold(events, update.run, update.round, sha256), Held):
            shapes = {name: array.shape for name, array in update.delta.items()}
            found.append(
                HeldUpdate(
                    run=update.run,
                    round=update.round,
                    update=sha256,
                    size=len(blob),
                    tensors=shapes,
                    norm=norm(update.delta),
                    numbers=_numbers(update),
                )
            )
    return found


def decide_held(home: SiteHome, journal: Journal, run: str, number: int, *, by: str, update: str = "", withheld: str | None = None) -> str:
    """Releases the held update of that round, or withholds it for the reason given; its sha256.

    `update` is the beginning of that. RefusedError where none is held, or several are: a coordinator that lost its own asks for another
    update of the same round, and a person releases the one that they looked at.
    """
    held = held_updates(home, journal)
    found = [one for one in held if (one.run, one.round) == (run, number) and one.update.startswith(update)]
    if not found:
        others = ", ".join(f"{one.run} round {one.round} ({one.update[:12]})" for one in held)
        named = f" {update}" if update else ""
        raise RefusedError(f"run {run}, round {number}: no update{named} is held; held are: {others or 'none'}")
    if len({one.update for one in found}) > 1:
        several = ", ".join(one.update[:12] for one in found)
        raise RefusedError(f"run {run}, round {number}: {len(found)} updates are held: {several}; say which, with --update")
    sha256 = found[0].update
    if withheld is None:
        journal.append(Released(run=run, round=number, update=sha256, by=by))
    else:
        journal.append(Withheld(run=run, round=number, update=sha256, by=by, reason=withheld))
    return sha256


def norm(adapter: Adapter) -> float:
    """l2, over all tensors together."""
    return float(np.sqrt(sum(float(np.sum(np.square(array, dtype=np.float64))) for array in adapter.values())))


def _numbers(update: Update) -> dict[str, float]:
    """All that is told beside the tensors."""
    told: dict[str, float | None] = {"patients": update.patients, "steps": update.steps, "loss": update.loss, "choice": update.choice}
    if update.evaluation is not None:
        told |= {"evaluation.patients": update.evaluation.patients}
        told |= {f"evaluation.{name}": value for name, value in update.evaluation.metrics.items()}
    return {name: float(value) for name, value in told.items() if value is not None}
