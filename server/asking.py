"""A run that is about to be offered: all that can be held against it here is said before any hospital is troubled with it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import numpy as np

import strategies
from rainhill.adapter import A_SUFFIX, B_SUFFIX, Adapter, split_name
from rainhill.errors import ConfigError, RainhillError, RefusedError
from rainhill.files import write_whole
from rainhill.messages import SiteId
from rainhill.offer import Offer, sealed_offer
from rainhill.recipe import LoraSection, Recipe
from rainhill.secagg import check_sites
from rainhill.text import did_you_mean
from rainhill.toml import parse
from server.home import Home
from server.registry import Registry, Site
from server.runs import Runs
from strategies import Strategy

NAME = 50
"""Characters of a recipe's name that go into a run's, which holds 64."""


def new_offer(
    home: Home, registry: Registry, recipe: Recipe, *, adapter: Adapter, run: str | None, sites: Sequence[SiteId], days: int, by: str
) -> tuple[Offer, bytes]:
    """The offer, and the same as the consortium signs it; nobody sees it before `Runs.offer`.

    Round 1 begins from `Strategy.first(adapter)`: that is kept in `home.adapters`, and its fingerprint is in the offer.
    `sites` empty: the recipe's, or all that are active where it names none. `run` None: the recipe's name and today's date.
    Raises ConfigError, RefusedError or ProtocolError, which name what is wrong and both values.
    """
    with _said_of(recipe):
        strategy = strategies.from_recipe(recipe)
        asked = _asked(registry, recipe, sites)
        _check_number(recipe, strategy, asked)
    first = _first(recipe, strategy, adapter)
    made = datetime.now(UTC)
    about = {
        "consortium": home.config.name,
        "run": free_name(home, Runs(database=registry.database), recipe, made) if run is None else run,
        "recipe": recipe,
        "adapter": first.fingerprint(),
        "tensors": {name: array.shape for name, array in first.items()},
        "sites": {name: site.signing_key.hex() for name, site in sorted(asked.items())},
        "by": by,
        "made": made,
        "until": made + timedelta(days=days),
    }
    offer = parse(about, Offer, origin=f"an offer of recipe {recipe.name}")
    if (home.runs / offer.run).exists():
        raise RefusedError(f"run {offer.run}: {home.runs / offer.run} holds what was left by a run of this name; take another name")
    sealed = sealed_offer(offer, home.key())
    write_whole(home.adapter_file(offer.adapter), first.to_bytes())
    return offer, sealed


def free_name(home: Home, runs: Runs, recipe: Recipe, now: datetime) -> str:
    """Such as `spring-20261122`, or `spring-20261122-2` where that is taken."""
    plain = re.sub(r"[^a-z0-9_]+", "-", recipe.name.lower()).strip("-_")[:NAME] or "run"
    first, taken, number = f"{plain}-{now:%Y%m%d}", {run.name for run in runs.runs()}, 1
    name = first
    while name in taken or (home.runs / name).exists():
        number += 1
        name = f"{first}-{number}"
    return name


def _asked(registry: Registry, recipe: Recipe, sites: Sequence[SiteId]) -> dict[SiteId, Site]:
    twice = sorted({site for site in sites if sites.count(site) > 1})
    if twice:
        raise ConfigError(f"asked twice: {', '.join(twice)}")
    if sites and recipe.sites and set(sites) != set(recipe.sites):
        raise ConfigError(f"sites = {', '.join(sorted(recipe.sites))}, and asked are {', '.join(sorted(sites))}")
    names = tuple(sites) or recipe.sites or tuple(registry.active())
    if not names:
        raise RefusedError("there is no site to ask: `rainhill coordinator enrol` takes one in")
    asked = {name: registry.site(name) for name in names}
    for name, site in asked.items():
        if site.revoked is not None:
            raise RefusedError(f"{name}: was revoked on {site.revoked:%Y-%m-%d} ({site.reason}), and cannot be asked")
    return asked


def _check_number(recipe: Recipe, strategy: Strategy, asked: Mapping[SiteId, Site]) -> None:
    """That these are enough for all that the recipe asks."""
    strategies.refuse_few(strategy, len(asked), f"[strategy] {recipe.strategy.described()}")
    if recipe.rounds.quorum > len(asked):
        raise ConfigError(f"rounds.quorum = {recipe.rounds.quorum} is more than the {len(asked)} sites that are asked: {', '.join(asked)}")
    for name in recipe.lora.ranks:
        if name not in asked:
            raise ConfigError(f"lora.ranks names {name!r}, which is not asked{did_you_mean(name, asked)} (asked are: {', '.join(asked)})")
    if recipe.secure_aggregation is not None:
        check_sites(asked, dropouts=recipe.secure_aggregation.dropouts)


def _first(recipe: Recipe, strategy: Strategy, adapter: Adapter) -> Adapter:
    """What round 1 begins from. RefusedError where the adapter is not of this recipe, or its strategy cannot begin with it."""
    _check_values(adapter)
    with _said_of(recipe):
        _check_pairs(adapter, recipe.lora)
    try:
        first = strategy.first(adapter)
        strategy.init(first)
    except (RainhillError, ValueError, LookupError, ArithmeticError) as error:
        raise RefusedError(
            f"recipe {recipe.name}: [strategy] {recipe.strategy.described()} cannot begin from this adapter: {error}"
        ) from error
    _check_values(first)
    return first


def _check_values(adapter: Adapter) -> None:
    for name, array in adapter.items():
        if array.dtype != np.float32:
            raise RefusedError(f"adapter: {name}: dtype {array.dtype} is not float32")
        if not np.isfinite(array).all():
            raise RefusedError(f"adapter: {name}: {np.count_nonzero(~np.isfinite(array))} of its {array.size} values are not finite")


def _check_pairs(adapter: Adapter, lora: LoraSection) -> None:
    """That its factors are of the rank and of the modules that are asked, and that it has a head where one travels."""
    pairs = adapter.pairs()
    if not pairs:
        raise RefusedError(f"the adapter holds no LoRA pair, but {', '.join(adapter) or 'nothing'}")
    for name in adapter:
        module, suffix = split_name(name)
        if suffix and module not in pairs:
            raise RefusedError(f"the adapter has {name}, and not both of {module}{A_SUFFIX} and {module}{B_SUFFIX}")
    for module, pair in pairs.items():
        if pair.rank != lora.rank:
            raise RefusedError(f"lora.rank = {lora.rank}, and the adapter has rank {pair.rank} at {module}")
        if not _matches(lora.modules, module):
            raise RefusedError(f"lora.modules = {lora.modules!r}, and the adapter has a pair at {module}")
    if (strategies.HEAD in adapter) != (lora.head == "shared"):
        raise RefusedError(
            f"lora.head = {lora.head!r}, and the adapter has {'a' if strategies.HEAD in adapter else 'no'} {strategies.HEAD}"
        )


def _matches(pattern: str, module: str) -> bool:
    try:
        return re.fullmatch(pattern, module.rpartition(".")[2]) is not None
    except re.error as error:
        raise ConfigError(f"lora.modules = {pattern!r}: is not a regular expression: {error}") from error


@contextmanager
def _said_of(recipe: Recipe) -> Iterator[None]:
    """Puts in front of a refusal what it is about."""
    try:
        yield
    except (ConfigError, RefusedError) as error:
        raise type(error)(f"recipe {recipe.name}: {error}") from error
