"""What adaptation is worth on real films of two hospitals, beside a logistic regression on 32x32 pixels.

    python -m perf.real_films [--seeds 0 1 2 3 4] [--folds 5] [--recipe cxr] [--out runs/perf-real-films]

Patient-wise k-fold, over several seeds. Within a seed each film is scored once, by the fold that did not train on it. AUROC is given twice:
over all of a site's films at once (merged), and as the mean of the folds' own, because the scores of different folds are those of different
models, and merging them also measures how far their origins lie apart (Forman & Scholz 2010, SIGKDD Explorations 12(1)). Intervals are
percentile bootstraps over patients, of the mean over seeds. The films are not part of the project: sites/cxr/*.toml say where they are
looked for. Folds that are there already are read, not repeated.
"""

import argparse
import hashlib
import io
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from client.data.cohort import Cohort, resplit
from client.training import lora
from client.training.features import logits
from client.training.metrics import patient_draws, percentile_interval, weighted_auroc
from client.training.personal import private_part
from client.workbench import Bench, first_adapter, open_bench
from perf._stats import pixels
from rainhill.adapter import Adapter, Array
from rainhill.config import SplitConfig
from rainhill.files import write_whole
from rainhill.recipe import read_recipe
from sites import arms
from sites.bench import SiteData, open_cohort, site_data
from sites.cli import HERE, RECIPES, cache_folder
from sites.consortium import find_sites
from sites.inline import collect_inline

Scores = dict[tuple[str, str], Array]
"""(model, site it is tested at) -> (N,) score of each film."""

