"""Strategies on the six phantom hospitals, with and without a hostile site, and with sites of different rank.

    python -m perf.comparison [--seeds 0 1 2 3 4] [--recipe perf/comparison.toml] [--out runs/perf-comparison]

Three tables: twelve rules and what compression costs; a plain mean and the robust rules with one of six sites that sends ten times the
opposite of what it learned; ranks 2, 4, 8 and 16 over four sites beside all 8. Intervals are 95 % over patients, of the mean over seeds.
What is there already is not repeated. The large hospitals have 200 patients to train and validate on here, so that a seed takes a
quarter of an hour on one core.
"""

import argparse
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rainhill.files import write_whole
from rainhill.messages import Plan, Refusal, SiteId, Update
from rainhill.recipe import Recipe, StrategySection, read_recipe
from server.rounds import Collect
from sites.cli import HERE, cache_folder
from sites.compare import Disturb, Entrant, compare, entrants

RULES = "flexlora,fedavg,ffa,alternating,fedex,fedsvd,flora,double_sketch,lora_fair,fedrot,fedsa,fedsb"
COMPRESSED = "flexlora+bf16,flexlora+int8,flexlora+top_k"
GUARDS = ("median", "trimmed_mean", "multi_krum", "geometric_median", "norm_bound", "centred_clipping")
PLAIN = "flexlora"
HOSTILE = "salford"
AT_MOST = 200
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


def smaller(folder: Path) -> Path:
    """The six hospitals with no more than `AT_MOST` patients each."""
    for file in HERE.glob("*.toml"):
        text = file.read_text(encoding="utf-8")
        text = re.sub(r"^patients = (\d+)$", lambda found: f"patients = {min(AT_MOST, int(found[1]))}", text, flags=re.MULTILINE)
        write_whole(folder / file.name, text.encode())
    return folder


def run(recipe: Recipe, asked: list[Entrant], seeds: list[int], out: Path) -> dict[str, Any]:
    sites = smaller(out.parent / "sites")
    return compare(recipe, asked, recipe_folder=HERE, sites_folder=sites, seeds=seeds, out=out, cache=cache_folder(), progress=Lines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--recipe", type=Path, default=Path(__file__).with_name("comparison.toml"))
    parser.add_argument("--out", type=Path, default=Path("runs/perf-comparison"))
    options = parser.parse_args()
    recipe = read_recipe(options.recipe)
    honest = [wide_enough(one) for one in entrants(f"{RULES},{COMPRESSED}", recipe)]
    attacked = entrants(",".join([PLAIN, *(f"{PLAIN}+{guard}" for guard in GUARDS)]), recipe)
    hostile = [replace(one, name=f"{one.name}-hostile", disturb=lying(HOSTILE)) for one in attacked]
    document = run(recipe, [*honest, *hostile], options.seeds, options.out / "six")
    show("rules, and compression", document, honest)
    show(f"{HOSTILE} sends ten times the opposite", document, hostile)
    print(f"\nlost to it, against {PLAIN} with honest sites, mean over the other five")
    print(f"{'':<36}{'federated':>12}{'with own part':>16}")
    for one in hostile:
        lost = [of_others(document, PLAIN, arm) - of_others(document, one.name, arm) for arm in ("shared", "private")]
        print(f"{one.name:<36}{lost[0]:>+12.3f}{lost[1]:>+16.3f}")
    ranks(recipe, options.seeds, options.out)


def wide_enough(one: Entrant) -> Entrant:
    """The double sketch is exact for six sites of rank 8 from (6 + 1) * 8 columns on."""
    if one.recipe.strategy.rule != "double_sketch":
        return one
    return replace(one, recipe=one.recipe.model_copy(update={"strategy": StrategySection(rule="double_sketch", size=56)}))


def ranks(recipe: Recipe, seeds: list[int], out: Path) -> None:
    names = "flexlora,flora,hetlora"
    eight = recipe.model_copy(update={"sites": tuple(MIXED)})
    # The scale alpha / rank stays, so that products compare.
    lora = recipe.lora.model_copy(update={"rank": 16, "alpha": 16 * recipe.lora.scale, "ranks": MIXED})
    mixed = eight.model_copy(update={"lora": lora})
    for title, one, folder in (("ranks 2, 4, 8 and 16", mixed, "mixed"), ("the same four sites, all of rank 8", eight, "eight")):
        asked = entrants(names, one)
        show(title, run(one, asked, seeds, out / folder), asked)


def of_others(document: dict[str, Any], name: str, arm: str) -> float:
    values = [float(site["strategies"][name][arm]["value"]) for key, site in document["sites"].items() if key != HOSTILE]
    return sum(values) / len(values)


def show(title: str, document: dict[str, Any], asked: list[Entrant]) -> None:
    sites = document["sites"]
    print(f"\n{title}: AUROC of the site's own model, mean over {len(document['seeds'])} seeds")
    print(f"{'':<36}{'KiB':>6}{'mean':>8}{'  - first [95 % interval]':<28}" + "".join(f"{site[:10]:>11}" for site in sites))
    for arm in ("base", "local", "pooled"):
        print(
            f"{arm:<36}{'':>6}{document['mean'][arm]['value']:>8.3f}{'':<28}"
            + "".join(f"{site[arm]['value']:>11.3f}" for site in sites.values())
        )
    for name in (one.name for one in asked):
        kib = document["strategies"][name]["bytes_per_site_round"] / 1024
        entry, gain = document["mean"]["strategies"][name], document["mean"]["strategies"][name]["private_minus_first"]
        apart = f"  {gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
        own = "".join(f"{site['strategies'][name]['private']['value']:>11.3f}" for site in sites.values())
        print(f"{name:<36}{kib:>6.0f}{entry['private']['value']:>8.3f}{apart:<28}{own}")


if __name__ == "__main__":
    main()
