"""What differential privacy costs, hospital by hospital: federated and alone, at epsilon inf, 8, 3 and 1, over several seeds.

    python -m perf.privacy [--seeds 0 1 2 3 4] [--recipe private] [--plain six] [--sites FOLDER] [--out runs/perf-privacy]

Every arm ends with the site's private part, which never leaves and has no noise. "Alone" is the same recipe with nobody else in it: its
adapter carries the same promise, as if the site were to publish it. Epsilons are of each patient over the whole run, at the recipe's delta;
neighbouring data sets differ by one patient, added or removed. Noise is simulated.

At epsilon inf both are of the recipe `--plain`, which was made for training without privacy and has more steps: what the same hospitals
could have had. A private recipe without its noise would be a weaker thing to be held against. Intervals are Student's t over seeds. What is
there already is not repeated; runs of `--plain` are shared with perf.phantoms.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import strategies
from client.workbench import Bench, first_adapter, open_bench
from perf._stats import mean_interval, show
from perf.phantoms import auroc, run
from rainhill.adapter import Adapter
from rainhill.files import write_whole
from rainhill.recipe import Recipe, read_recipe
from server.rounds import run_rounds
from sites import arms
from sites.bench import SiteData, open_site
from sites.cli import HERE, RECIPES, cache_folder
from sites.consortium import find_sites, find_source
from sites.evaluate import measure_of
from sites.inline import collect_inline

EPSILONS = (8.0, 3.0, 1.0)
ARMS = ("base", "alone", "federated")

Scores = dict[str, dict[str, float]]
"""Site -> arm -> mean AUROC."""


def named(epsilon: float | None) -> str:
    return "inf" if epsilon is None else f"{epsilon:g}"


def at_epsilon(recipe: Recipe, epsilon: float, seed: int) -> Recipe:
    """The recipe with another promise; the same patients, first adapter and steps."""
    assert recipe.privacy is not None, "the recipe has no [privacy] to vary"
    return recipe.model_copy(update={"privacy": recipe.privacy.model_copy(update={"epsilon": epsilon}), "seed": seed})


def without_privacy(plain: str, seed: int, sites_folder: Path) -> Scores:
    document = run(plain, seed, Path("runs") / "perf-phantoms", sites_folder)
    return {
        site: {arm: auroc(document, site, theirs) for arm, theirs in zip(ARMS, ("base", "local", "private"), strict=True)}
        for site in document["sites"]
    }


def federated(bench: Bench, first: Adapter, data: dict[str, SiteData], folder: Path) -> dict[str, float]:
    collect = collect_inline(bench, data, arms.memory_of(folder, "shared"))
    done = arms.train_shared(bench, first, sites=list(data), collect=collect, folder=folder, on_round=lambda *_: None)
    views = arms.own_views(bench, done, data, folder=folder)
    private = arms.train_private(bench, views, data)
    return {site: measure_of(bench, own, views[site], private[site]).value for site, own in data.items()}


def alone(bench: Bench, first: Adapter, data: dict[str, SiteData], folder: Path) -> dict[str, float]:
    """Each site with the same recipe, rule and promise, and nobody else."""
    recipe = bench.recipe.model_copy(update={"rounds": bench.recipe.rounds.model_copy(update={"quorum": 1})})
    single = replace(bench, recipe=recipe)
    found = {}
    for site, own in data.items():
        done = run_rounds(
            recipe,
            single.strategy,
            first,
            run=f"{recipe.name}/alone/{site}",
            sites=[site],
            collect=collect_inline(single, {site: own}, folder / "memory" / "alone"),
            folder=folder / "alone" / site,
        )
        private = arms.train_private(single, {site: done.adapter}, {site: own})
        found[site] = measure_of(single, own, done.adapter, private[site]).value
    return found


def measured(recipe: Recipe, sites_folder: Path, out: Path) -> Scores:
    """One seed of a private recipe, read where it is there already."""
    assert recipe.privacy is not None
    file = out / "scores.json"
    if file.exists():
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if kept["recipe_sha256"] == recipe.sha256:
            return dict(kept["scores"])
    started = time.monotonic()
    bench = open_bench(recipe, RECIPES)
    data = {site.name: open_site(bench, site, cache_folder()) for site in find_sites(recipe, sites_folder)}
    source = find_source(sites_folder) if recipe.lora.init == "gradient" else None
    first = first_adapter(bench, open_site(bench, source, cache_folder()) if source else None)
    by_arm = {
        "base": {site: measure_of(bench, own, first).value for site, own in data.items()},
        "alone": alone(bench, first, data, out),
        "federated": federated(bench, first, data, out),
    }
    scores = {site: {arm: by_arm[arm][site] for arm in ARMS} for site in data}
    about = {"recipe_sha256": recipe.sha256, "scores": scores, "seconds": round(time.monotonic() - started, 1)}
    write_whole(file, (json.dumps(about, indent=1) + "\n").encode())
    print(f"seed {recipe.seed}, epsilon {named(recipe.privacy.epsilon)}: {about['seconds']} s", flush=True)
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--recipe", default="private", help="name of a recipe that ships with Rainhill, or a file")
    parser.add_argument("--plain", default="six", help="the recipe for epsilon inf, by the name it ships under")
    parser.add_argument("--sites", type=Path, default=HERE)
    parser.add_argument("--epsilons", type=float, nargs="+", help="in place of inf, 8, 3 and 1; inf is always measured")
    parser.add_argument("--out", type=Path, default=Path("runs/perf-privacy"))
    options = parser.parse_args()
    path = Path(options.recipe)
    recipe = read_recipe(path if path.exists() else RECIPES / f"{options.recipe}.toml")
    strategies.from_recipe(recipe)
    scores: dict[float | None, list[Scores]] = {None: [without_privacy(options.plain, seed, options.sites) for seed in options.seeds]}
    for epsilon in options.epsilons or EPSILONS:
        scores[epsilon] = [
            measured(at_epsilon(recipe, epsilon, seed), options.sites, options.out / f"{recipe.name}-{seed}" / named(epsilon))
            for seed in options.seeds
        ]
    report(scores, recipe)


def report(scores: dict[float | None, list[Scores]], recipe: Recipe) -> None:
    assert recipe.privacy is not None
    plain = scores[None]
    sites = list(plain[0])
    print(f"\nmean AUROC over findings; mean [95 % interval] over {len(plain)} seeds; delta {recipe.privacy.delta:g}, unit: one patient\n")
    print("| epsilon | hospital | base | alone | federated | federated - alone | gain kept |")
    print("|---|---|---|---|---|---|---|")
    for epsilon, seeds in scores.items():
        for site in [*sites, "mean"]:
            own = {arm: [one(seed, site, arm) for seed in seeds] for arm in ARMS}
            gains = [one(seed, site, "federated") - one(seed, site, "base") for seed in plain]
            share = kept(own["federated"], own["base"], gains)
            difference = show([a - b for a, b in zip(own["federated"], own["alone"], strict=True)])
            cells = " | ".join(show(own[arm]) for arm in ARMS)
            print(f"| {named(epsilon)} | {site} | {cells} | {difference} | {share} |")
    print("\ngain kept: of federated - base, against the same without privacy; '-' where that is within 0.01 of nothing")


def one(seed: Scores, site: str, arm: str) -> float:
    return float(np.mean([own[arm] for own in seed.values()])) if site == "mean" else seed[site][arm]


def kept(federated: list[float], base: list[float], gains: list[float]) -> str:
    """Share of the non-private gain, of the means over seeds: a ratio in each seed would blow up where a gain is small."""
    plain = mean_interval(gains)[0]
    return "-" if plain < 0.01 else f"{100 * (np.mean(federated) - np.mean(base)) / plain:.0f} %"


if __name__ == "__main__":
    main()
