"""What adapting the model that drafts reports brings, hospital by hospital, and what its drafts say of the film before.

    python -m perf.drafting [--seeds 0,1,2] [--recipe reporting] [--out runs/perf-drafting]

Each seed is a run of `rainhill simulate`, with other patients; one that is in the folder already is read.
The drop is label F1 at the hospital
where the base was trained less that of the base at another; what is regained is that of the site's own model less the base's, on the same
patients. Intervals are bootstraps over patients, of one seed each; a drop is between patients of two hospitals, which are drawn apart.

Of the film before: drafts without a prior in their prompt that compare all the same; and, with one, of findings that draft and report both
have, how often the draft says new or unchanged as the report does. A model that always says unchanged is right as often as that is so, so
both are counted apart.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from client.reporting.changes import Change, changes
from client.tasks.report import Report
from client.training.personal import Private, private_part
from client.workbench import open_bench
from rainhill.adapter import Adapter
from sites.bench import open_site
from sites.cli import cache_folder
from sites.consortium import Site, find_sites
from sites.runs import Run, resumed


def run_of(recipe: str, seed: int, folder: Path) -> dict[str, Any]:
    if not (folder / "results.json").exists():
        command = [sys.executable, "-m", "rainhill.cli", "simulate", recipe, "--seed", str(seed), "--out", str(folder)]
        subprocess.run(command, check=True)
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def told(of: dict[str, float]) -> str:
    return f"{of['value']:.3f} [{of['low']:.3f}, {of['high']:.3f}]"


def print_levels(seed: int, document: dict[str, Any]) -> None:
    measure, source = document["measure"], document["source"]
    after = "the very same" if source["unchanged"] else "NOT the same"
    print(f"seed {seed}: {source['title']} {told(source[measure])}; after the run, with every adapter off, {after}")
    for site in document["sites"].values():
        arms = {arm: site[arm][measure] for arm in ("base", "local", "shared", "private", "pooled")}
        drop = source[measure]["value"] - arms["base"]["value"]
        print(f"  {site['title']}: dropped {drop:.3f}, regained {told(site['differences']['private_minus_base'])}; "
              f"over alone {told(site['differences']['private_minus_local'])}")  # fmt: skip
        print("    " + ", ".join(f"{arm} {told(of)}" for arm, of in arms.items()))


Right = Counter[tuple[Change, bool]]
"""Findings by what their report says of them, and whether the draft says so too."""


def print_changes(run: Run, document: dict[str, Any]) -> Right:
    bench, of_all = open_bench(run.recipe, run.recipe_folder), Right()
    task = bench.task
    assert isinstance(task, Report)
    for site in find_sites(run.recipe, run.sites_folder):
        own = open_site(bench, site, cache_folder())
        shared, private = _adapters(run.folder, site, document)
        rows = range(len(own.test.patients))
        with private_part(bench.net, shared, private, run.recipe):
            drafts = [one.text for one in task.drafts(bench.net, own.test, rows)]
        priors, references = own.cohort.part("test").priors, own.test.texts
        without = [draft for draft, prior in zip(drafts, priors, strict=True) if not prior]
        comparing = sum(bool(task.labeler.comparisons(draft)) for draft in without)
        print(f"  {site.title}: of {len(without)} drafts without a prior {comparing} compare")
        right = Right()
        for draft, reference, prior in zip(drafts, references, priors, strict=True):
            if prior:
                said, truth = (changes(task.labeler, text, language=task.language) for text in (draft, reference))
                right.update((truth[finding], said[finding] == truth[finding]) for finding in said.keys() & truth.keys())
        print(f"    {counted(right)}")
        of_all += right
    return of_all


def counted(right: Right) -> str:
    kinds: tuple[Change, ...] = ("new", "unchanged")
    each = [f"{change}: {right[change, True]} of {right[change, True] + right[change, False]}" for change in kinds]
    good = sum(right[change, True] for change in kinds)
    return f"{', '.join(each)} as the report says it; together {good} of {right.total()} ({good / max(1, right.total()):.1%})"


def _adapters(folder: Path, site: Site, document: dict[str, Any]) -> tuple[Adapter, Private]:
    own = folder / "adapters" / "shared" / f"{site.name}.safetensors"
    shared = own if own.exists() else folder / "adapters" / "shared.safetensors"
    part = document["sites"][site.name]["private"]
    private = Adapter.from_bytes((folder / "adapters" / "private" / f"{site.name}.safetensors").read_bytes())
    return Adapter.from_bytes(shared.read_bytes()), Private(adapter=private, temperature=part["temperature"], steps=part["steps"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--recipe", default="reporting")
    parser.add_argument("--out", type=Path, default=Path("runs/perf-drafting"))
    options, of_all = parser.parse_args(), Right()
    for seed in map(int, options.seeds.split(",")):
        folder = options.out / str(seed)
        document = run_of(options.recipe, seed, folder)
        print_levels(seed, document)
        of_all += print_changes(resumed(folder), document)
    print(f"all seeds and hospitals: {counted(of_all)}")


if __name__ == "__main__":
    main()
