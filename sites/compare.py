"""Several strategies on the same sites and seeds: the same films, first adapter, steps and test patients, so differences are paired.

How updates are compressed on the way counts as part of a strategy here.

Every strategy is a run of its own, checkpointed round by round, and its scores are kept: the same command in the same folder goes on where
it stopped, and further strategies or seeds find the others done.
"""

import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import strategies
from client.training.metrics import Measured
from client.workbench import Bench, first_adapter, open_bench
from rainhill import plugins
from rainhill.adapter import Adapter
from rainhill.compression import ENCODINGS
from rainhill.errors import ConfigError, PluginError
from rainhill.files import write_whole
from rainhill.messages import RoundRecord, SiteId
from rainhill.recipe import PartSection, Recipe, StrategySection
from rainhill.text import shown
from server.rounds import Collect
from sites import arms, consortium, results
from sites.bench import SiteData, open_site
from sites.evaluate import measure_of
from sites.inline import collect_inline, secure_inline
from sites.plots import draw_comparison
from sites.runs import COMPARED, refuse_changed
from sites.simulate import Progress

FORMAT = 1

Scores = dict[SiteId, dict[str, Measured]]
"""Site -> `base`, `local`, `pooled`, `NAME` (the site's own model by that strategy) and `NAME/shared` -> mean AUROC."""

_KEY, _BYTES = "recipe", "bytes_per_site_round"

Disturb = Callable[[Collect], Collect]
"""For a measurement: what stands between the sites and the coordinator, such as a site that lies."""


def _honest(collect: Collect) -> Collect:
    return collect


@dataclass(frozen=True, kw_only=True)
class Entrant:
    name: str
    """As it was asked for, such as `alternating+fedprox`."""
    recipe: Recipe
    """The recipe compared in, with this entrant's strategy."""
    disturb: Disturb = _honest


def entrants(names: str, recipe: Recipe) -> list[Entrant]:
    """Comma-separated, each one or more names joined by `+`: rule, server optimiser, robust rule, personalisation mode, encoding.

    What a name leaves open is the recipe's. Raises PluginError for a name that none of them has.
    """
    known = {name: kind for kind, package in strategies.PACKAGES.items() for name in plugins.names(package)}
    known |= dict.fromkeys(ENCODINGS, "compression")
    found: list[Entrant] = []
    for asked in filter(None, (one.strip() for one in names.split(","))):
        changes: dict[str, Any] = {}
        for name in (part.strip() for part in asked.split("+")):
            if name not in known:
                raise PluginError(f"--compare {shown(asked)}: {plugins.unknown(list(known), name, 'strategy')}")
            if known[name] in changes:
                raise ConfigError(f"--compare {shown(asked)}: names two of a kind, {known[name]}")
            part = getattr(recipe.strategy, known[name], None)
            if known[name] in ("rule", "compression"):
                changes[known[name]] = name
            elif part is None or part.name != name:
                changes[known[name]] = PartSection(name=name)
            else:
                # The recipe's own, with its keys.
                changes[known[name]] = part
        compression = recipe.compression
        if "compression" in changes:
            compression = compression.model_copy(update={"encoding": changes.pop("compression")})
        own = recipe.strategy.model_dump()
        if "rule" in changes and changes["rule"] != recipe.strategy.rule:
            # The further keys are the fields of the recipe's own rule.
            own = {key: value for key, value in own.items() if key in StrategySection.model_fields}
        strategy = StrategySection.model_validate({**own, **changes})
        found.append(Entrant(name=asked, recipe=recipe.model_copy(update={"strategy": strategy, "compression": compression})))
    if len(found) < 2:
        raise ConfigError(f"--compare {shown(names)!r}: names {len(found)}, comparing takes at least two, such as fedavg,flexlora")
    for place, one in enumerate(found):
        for other in found[:place]:
            if one.recipe == other.recipe:
                raise ConfigError(f"--compare: {shown(one.name)!r} and {shown(other.name)!r} are the same strategy")
    return found


