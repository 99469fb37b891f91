"""What a plan may ask of a site: what the approved recipe makes of the offered adapter, and nothing beside it.

All else that a plan can say (which factors are sent, what is kept, how many adapters to choose from) would change what leaves, or what it
tells, and nobody at the site was asked. The values of the tensors are the coordinator's to say, and are bounded by the number of rounds.
"""

from collections.abc import Mapping
from dataclasses import fields

import numpy as np

import strategies
from rainhill.adapter import RESIDUAL_A_SUFFIX, RESIDUAL_B_SUFFIX, Adapter, split_name
from rainhill.errors import RefusedError
from rainhill.messages import LocalRule, Plan
from rainhill.offer import Offer
from strategies import State, Strategy

RESIDUAL = (RESIDUAL_A_SUFFIX, RESIDUAL_B_SUFFIX)


def refuse_beyond(plan: Plan, offer: Offer) -> None:
    """Raises RefusedError, which names what was asked and what was offered; nothing in it is of the site."""
    recipe = offer.recipe
    if plan.recipe != recipe.sha256:
        raise RefusedError(f"plan is for recipe {plan.recipe[:12]}, offered was {recipe.sha256[:12]}")
    if not 1 <= plan.round <= recipe.rounds.count:
        raise RefusedError(f"plan is for round {plan.round}, the recipe has {recipe.rounds.count}")
    strategy = strategies.from_recipe(recipe)
    _check_tensors(plan, offer, strategy)
    if plan.round == 1 and plan.site not in recipe.lora.ranks and plan.adapter.fingerprint() != offer.adapter:
        raise RefusedError(f"round 1 begins from adapter {plan.adapter.fingerprint()[:12]}, offered was {offer.adapter[:12]}")
    _check_rule(plan, strategy)
    expected = len(strategy.personal.choices(plan.adapter, strategy.personal.init(plan.adapter)))
    if len(plan.choices) != expected:
        raise RefusedError(f"plan offers {len(plan.choices)} further adapters to choose from, the recipe has {expected}")


def check_result(plan: Plan, offer: Offer) -> None:
    """Of the plan that follows the last round. Raises RefusedError unless it brings what the offered adapter can have become."""
    recipe = offer.recipe
    if plan.recipe != recipe.sha256:
        raise RefusedError(f"plan is for recipe {plan.recipe[:12]}, offered was {recipe.sha256[:12]}")
    _check_tensors(plan, offer, strategies.from_recipe(recipe))


def _check_tensors(plan: Plan, offer: Offer, strategy: Strategy) -> None:
    """Names and shapes as offered, at the rank that the site takes; a residual pair may come beside each where the rule sends one."""
    offered = {name: tuple(shape) for name, shape in offer.tensors.items()}
    # At zeros: a site's rank cuts rows and columns, and looks at no value.
    start = Adapter({name: np.zeros(shape, np.float32) for name, shape in offered.items()})
    expected = {name: array.shape for name, array in strategy.down(start, State(), plan.site).items()}
    got = {name: array.shape for name, array in plan.adapter.items()}
    if strategy.rule.traits.residual:
        got = {name: shape for name, shape in got.items() if name in expected or not _is_residual(name, shape, expected)}
    for name in sorted({*expected, *got}):
        if got.get(name) != expected.get(name):
            raise RefusedError(f"plan's adapter: {name} is {got.get(name, 'not there')}, offered was {expected.get(name, 'none')}")


def _is_residual(name: str, shape: tuple[int, ...], expected: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether it is a factor of any rank of a residual pair for a module that was offered. A site adds it, and trains and sends none."""
    module, suffix = split_name(name)
    a, b = expected.get(f"{module}.lora_A"), expected.get(f"{module}.lora_B")
    if suffix not in RESIDUAL or a is None or b is None:
        return False
    return shape[1] == a[1] if suffix == RESIDUAL_A_SUFFIX else shape[0] == b[0]


def _check_rule(plan: Plan, strategy: Strategy) -> None:
    """Which factors train and are sent goes by the round's number; what a server remembers shows in a correction's values alone."""
    expected = strategy.local(plan.adapter, State(round=plan.round - 1), plan.site)
    for field in fields(LocalRule):
        got, wanted = (_told(getattr(rule, field.name)) for rule in (plan.rule, expected))
        if got != wanted:
            raise RefusedError(f"plan asks {field.name} {got}, the recipe has {wanted}")


def _told(value: object) -> object:
    """Of a correction, names and shapes; factors in their order."""
    if isinstance(value, Adapter):
        return {name: array.shape for name, array in value.items()}
    return sorted(value) if isinstance(value, frozenset) else value
