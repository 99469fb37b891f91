"""Several strategies on the same sites and seeds: the same films, first adapter, steps and test patients, so differences are paired.

Every strategy is a run of its own, checkpointed round by round: the same command in the same folder goes on where it stopped.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import strategies
from client.training.metrics import Measured
from rainhill import plugins
from rainhill.adapter import Adapter
from rainhill.errors import ConfigError, PluginError
from rainhill.files import write_whole
from rainhill.messages import RoundRecord, SiteId
from rainhill.recipe import PartSection, Recipe, StrategySection
from server.rounds import Collect
from sites import arms, consortium, results
from sites.bench import Bench, SiteData, first_adapter, open_bench, open_site
from sites.evaluate import auroc_of
from sites.inline import collect_inline
from sites.plots import draw_comparison
from sites.simulate import Progress

FORMAT = 1

Scores = dict[SiteId, dict[str, Measured]]
"""Site -> `base`, `local`, `pooled`, `NAME` (the site's own model by that strategy) and `NAME/shared` -> mean AUROC."""

Disturb = Callable[[Collect], Collect]
"""For a measurement: what stands between the sites and the coordinator, such as a site that lies."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    name: str
    """As it was asked for, such as `alternating+fedprox`."""
    section: StrategySection


def entrants(names: str, recipe: Recipe) -> list[Entrant]:
    """Comma-separated, each one or more names joined by `+`: a rule, a server optimiser, a robust rule, a personalisation mode.

    What a name leaves open is the recipe's. Raises PluginError for a name that none of them has.
    """
    known = {name: kind for kind, package in strategies.PACKAGES.items() for name in plugins.names(package)}
    found: list[Entrant] = []
    for asked in filter(None, (one.strip() for one in names.split(","))):
        changes: dict[str, Any] = {}
        for name in asked.split("+"):
            if name not in known:
                raise PluginError(plugins.unknown(list(known), name, "strategy"))
            if known[name] in changes:
                raise ConfigError(f"--compare {asked}: names two of a kind, {known[name]}")
            changes[known[name]] = name if known[name] == "rule" else PartSection(name=name)
        own = recipe.strategy.model_dump()
        if "rule" in changes and changes["rule"] != recipe.strategy.rule:
            # The further keys are the fields of the recipe's own rule.
            own = {key: value for key, value in own.items() if key in StrategySection.model_fields}
        found.append(Entrant(name=asked, section=StrategySection.model_validate({**own, **changes})))
    if len(found) < 2:
        raise ConfigError(f"--compare {names!r}: names {len(found)}, comparing takes at least two, such as fedavg,flexlora")
    twice = sorted({one.name for one in found if [other.name for other in found].count(one.name) > 1})
    if twice:
        raise ConfigError(f"--compare {names!r}: names {twice[0]!r} twice")
    return found


def compare(
    recipe: Recipe,
    asked: Sequence[Entrant],
    *,
    recipe_folder: Path,
    sites_folder: Path,
    seeds: Sequence[int],
    out: Path,
    cache: Path,
    progress: Progress,
    disturb: Disturb = lambda collect: collect,
) -> dict[str, Any]:
    """Trains what is not there yet, writes comparison.json and comparison.png into `out`, and gives the former."""
    started = time.monotonic()
    sites = consortium.find_sites(recipe, sites_folder)
    source = consortium.find_source(sites_folder)
    progress.start(total=len(seeds) * (len(sites) + 2 + len(asked)))
    by_seed: list[Scores] = []
    bytes_crossed: dict[str, float] = {}
    patients: dict[SiteId, int] = {}
    for seed in seeds:
        seeded = recipe.model_copy(update={"seed": seed})
        folder = out / f"seed-{seed}"
        bench = open_bench(seeded, recipe_folder)
        data = {}
        for site in sites:
            data[site.name] = open_site(bench, site, cache)
            progress.step(f"seed {seed}: films of {site.title}")
        patients |= {site: own.train.count + own.val.count for site, own in data.items()}
        public = open_site(bench, source, cache) if source and seeded.lora.init == "gradient" else None
        first = first_adapter(bench, public)
        scores = _references(bench, first, data, folder / "references", progress, seed)
        for one in asked:
            entered = seeded.model_copy(update={"strategy": one.section})
            theirs = replace(bench, recipe=entered, strategy=strategies.from_recipe(entered))
            crossed = _enter(theirs, one.name, first_adapter(theirs, public), data, folder / one.name, scores, disturb)
            bytes_crossed[one.name] = crossed
            progress.step(f"seed {seed}: {one.name}")
        by_seed.append(scores)
    document = {
        "format": FORMAT,
        "name": recipe.name,
        "title": recipe.title,
        "recipe_sha256": recipe.sha256,
        "seeds": list(seeds),
        "strategies": {
            one.name: {"strategy": one.section.model_dump(mode="json"), "bytes_per_site_round": bytes_crossed[one.name]} for one in asked
        },
        "sites": {
            site.name: {"title": site.title, "patients": patients[site.name], **_entry([s[site.name] for s in by_seed], asked, recipe)}
            for site in sites
        },
        "mean": _entry([_mean_over_sites(scores) for scores in by_seed], asked, recipe),
        "seconds": round(time.monotonic() - started, 3),
        "software": results.software(),
    }
    write_whole(out / "comparison.json", (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    write_whole(out / "comparison.png", draw_comparison(document))
    return document


def _references(bench: Bench, first: Adapter, data: Mapping[SiteId, SiteData], folder: Path, progress: Progress, seed: int) -> Scores:
    local = arms.train_local(bench, first, data, folder=folder, on_round=_quiet)
    progress.step(f"seed {seed}: each alone")
    pooled = arms.train_pooled(bench, first, data, folder=folder, on_round=_quiet)
    progress.step(f"seed {seed}: pooled")
    scores: Scores = {}
    for site, own in data.items():
        scores[site] = {"base": auroc_of(bench, own, first), "pooled": auroc_of(bench, own, pooled)}
        scores[site]["local"] = auroc_of(bench, own, local.adapters[site], local.private[site])
    return scores


def _enter(
    bench: Bench, name: str, first: Adapter, data: Mapping[SiteId, SiteData], folder: Path, scores: Scores, disturb: Disturb
) -> float:
    """Adds the strategy's scores, and gives the bytes of one site and round."""
    collect = disturb(collect_inline(bench, data, arms.memory_of(folder, "shared")))
    done = arms.train_shared(bench, first, sites=list(data), collect=collect, folder=folder, on_round=_quiet)
    views = arms.own_views(bench, done, data, folder=folder)
    private = arms.train_private(bench, views, data)
    for site, own in data.items():
        scores[site][f"{name}/shared"] = auroc_of(bench, own, views[site])
        scores[site][name] = auroc_of(bench, own, views[site], private[site])
    return results.crossing(bench, done.history)["bytes_per_site_round"]


def _quiet(arm: str, record: RoundRecord) -> None: ...


def _mean_over_sites(scores: Scores) -> dict[str, Measured]:
    """Unweighted; a replicate draws every site's patients anew."""
    return {arm: _mean([own[arm] for own in scores.values()]) for arm in next(iter(scores.values()))}


def _mean(measured: Sequence[Measured]) -> Measured:
    return Measured(value=float(np.mean([one.value for one in measured])), replicates=np.mean([one.replicates for one in measured], axis=0))


def _entry(by_seed: Sequence[Mapping[str, Measured]], asked: Sequence[Entrant], recipe: Recipe) -> dict[str, Any]:
    """Means over the seeds, with intervals over patients, who are others in each seed of a phantom hospital."""
    confidence = recipe.evaluation.confidence
    means = {arm: _mean([seed[arm] for seed in by_seed]) for arm in by_seed[0]}
    reference = asked[0].name

    def told(one: Measured) -> dict[str, float | None]:
        return results.interval(one, confidence)

    return {arm: told(means[arm]) for arm in ("base", "local", "pooled")} | {
        "strategies": {
            one.name: {
                "private": told(means[one.name]),
                "shared": told(means[f"{one.name}/shared"]),
                "private_minus_first": told(means[one.name].minus(means[reference])),
                "private_minus_local": told(means[one.name].minus(means["local"])),
            }
            for one in asked
        }
    }
