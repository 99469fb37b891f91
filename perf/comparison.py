"""Strategies on the six phantom hospitals, with and without a hostile site, and with sites of different rank.

    python -m perf.comparison [--seeds 0 1 2 3 4] [--recipe six] [--out runs/perf-comparison]

Three tables: at least eight rules; a plain mean and the robust rules with one of six sites that sends ten times the opposite of what it
learned, beside the same without it; ranks 2, 4, 8 and 16 over four sites beside all 8. Intervals are 95 % over patients, of the mean over
seeds. Rounds that are there already are not repeated.
"""

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rainhill.messages import Plan, Refusal, SiteId, Update
from rainhill.recipe import Recipe, read_recipe
from server.rounds import Collect
from sites.cli import HERE, RECIPES, cache_folder
from sites.compare import Disturb, compare, entrants

RULES = "fedavg,flexlora,ffa,alternating,fedex,fedsvd,flora,double_sketch,lora_fair,fedrot,fedsa,fedsb"
GUARDS = ("median", "trimmed_mean", "multi_krum", "geometric_median", "norm_bound", "centred_clipping")
ROBUST = ",".join(["flexlora", *(f"flexlora+{guard}" for guard in GUARDS)])
HOSTILE = "salford"
MIXED = {"bury": 2, "oldham": 4, "wirral": 8, "liverpool": 16}


class Lines:
    def start(self, total: int) -> None: ...

    def step(self, what: str) -> None:
        print(what, flush=True)


def lying(site: SiteId) -> Disturb:
    """That site sends ten times the opposite of every tensor."""

    def disturb(collect: Collect) -> Collect:
        def collected(plans: Mapping[SiteId, Plan]) -> Iterable[Update | Refusal]:
            for answer in collect(plans):
                hostile = isinstance(answer, Update) and answer.site == site
                yield replace(answer, delta=answer.delta * -10.0) if hostile and isinstance(answer, Update) else answer

        return collected

    return disturb


def run(recipe: Recipe, names: str, seeds: list[int], out: Path, **options: Any) -> dict[str, Any]:
    return compare(
        recipe,
        entrants(names, recipe),
        recipe_folder=RECIPES,
        sites_folder=HERE,
        seeds=seeds,
        out=out,
        cache=cache_folder(),
        progress=Lines(),
        **options,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--recipe", default="six")
    parser.add_argument("--out", type=Path, default=Path("runs/perf-comparison"))
    options = parser.parse_args()
    recipe = read_recipe(RECIPES / f"{options.recipe}.toml")
    show("rules", run(recipe, RULES, options.seeds, options.out / "rules"))
    honest = run(recipe, ROBUST, options.seeds, options.out / "honest")
    show("robust rules, all sites honest", honest)
    hostile = run(recipe, ROBUST, options.seeds, options.out / "hostile", disturb=lying(HOSTILE))
    show(f"robust rules, {HOSTILE} sends ten times the opposite", hostile)
    print("\nlost to the hostile site, mean over the other five, federated adapter (asked: robust rules at most 0.02, the plain mean more)")
    for name in honest["strategies"]:
        print(f"  {name:<32}{of_others(honest, name) - of_others(hostile, name):+.3f}")
    four = recipe.model_copy(
        update={"sites": tuple(MIXED), "lora": recipe.lora.model_copy(update={"rank": 16, "alpha": 32.0, "ranks": MIXED})}
    )
    eight = recipe.model_copy(update={"sites": tuple(MIXED)})
    show("ranks 2, 4, 8 and 16", run(four, "flexlora,fedex,flora,hetlora", options.seeds, options.out / "mixed"))
    show("the same four sites, all of rank 8", run(eight, "flexlora,fedex,flora,hetlora", options.seeds, options.out / "eight"))


def of_others(document: dict[str, Any], name: str) -> float:
    values = [float(site["strategies"][name]["shared"]["value"]) for key, site in document["sites"].items() if key != HOSTILE]
    return sum(values) / len(values)


def show(title: str, document: dict[str, Any]) -> None:
    sites = document["sites"]
    print(f"\n{title}: AUROC of the site's own model, mean over {len(document['seeds'])} seeds")
    print(f"{'':<32}{'KiB':>6}{'mean':>8}{'  - first [95 % interval]':<28}" + "".join(f"{site[:10]:>11}" for site in sites))
    for arm in ("base", "local", "pooled"):
        print(
            f"{arm:<32}{'':>6}{document['mean'][arm]['value']:>8.3f}{'':<28}"
            + "".join(f"{site[arm]['value']:>11.3f}" for site in sites.values())
        )
    for name, about in document["strategies"].items():
        entry, gain = document["mean"]["strategies"][name], document["mean"]["strategies"][name]["private_minus_first"]
        apart = f"  {gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
        own = "".join(f"{site['strategies'][name]['private']['value']:>11.3f}" for site in sites.values())
        print(f"{name:<32}{about['bytes_per_site_round'] / 1024:>6.0f}{entry['private']['value']:>8.3f}{apart:<28}{own}")


if __name__ == "__main__":
    main()
