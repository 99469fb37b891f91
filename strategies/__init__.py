"""How site updates become the next adapter: pure numpy, one file per rule, optimiser and robust rule."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import strategies as _rules
from rainhill import plugins, toml
from rainhill.errors import ConfigError, PluginError
from rainhill.messages import LocalRule, SiteId
from rainhill.recipe import PartSection, Recipe, StrategySection
from rainhill.secagg import check_encoding, check_strategy
from rainhill.text import shown
from strategies import optimizers, personal, robust
from strategies._rule import Move, Rule, State, Traits
from strategies._strategy import Strategy

PACKAGES: dict[str, ModuleType] = {"rule": _rules, "server_optimizer": optimizers, "robust": robust, "personal": personal}
"""Key of `[strategy]` -> the package of its plug-ins."""
KINDS = {"rule": "rule", "server_optimizer": "server optimiser", "robust": "robust rule", "personal": "personalisation mode"}
HEAD = "head.weight"
"""A tensor that a mode which keeps the head at the site keeps."""

__all__ = ["PACKAGES", "Move", "Rule", "State", "Strategy", "Traits", "from_recipe", "from_section", "refuse_few"]


def from_recipe(recipe: Recipe) -> Strategy:
    """The strategy of a recipe, at its ranks; raises ConfigError for what cannot be combined, with the reason."""
    section, compression = recipe.strategy, recipe.compression
    strategy = from_section(section, ranks=recipe.lora.ranks)
    strategy.personal.check(recipe.rounds)
    lost = compression.encoding != "float32"
    moving = not strategy.rule.traits.factors or strategy.personal.several
    _refuse_insecure(recipe, strategy)
    void = strategy.rule.traits.void or strategy.personal.void
    keeps_head = strategy.personal.local(LocalRule()).keeps(HEAD)
    _raise_first(
        [
            (
                lost and compression.error_feedback and moving,
                f"[compression] error_feedback sends what was lost in the next round, and {_named(section)} has another basis then",
            ),
            (
                compression.encoding == "top_k" and strategy.robust is not None and strategy.robust.coordinate_wise,
                f"[compression] encoding = 'top_k' leaves most entries at zero, and {_named(section)} takes the middle of each",
            ),
            (
                recipe.privacy is not None and void,
                f"[privacy]: {_named(section)} trains parts that stay along with those that leave, which carries patients past the noise",
            ),
            (
                recipe.privacy is not None and strategy.personal.chooses,
                f"[privacy]: with personal = {section.personal.name!r} a site tells which adapter fits its patients best, without noise",
            ),
            (
                keeps_head and recipe.lora.head == "frozen",
                f"[strategy] personal = {section.personal.name!r} keeps the head at the site, and [lora] head = 'frozen' trains none",
            ),
        ]
    )
    return strategy


def _refuse_insecure(recipe: Recipe, strategy: Strategy) -> None:
    """Raises RefusedError for what a masked sum cannot serve, ConfigError for what it could and does not yet."""
    if recipe.secure_aggregation is None:
        return
    named = _named(recipe.strategy)
    check_strategy(recipe.strategy.described(), linear=strategy.linear)
    check_encoding(recipe.compression.encoding)
    _raise_first(
        [
            (
                strategy.weights == "capped",
                f"[secure_aggregation]: weights = 'capped' in {named}; a share is masked before it is known which is cut: take 'patients'",
            ),
            (bool(strategy.ranks), f"[secure_aggregation]: [lora] ranks = {dict(strategy.ranks)}; masks cancel in vectors of one length"),
            (
                strategy.optimizer is not None and strategy.optimizer.variates,
                f"[secure_aggregation]: {named} sends a variate beside the update, and nothing would mask it",
            ),
        ]
    )


def refuse_few(strategy: Strategy, sites: int, asker: str) -> None:
    """Raises ConfigError where so few sites give the strategy nothing to work on."""
    if sites < strategy.min_sites():
        raise ConfigError(f"{asker}: needs {strategy.min_sites()} sites, {sites} are asked: {strategy.why_so_many()}")
    if strategy.weights == "capped" and strategy.cap * sites < 1:
        raise ConfigError(f"{asker}: [strategy] cap = {strategy.cap} for {sites} sites, whose shares then cannot sum to 1")


def from_section(section: StrategySection, *, ranks: Mapping[SiteId, int] | None = None) -> Strategy:
    """What a recipe names, put together; `ranks` are of the sites whose rank is not the recipe's.

    Raises ConfigError with the reason for what cannot be combined.
    """
    rule = _load(_rules, section.rule, key="rule")
    for key in (key for key in section.options if key not in rule.model_fields):
        # It may be meant for the table itself as well as for the rule.
        known = [*StrategySection.model_fields, *rule.model_fields]
        raise ConfigError(f"[strategy] {shown(key)}: unknown key{toml.nearest(key, known)}")
    strategy = Strategy(
        rule=toml.parse(section.options, rule, origin=f"[strategy] rule = {section.rule!r}"),
        weights=section.weights,
        cap=section.cap,
        optimizer=_part(section.server_optimizer, optimizers, key="server_optimizer"),
        robust=_part(section.robust, robust, key="robust"),
        personal=_part(section.personal, personal, key="personal"),
        ranks=ranks or {},
    )
    _refuse(section, strategy)
    return strategy


def _part(section: PartSection | None, package: ModuleType, *, key: str) -> Any:
    if section is None:
        return None
    name = section.name
    return toml.parse(section.options, _load(package, name, key=key), origin=f"[strategy] {key} = {name!r}")


def _load(package: ModuleType, name: str, *, key: str) -> type[Any]:
    """The plug-in; one that is known under another key is told so."""
    for other, elsewhere in PACKAGES.items():
        if other != key and name in plugins.names(elsewhere) and name not in plugins.names(package):
            raise PluginError(f"[strategy] {key} = {name!r}: that is a {KINDS[other]}, for the key {other}")
    return plugins.load(package, name, kind=KINDS[key])


def _named(section: StrategySection) -> str:
    return f"[strategy] {section.described()}"


def _refuse(section: StrategySection, strategy: Strategy) -> None:
    rule, traits, mode = f"rule {section.rule!r}", strategy.rule.traits, strategy.personal
    personal = f"[strategy] personal = {section.personal.name!r}"
    robust = f"[strategy] robust = {section.robust.name!r}" if section.robust else ""
    optimizer = f"[strategy] server_optimizer = {section.server_optimizer.name!r}" if section.server_optimizer else ""
    stepwise = strategy.optimizer is not None and strategy.optimizer.needs_factors
    variates = strategy.optimizer is not None and strategy.optimizer.variates
    refusals = [
        (
            bool(strategy.ranks) and not traits.mixed_ranks,
            f"[lora] ranks = {dict(strategy.ranks)}: {rule} takes no sites of other ranks",
        ),
        (
            stepwise and not traits.factors,
            f"{optimizer} steps from factors to the next round's, and {rule} changes their basis",
        ),
        (bool(robust) and traits.sketched, f"{robust} looks at each site's product, and {rule} sends sketches"),
        (bool(robust) and traits.void, f"{robust} looks at each site's product, and with {rule} the server never sees B"),
        (mode.several and not traits.factors, f"{personal} mixes factors, and {rule} changes their basis"),
        (mode.several and traits.void, f"{personal} needs each site's adapter, and with {rule} the server never sees B"),
        (mode.several and traits.residual, f"{personal} has several adapters, and the residual of {rule} belongs to one"),
        (mode.several and stepwise, f"{optimizer} follows one adapter from round to round, and {personal} has several"),
        (mode.after == "ditto" and traits.core, f"{personal} trains A and B, and {rule} holds them fixed"),
        (mode.several and bool(robust), f"{robust} needs all sites around one adapter, and {personal} has several"),
        (bool(strategy.ranks) and not mode.mixed_ranks, f"[lora] ranks = {dict(strategy.ranks)}: {personal} takes no sites of other ranks"),
        (bool(strategy.ranks) and variates, f"[lora] ranks = {dict(strategy.ranks)}: {optimizer} averages variates, which are of one rank"),
        (variates and bool(robust), f"{optimizer} averages what each site sends beside its update, and {robust} does not look at that"),
        (stepwise and traits.residual, f"{optimizer} goes another way than the mean that the residual of {rule} belongs to"),
        (
            stepwise and strategy.robust is not None and strategy.robust.coordinate_wise and not strategy.one_factor,
            f"{optimizer} steps from factors to the next round's, and {robust} changes their basis",
        ),
        (
            strategy.robust is not None and strategy.robust.reweighs and not traits.exact,
            f"{robust} holds products down, and {rule} averages factors, in which a site can hide any size: take a rule that is exact",
        ),
        (
            bool(robust) and strategy.weights != "equal",
            f"{robust} with weights = {strategy.weights!r}: a hostile site would choose its own weight",
        ),
    ]
    _raise_first(refusals)


def _raise_first(refusals: Sequence[tuple[bool, str]]) -> None:
    for applies, reason in refusals:
        if applies:
            raise ConfigError(reason)
