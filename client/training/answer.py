"""A Plan in, an Update out: what a site does in one round."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from client.models import Net
from client.privacy import charging
from client.privacy import guard as privacy
from client.privacy.charging import Granted
from client.privacy.guard import Guard
from client.privacy.numbers import Numbers, Released, release
from client.privacy.randomness import Stream
from client.secure import Masker, hide
from client.tasks import Task, Validated
from client.training import lora
from client.training.features import Features, losses_of
from client.training.fit import Fitted, Pull, Stretch, fit, tail_mean
from client.training.mechanism import Mechanism
from client.training.memory import Memory
from rainhill.adapter import Adapter, Array, factor
from rainhill.compression import lossy
from rainhill.errors import DataError, RainhillError, RefusedError
from rainhill.messages import UNTOLD, Evaluation, LocalRule, Plan, Refusal, Update
from rainhill.recipe import Recipe
from strategies import Strategy


@dataclass(frozen=True, kw_only=True)
class LocalData:
    """One site's patients as training sees them."""

    train: Features
    val: Features


log = logging.getLogger(__name__)

_CARRY = "carry/"


def answer(
    plan: Plan,
    *,
    recipe: Recipe,
    strategy: Strategy,
    net: Net,
    task: Task,
    data: LocalData,
    memory: Memory,
    guard: Guard | None = None,
    masker: Masker | None = None,
) -> Update | Refusal:
    """As `answered`; a site that cannot says why."""
    try:
        return answered(plan, recipe=recipe, strategy=strategy, net=net, task=task, data=data, memory=memory, guard=guard, masker=masker)
    except DataError as error:
        if guard is None:
            return Refusal(run=plan.run, round=plan.round, site=plan.site, reason=str(error))
        # It may tell of the patients, and no noise is on it.
        log.warning("%s: round %d: %s", plan.site, plan.round, error)
        return Refusal(run=plan.run, round=plan.round, site=plan.site, reason=UNTOLD)
    except RainhillError as error:
        return Refusal(run=plan.run, round=plan.round, site=plan.site, reason=str(error))


def answered(
    plan: Plan,
    *,
    recipe: Recipe,
    strategy: Strategy,
    net: Net,
    task: Task,
    data: LocalData,
    memory: Memory,
    guard: Guard | None = None,
    masker: Masker | None = None,
) -> Update:
    """Fits the plan's adapter to the site's training patients. Raises a RainhillError, of which only a RefusedError is for who asked.

    With a `guard` the fit is private, was charged to the site's ledger before it began, and is done once for each plan. With a `masker`
    the update stays until it is masked, and its tensors are not in the answer.
    """
    desk = _Desk(recipe=recipe, strategy=strategy, net=net, task=task, data=data, memory=memory, guard=guard)
    _refuse_strangers(plan, desk)
    if recipe.secure_aggregation is not None and masker is None:
        raise RefusedError(f"{plan.site}: recipe {recipe.name} asks for secure aggregation, and the site has no key to sign with")
    update = _update(plan, desk, None) if guard is None else _private_update(plan, desk, guard)
    if recipe.secure_aggregation is None or masker is None:
        return update
    return hide(masker, plan, update)


@dataclass(frozen=True, kw_only=True)
class _Desk:
    """All that a site has at hand for a round."""

    recipe: Recipe
    strategy: Strategy
    net: Net
    task: Task
    data: LocalData
    memory: Memory
    guard: Guard | None


def _private_update(plan: Plan, desk: _Desk, guard: Guard) -> Update:
    """The one that this plan was answered with before, or a new one, paid for before it is made."""
    update = privacy.finished(guard, plan)
    if update is None:
        update = _update(plan, desk, charging.charge(guard, plan, desk.recipe))
        privacy.finish(guard, plan, update)
    return update