def check_comparison_folder(folder: Path, recipe: Recipe) -> None:
    """Raises ConfigError unless the folder is free, or holds a comparison in this recipe."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file, expected a folder")
    mark = folder / COMPARED
    if mark.exists():
        began = mark.read_text(encoding="utf-8").strip()
        if began != recipe.sha256:
            raise ConfigError(f"{folder}: compares in recipe {began[:12]}, asked is {recipe.sha256[:12]}; choose another --out")
    elif folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: is not empty and holds no comparison; choose another --out")


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
) -> dict[str, Any]:
    """Trains what is not there yet, writes comparison.json and comparison.png into `out`, and gives the former."""
    started = time.monotonic()
    sites = consortium.find_sites(recipe, sites_folder)
    source = consortium.find_source(sites_folder)
    write_whole(out / COMPARED, (recipe.sha256 + "\n").encode())
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
        _same_data(folder / "data.json", {site: own.cohort.fingerprint() for site, own in data.items()})
        scores: Scores = {site: {} for site in data}
        key, file = seeded.sha256, folder / "references" / "scores.npz"
        if _read(file, key, scores) is None:
            _references(bench, first_adapter(bench, public), data, folder / "references", scores, progress, seed)
            _keep(file, key, scores, ("base", "local", "pooled"), 0.0)
        for one in asked:
            entered = one.recipe.model_copy(update={"seed": seed})
            key, file = entered.sha256, folder / one.name / "scores.npz"
            crossed = _read(file, key, scores)
            if crossed is None:
                theirs = replace(bench, recipe=entered, strategy=strategies.from_recipe(entered))
                crossed = _enter(theirs, one, first_adapter(theirs, public), data, folder / one.name, scores)
                _keep(file, key, scores, (one.name, f"{one.name}/shared"), crossed)
            bytes_crossed[one.name] = crossed
            progress.step(f"seed {seed}: {one.name}")
        by_seed.append(scores)
    document = {
        "format": FORMAT,
        "name": recipe.name,
        "title": recipe.title,
        "measure": bench.task.measure,
        "recipe_sha256": recipe.sha256,
        "seeds": list(seeds),
        "strategies": {
            one.name: {
                "strategy": one.recipe.strategy.model_dump(mode="json"),
                "compression": one.recipe.compression.model_dump(mode="json"),
                "bytes_per_site_round": bytes_crossed[one.name],
            }
            for one in asked
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


def _same_data(file: Path, prints: Mapping[SiteId, str]) -> None:
    """Writes the fingerprints of the sites' data, or holds them against those that this folder began with."""
    if file.exists():
        refuse_changed(file.parent, "data", json.loads(file.read_text(encoding="utf-8")), prints)
    else:
        write_whole(file, (json.dumps(prints, indent=1) + "\n").encode())


def _references(
    bench: Bench, first: Adapter, data: Mapping[SiteId, SiteData], folder: Path, scores: Scores, progress: Progress, seed: int
) -> None:
    local = arms.train_local(bench, first, data, folder=folder, on_round=_quiet)
    progress.step(f"seed {seed}: each alone")
    pooled = arms.train_pooled(bench, first, data, folder=folder, on_round=_quiet)
    progress.step(f"seed {seed}: pooled")
    for site, own in data.items():
        scores[site]["base"], scores[site]["pooled"] = measure_of(bench, own, first), measure_of(bench, own, pooled)
        scores[site]["local"] = measure_of(bench, own, local.adapters[site], local.private[site])


def _enter(bench: Bench, one: Entrant, first: Adapter, data: Mapping[SiteId, SiteData], folder: Path, scores: Scores) -> float:
    """Adds the strategy's scores, and gives the bytes of one site and round."""
    memory = arms.memory_of(folder, "shared")
    collect, secure = one.disturb(collect_inline(bench, data, memory)), secure_inline(bench.recipe, list(data), memory)
    done = arms.train_shared(bench, first, sites=list(data), collect=collect, folder=folder, on_round=_quiet, secure=secure)
    views = arms.own_views(bench, done, data, folder=folder)
    private = arms.train_private(bench, views, data)
    for site, own in data.items():
        scores[site][f"{one.name}/shared"] = measure_of(bench, own, views[site])
        scores[site][one.name] = measure_of(bench, own, views[site], private[site])
    return results.crossing(bench, done.history)["bytes_per_site_round"]


def _keep(file: Path, key: str, scores: Scores, arms_: tuple[str, ...], crossed: float) -> None:
    """The scores of these arms, and the sha256 of the recipe that they are of."""
    arrays = {f"{arm}@{site}": np.append(own[arm].value, own[arm].replicates) for site, own in scores.items() for arm in arms_}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, **{_KEY: np.array(key), _BYTES: np.array(crossed)})  # type: ignore[arg-type]
    write_whole(file, buffer.getvalue())


def _read(file: Path, key: str, scores: Scores) -> float | None:
    """Adds what `_keep` wrote and gives the bytes that crossed; None where there is nothing, or of another recipe."""
    if not file.exists():
        return None
    with np.load(file, allow_pickle=False) as stored:
        if str(stored[_KEY]) != key:
            return None
        for name in set(stored) - {_KEY, _BYTES}:
            arm, _, site = name.rpartition("@")
            scores[site][arm] = Measured(value=float(stored[name][0]), replicates=stored[name][1:])
        return float(stored[_BYTES])


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
