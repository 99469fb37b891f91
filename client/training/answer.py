"""A Plan in, an Update out: what a site does in one round."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from client.models import Net
from client.tasks import Task
from client.training import lora
from client.training.features import Features, logits
from client.training.fit import Pull, Stretch, fit, tail_mean
from client.training.memory import Memory
from client.training.metrics import validation
from rainhill.adapter import Adapter, Array, factor
from rainhill.compression import lossy
from rainhill.errors import DataError, RainhillError, RefusedError
from rainhill.messages import Evaluation, LocalRule, Plan, Refusal, Update
from rainhill.recipe import Recipe
from strategies import Strategy


@dataclass(frozen=True, kw_only=True)
class LocalData:
    """One site's patients as training sees them."""

    train: Features
    val: Features


_CARRY = "carry/"

Answer = Callable[[Plan], Update | Refusal]


def answer(plan: Plan, *, recipe: Recipe, strategy: Strategy, net: Net, task: Task, data: LocalData, memory: Memory) -> Update | Refusal:
    """Fits the plan's adapter to the site's training patients; a site that cannot says why."""
    try:
        return _update(plan, recipe=recipe, strategy=strategy, net=net, task=task, data=data, memory=memory)
    except RainhillError as error:
        return Refusal(run=plan.run, round=plan.round, site=plan.site, reason=str(error))


def _update(plan: Plan, *, recipe: Recipe, strategy: Strategy, net: Net, task: Task, data: LocalData, memory: Memory) -> Update:
    if plan.recipe != recipe.sha256:
        raise RefusedError(f"{plan.site}: plan is for recipe {plan.recipe[:12]}, the site has {recipe.sha256[:12]}")
    if not 1 <= plan.round <= recipe.rounds.count:
        raise RefusedError(f"{plan.site}: plan is for round {plan.round}, the recipe has {recipe.rounds.count}")
    offered = (plan.adapter, *plan.choices)
    choice = _best_fit(offered, plan, memory, net=net, task=task, data=data) if plan.choices else 0
    start = own_view(offered[choice], plan.rule, memory, plan.round)
    lora.write_adapter(net, start, name=lora.SHARED)
    evaluation = Evaluation(patients=data.val.count, metrics=validation(logits(net, data.val.hidden), data.val.targets.numpy(), task))
    parameters = {
        name: parameter
        for name, parameter in lora.trainable(net, name=lora.SHARED, with_head=True, with_norms=True).items()
        if name in start and plan.rule.trains(name)
    }
    pull = Pull(
        mu=plan.rule.mu,
        anchor=start,
        correction=plan.rule.correction,
        alternate=plan.rule.alternate,
        # Whole tensors: B, which some rules keep at the site, trains with A.
        first=frozenset(name for name in parameters if plan.rule.keeps(name) and not factor(name)) if plan.rule.kept_first else frozenset(),
        first_steps=plan.rule.kept_first,
    )
    steps = recipe.rounds.steps
    fitted = fit(
        net,
        data.train,
        task,
        recipe.rounds,
        parameters=parameters,
        seed=site_seed(recipe.seed, plan.site, plan.round),
        stretch=Stretch(before=(plan.round - 1) * steps, total=recipe.rounds.count * steps),
        pull=pull,
        with_variate=plan.rule.variate,
    )
    trained = lora.read_like(net, start, name=lora.SHARED)
    # An update of zeros is what a silently broken fit looks like: the loss falls by chance, and nothing moves.
    if trained == start:
        raise DataError(f"{plan.site}: the adapter did not move in {len(fitted.losses)} steps")
    delta = strategy.encode(start, trained, plan.rule, plan.round)
    for name, array in delta.items():
        if not np.isfinite(array).all():
            raise DataError(f"{plan.site}: {name} is not finite after {len(fitted.losses)} steps")
    kept = dict(trained.only(plan.rule.keeps))
    section = recipe.compression
    if section.encoding != "float32":
        carried = _carried(memory, plan.round) if section.error_feedback else {}
        wanted = Adapter({name: array + carried.get(name, 0.0) for name, array in delta.items()})
        delta = lossy(wanted, section.encoding, share=section.share)
        if section.error_feedback:
            kept |= {_CARRY + name: array for name, array in (carried | dict(wanted - delta)).items()}
    if kept:
        memory.keep(plan.round, Adapter(kept))
    return Update(
        run=plan.run,
        round=plan.round,
        site=plan.site,
        delta=delta,
        encoding=section.encoding,
        share=section.share,
        patients=data.train.count,
        steps=len(fitted.losses),
        loss=tail_mean(fitted.losses),
        evaluation=evaluation,
        choice=choice,
        variate=_variate(fitted.variate, start, plan.rule) if plan.rule.variate else None,
    )


def _best_fit(offered: Sequence[Adapter], plan: Plan, memory: Memory, *, net: Net, task: Task, data: LocalData) -> int:
    """The one with the lowest loss on the training patients. IFCA: Ghosh et al. 2020, arXiv:2006.04088.

    Before anything was learned B is zero, and all fit alike: then the site's name says which one it takes, or all would take the first.
    """
    losses = []
    for adapter in offered:
        lora.write_adapter(net, own_view(adapter, plan.rule, memory, plan.round), name=lora.SHARED)
        losses.append(validation(logits(net, data.train.hidden), data.train.targets.numpy(), task)["loss"])
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