Folds = dict[str, Array]
"""Site -> (N,) the fold in which each film was tested."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--recipe", default="cxr")
    parser.add_argument("--out", type=Path, default=Path("runs/perf-real-films"))
    options = parser.parse_args()
    recipe = read_recipe(RECIPES / f"{options.recipe}.toml")
    cohorts: dict[str, Cohort] = {}
    by_seed: list[tuple[Scores, Folds]] = []
    for seed in options.seeds:
        seeded = recipe.model_copy(update={"seed": seed})
        bench = open_bench(seeded, RECIPES)
        cohorts = cohorts or {site.name: open_cohort(bench, site, cache_folder()) for site in find_sites(seeded, HERE / "cxr")}
        by_seed.append(cross_validate(bench, cohorts, folds=options.folds, out=options.out / seeded.sha256[:16]))
    report(by_seed, cohorts, recipe.evaluation.bootstraps)


def cross_validate(bench: Bench, cohorts: dict[str, Cohort], *, folds: int, out: Path) -> tuple[Scores, Folds]:
    scores: Scores = {}
    tested = {site: np.full(len(cohort), -1) for site, cohort in cohorts.items()}
    for fold in range(folds):
        started = time.monotonic()
        dealt = {site: resplit(cohort, SplitConfig(folds=folds, fold=fold, seed=bench.recipe.seed)) for site, cohort in cohorts.items()}
        prints = "".join(cohort.fingerprint() for cohort in dealt.values())
        file = out / f"{hashlib.sha256(prints.encode()).hexdigest()[:16]}.npz"
        if not file.exists():
            _save(file, one_fold(bench, dealt))
        for (model, site), values in _load(file).items():
            whole = scores.setdefault((model, site), np.full(len(cohorts[site]), np.nan))
            whole[dealt[site].split == "test"] = values
            tested[site][dealt[site].split == "test"] = fold
        print(f"seed {bench.recipe.seed}, fold {fold + 1} of {folds}: {time.monotonic() - started:.0f} s", flush=True)
    return scores, tested


def _save(file: Path, scores: Scores) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **{"@".join(key): values for key, values in scores.items()})  # type: ignore[arg-type]
    write_whole(file, buffer.getvalue())


def _load(file: Path) -> Scores:
    with np.load(file) as stored:
        return {(model, site): stored[key] for key in stored for model, _, site in [key.partition("@")]}


def one_fold(bench: Bench, dealt: dict[str, Cohort]) -> Scores:
    """Scores of the test films of each site by every model; only films no model of this fold has trained on."""
    data = {site: site_data(bench, cohort) for site, cohort in dealt.items()}
    first = first_adapter(bench)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def quiet(arm: str, record: object) -> None: ...

        shared = arms.train_shared(
            bench,
            first,
            sites=list(data),
            collect=collect_inline(bench, data, arms.memory_of(folder, "shared")),
            folder=folder,
            on_round=quiet,
        )
        views = arms.own_views(bench, shared, data, folder=folder)
        local = arms.train_local(bench, first, data, folder=folder, on_round=quiet)
        pooled = arms.train_pooled(bench, first, data, folder=folder, on_round=quiet)
    private = arms.train_private(bench, views, data)
    scores: Scores = {}
    for site, own in data.items():
        for model, adapter in {"base": first, "shared": views[site], "pooled": pooled}.items():
            scores[model, site] = _shared_scores(bench, adapter, own)
        with private_part(bench.net, views[site], private[site], bench.recipe) as temperature:
            scores["private", site] = logits(bench.net, own.test.hidden)[:, 0] / temperature
        for other, theirs in data.items():
            with private_part(bench.net, local.adapters[site], local.private[site], bench.recipe) as temperature:
                scores[f"local {site}", other] = logits(bench.net, theirs.test.hidden)[:, 0] / temperature
    for site, cohort in dealt.items():
        regression = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        train = cohort.split != "test"
        regression.fit(pixels(cohort.images[train]), cohort.labels[train, 0])
        for other, there in dealt.items():
            scores[f"regression {site}", other] = regression.decision_function(pixels(there.images[there.split == "test"]))
    return scores


def _shared_scores(bench: Bench, adapter: Adapter, own: SiteData) -> Array:
    lora.write_adapter(bench.net, adapter, name=lora.SHARED)
    return logits(bench.net, own.test.hidden)[:, 0]


def report(by_seed: list[tuple[Scores, Folds]], cohorts: dict[str, Cohort], bootstraps: int) -> None:
    for how, of in (("merged over folds", merged), ("mean of the folds' own", fold_mean)):
        replicates: dict[tuple[str, str], Array] = {}
        values: dict[tuple[str, str], float] = {}
        for key in by_seed[0][0]:
            cohort = cohorts[key[1]]
            draws = patient_draws(cohort.patients, bootstraps, (0,))
            truth, one = cohort.labels[:, 0], np.ones((1, len(cohort)))
            each = [(scores[key], truth, folds[key[1]]) for scores, folds in by_seed]
            values[key] = float(np.mean([of(*own, one)[0] for own in each]))
            replicates[key] = np.mean([of(*own, draws) for own in each], axis=0)
        print(f"\npneumonia, AUROC {how} [95 % interval over patients], mean over {len(by_seed)} seeds; out of fold")
        show(values, replicates, list(cohorts))


def merged(scores: Array, truth: Array, folds: Array, weights: Array) -> Array:
    return weighted_auroc(scores, truth, weights)


def fold_mean(scores: Array, truth: Array, folds: Array, weights: Array) -> Array:
    """(B,) mean over the folds in which a draw has both classes."""
    each = [weighted_auroc(scores[folds == fold], truth[folds == fold], weights[:, folds == fold]) for fold in np.unique(folds)]
    return np.asarray(np.nanmean(each, axis=0))


def show(values: dict[tuple[str, str], float], replicates: dict[tuple[str, str], Array], sites: list[str]) -> None:
    print(f"{'trained':<26}" + "".join(f"{'at ' + site:<24}" for site in sites))
    for model in sorted({model for model, _ in values}, key=lambda name: (name.split()[0] not in ("regression", "local", "base"), name)):
        cells = []
        for site in sites:
            low, high = percentile_interval(replicates[model, site], 0.95)
            cells.append(f"{values[model, site]:.3f} [{low:.3f}, {high:.3f}]  ")
        print(f"{model:<26}" + "".join(f"{cell:<24}" for cell in cells))
    for site in sites:
        for less in ("base", f"local {site}", "shared", f"regression {site}"):
            difference = replicates["private", site] - replicates[less, site]
            low, high = percentile_interval(difference, 0.95)
            value = values["private", site] - values[less, site]
            worth = "better" if low > 0 else "worse" if high < 0 else "no different"
            print(f"  {site}: private minus {less}: {value:+.3f} [{low:+.3f}, {high:+.3f}]  {worth}")


if __name__ == "__main__":
    main()
