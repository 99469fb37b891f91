"""A Plan in, an Update out: what a site does in one round."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from client.models import Net
from client.tasks import Task
from client.training import lora
from client.training.features import Features, logits
from client.training.fit import Pull, Stretch, fit, tail_mean
from client.training.metrics import validation
from rainhill.errors import DataError, RainhillError, RefusedError
from rainhill.messages import Evaluation, Plan, Refusal, Update
from rainhill.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class LocalData:
    """One site's patients as training sees them."""

    train: Features
    val: Features


Answer = Callable[[Plan], Update | Refusal]


def answer(plan: Plan, *, recipe: Recipe, net: Net, task: Task, data: LocalData) -> Update | Refusal:
    """Fits the plan's adapter to the site's training patients; a site that cannot says why."""
    try:
        return _update(plan, recipe=recipe, net=net, task=task, data=data)
    except RainhillError as error:
        return Refusal(run=plan.run, round=plan.round, site=plan.site, reason=str(error))


def _update(plan: Plan, *, recipe: Recipe, net: Net, task: Task, data: LocalData) -> Update:
    if plan.recipe != recipe.sha256:
        raise RefusedError(f"{plan.site}: plan is for recipe {plan.recipe[:12]}, the site has {recipe.sha256[:12]}")
    if not 1 <= plan.round <= recipe.rounds.count:
        raise RefusedError(f"{plan.site}: plan is for round {plan.round}, the recipe has {recipe.rounds.count}")
    with_head = recipe.lora.head == "shared"
    lora.write_adapter(net, plan.adapter, name=lora.SHARED)
    evaluation = Evaluation(patients=data.val.count, metrics=validation(logits(net, data.val.hidden), data.val.targets.numpy(), task))
    parameters = {
        name: parameter for name, parameter in lora.trainable(net, name=lora.SHARED, with_head=with_head).items() if plan.rule.trains(name)
    }
    pull = Pull(mu=plan.rule.mu, anchor=plan.adapter, correction=plan.rule.correction)
    steps = recipe.rounds.steps
    losses = fit(
        net,
        data.train,
        task,
        recipe.rounds,
        parameters=parameters,
        seed=site_seed(recipe.seed, plan.site, plan.round),
        stretch=Stretch(before=(plan.round - 1) * steps, total=recipe.rounds.count * steps),
        pull=pull,
    )
    change = lora.read_adapter(net, name=lora.SHARED, with_head=with_head) - plan.adapter
    # An update of zeros is what a silently broken fit looks like: the loss falls by chance, and nothing moves.
    if not any(np.any(array) for array in change.values()):
        raise DataError(f"{plan.site}: the adapter did not move in {len(losses)} steps")
    return Update(
        run=plan.run,
        round=plan.round,
        site=plan.site,
        delta=change.only(plan.rule.sends),
        patients=data.train.count,
        steps=len(losses),
        loss=tail_mean(losses),
        evaluation=evaluation,
    )


def site_seed(seed: int, site: str, number: int) -> tuple[int, ...]:
    """Of one site's fit in one round: the same wherever and in whichever order it runs."""
    return (seed, number, *site.encode())