def _refuse_strangers(plan: Plan, desk: _Desk) -> None:
    """Raises RefusedError for what the site did not agree to."""
    recipe = desk.recipe
    if plan.recipe != recipe.sha256:
        raise RefusedError(f"{plan.site}: plan is for recipe {plan.recipe[:12]}, the site has {recipe.sha256[:12]}")
    if not 1 <= plan.round <= recipe.rounds.count:
        raise RefusedError(f"{plan.site}: plan is for round {plan.round}, the recipe has {recipe.rounds.count}")
    if desk.guard is not None and plan.choices:
        # Which of several fits the patients best would be told without noise.
        raise RefusedError(f"{plan.site}: is offered {1 + len(plan.choices)} adapters to choose from, under privacy it takes one")
    if recipe.privacy is not None and desk.guard is None:
        raise RefusedError(f"{plan.site}: recipe {recipe.name} asks for epsilon {recipe.privacy.epsilon:g}, and the site keeps no ledger")


def _update(plan: Plan, desk: _Desk, granted: Granted | None) -> Update:
    offered = (plan.adapter, *plan.choices)
    choice = _best_fit(offered, plan, desk) if plan.choices else 0
    start = own_view(offered[choice], plan.rule, desk.memory, plan.round)
    lora.write_adapter(desk.net, start, name=lora.SHARED)
    before = desk.task.validated(desk.net, desk.data.val)
    fitted = _fitted(plan, desk, start, granted)
    delta, kept = _to_send(plan, desk, start, steps=fitted.steps)
    if kept:
        desk.memory.keep(plan.round, kept)
    told = _told(desk, before, fitted, granted)
    section = desk.recipe.compression
    return Update(
        run=plan.run,
        round=plan.round,
        site=plan.site,
        delta=delta,
        encoding=section.encoding,
        share=section.share,
        patients=told.patients,
        steps=fitted.steps,
        loss=told.loss,
        epsilon=desk.recipe.privacy.epsilon if desk.recipe.privacy else None,
        evaluation=told.evaluation,
        choice=choice,
        variate=_variate(fitted.variate, start, plan.rule) if plan.rule.variate else None,
    )


def _fitted(plan: Plan, desk: _Desk, start: Adapter, granted: Granted | None) -> Fitted:
    rule, recipe = plan.rule, desk.recipe
    parameters = {
        name: parameter
        for name, parameter in lora.trainable(desk.net, name=lora.SHARED, with_head=True, with_norms=True).items()
        if name in start and rule.trains(name)
    }
    pull = Pull(
        mu=rule.mu,
        anchor=start,
        correction=rule.correction,
        alternate=rule.alternate,
        # Whole tensors: B, which some rules keep at the site, trains with A.
        first=frozenset(name for name in parameters if rule.keeps(name) and not factor(name)) if rule.kept_first else frozenset(),
        first_steps=rule.kept_first,
    )
    steps = recipe.rounds.steps
    return fit(
        desk.net,
        desk.data.train,
        desk.task,
        recipe.rounds,
        parameters=parameters,
        seed=site_seed(recipe.seed, plan.site, plan.round),
        stretch=Stretch(before=(plan.round - 1) * steps, total=recipe.rounds.count * steps),
        pull=pull,
        with_variate=rule.variate,
        mechanism=mechanism_of(recipe, granted) if granted else None,
    )


def mechanism_of(recipe: Recipe, granted: Granted) -> Mechanism:
    """What the ledger was charged for, at the start of the round's keystream."""
    assert recipe.privacy is not None
    return Mechanism(
        noise_multiplier=granted.noise_multiplier,
        max_grad_norm=recipe.privacy.max_grad_norm,
        sample_rate=granted.sample_rate,
        expected_patients=granted.expected_patients,
        images_per_patient=recipe.privacy.images_per_patient,
        drawable=granted.drawable,
        stream=Stream(granted.key),
    )


def _to_send(plan: Plan, desk: _Desk, start: Adapter, *, steps: int) -> tuple[Adapter, Adapter]:
    """What crosses, and what the site keeps."""
    trained = lora.read_like(desk.net, start, name=lora.SHARED)
    # An update of zeros is what a silently broken fit looks like: the loss falls by chance, and nothing moves.
    if trained == start:
        raise DataError(f"{plan.site}: the adapter did not move in {steps} steps")
    delta = desk.strategy.encode(start, trained, plan.rule, plan.round)
    for name, array in delta.items():
        if not np.isfinite(array).all():
            raise DataError(f"{plan.site}: {name} is not finite after {steps} steps")
    kept = dict(trained.only(plan.rule.keeps))
    section = desk.recipe.compression
    if section.encoding == "float32":
        return delta, Adapter(kept)
    carried = _carried(desk.memory, plan.round) if section.error_feedback else {}
    wanted = Adapter({name: array + carried.get(name, 0.0) for name, array in delta.items()})
    delta = lossy(wanted, section.encoding, share=section.share)
    if section.error_feedback:
        kept |= {_CARRY + name: array for name, array in (carried | dict(wanted - delta)).items()}
    return delta, Adapter(kept)


def _told(desk: _Desk, before: Validated, fitted: Fitted, granted: Granted | None) -> Released:
    """The numbers beside the update. `before` is of the adapter as it came."""
    val = desk.data.val
    loss = tail_mean(fitted.losses) if fitted.losses else None
    if granted is None or desk.guard is None:
        return Released(patients=desk.data.train.count, loss=loss, evaluation=Evaluation(patients=val.count, metrics=before.metrics))
    numbers = Numbers(
        train_patients=desk.data.train.count,
        loss=loss,
        val_losses=[float(before.losses[own].mean()) for own in val.images_of],
        metrics=before.metrics,
        behind=before.patients,
    )
    return release(numbers, desk.guard.config, granted)


def _best_fit(offered: Sequence[Adapter], plan: Plan, desk: _Desk) -> int:
    """The one with the lowest loss on the training patients. IFCA: Ghosh et al. 2020, arXiv:2006.04088.

    Before anything was learned B is zero, and all fit alike: then the site's name says which one it takes, or all would take the first.
    """
    losses = []
    for adapter in offered:
        lora.write_adapter(desk.net, own_view(adapter, plan.rule, desk.memory, plan.round), name=lora.SHARED)
        losses.append(float(losses_of(desk.net, desk.data.train, desk.task).mean()))
    if np.ptp(losses) == 0:
        return hashlib.sha256(plan.site.encode()).digest()[0] % len(offered)
    return int(np.argmin(np.nan_to_num(losses, nan=np.inf)))


def own_view(adapter: Adapter, rule: LocalRule, memory: Memory, number: int) -> Adapter:
    """The adapter as it arrives for round `number`, with what the site has kept of its own in place of the coordinator's."""
    kept = (memory.before(number) or Adapter({})) if rule.keep else Adapter({})
    return adapter.replace(kept.only(lambda name: name in adapter and rule.keeps(name)))


def _carried(memory: Memory, number: int) -> dict[str, Array]:
    """What earlier rounds' updates lost on the wire, by the names that it is lost from."""
    kept = memory.before(number) or Adapter({})
    return {name.removeprefix(_CARRY): array for name, array in kept.items() if name.startswith(_CARRY)}


def _variate(gradients: Mapping[str, Array], start: Adapter, rule: LocalRule) -> Adapter:
    """At the ranks and in the shapes of the adapter; zero for what took no part."""
    sent = {name: array for name, array in start.items() if rule.sends(name)}
    return Adapter(
        {
            name: gradients[name].reshape(len(gradients[name]), -1)[tuple(map(slice, array.shape))].reshape(array.shape)
            if name in gradients
            else np.zeros_like(array)
            for name, array in sent.items()
        }
    )


def site_seed(seed: int, site: str, number: int) -> tuple[int, ...]:
    """Of one site's fit in one round: the same wherever and in whichever order it runs."""
    return (seed, number, *site.encode())
