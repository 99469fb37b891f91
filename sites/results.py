"""results.json: what a run was worth, hospital by hospital. docs/results.md describes the format."""

import math
import platform
import resource
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

import rainhill
from client.drafting.confidence import GRAVE, is_wrong
from client.drafting.track_record import TrackRecord
from client.privacy import accountant, budget
from client.privacy.accountant import NEIGHBOURS, UNIT
from client.privacy.events import Joined
from client.privacy.ledger import Ledger
from client.tasks import Task
from client.training.metrics import Drafted, Measured, Scored
from client.workbench import Bench
from rainhill.messages import RoundRecord, SiteId
from sites.arms import ARMS, Arm
from sites.bench import SiteData
from sites.consortium import Site
from sites.evaluate import Measurements
from sites.verdict import site_verdict, verdict_text

FORMAT = 1
GAP = 0.01
"""Below this difference between base and pooled there is no gap to speak of, and no share of it that was recovered."""

DRAFTS = 6
"""Test patients of a site whose drafts are shown."""

DIFFERENCES: dict[str, tuple[Arm, Arm]] = {
    "private_minus_base": ("private", "base"),
    "private_minus_local": ("private", "local"),
    "private_minus_shared": ("private", "shared"),
}


def site_results(
    site: Site,
    own: SiteData,
    arms: Mapping[Arm, Scored],
    *,
    task: Task,
    curve: dict[str, Any],
    private: dict[str, Any],
    confidence: float,
    record: TrackRecord | None,
) -> dict[str, Any]:
    measure = task.measure
    entry: dict[str, Any] = {
        "title": site.title,
        "measure": measure,
        "patients": {"train": own.train.count, "val": own.val.count, "test": own.test.count},
        "images": {"train": len(own.train.patients), "val": len(own.val.patients), "test": len(own.test.patients)},
        "prevalence": prevalence(own, task),
        **{arm: scored(arms[arm], confidence) for arm in ARMS},
        "left_out": list(arms["base"].left_out),
        "curve": curve,
    }
    entry["private"] |= private
    if arms["base"].means:
        entry["differences"] = {
            name: interval(arms[more].means[measure].minus(arms[less].means[measure]), confidence)
            for name, (more, less) in DIFFERENCES.items()
        }
        entry["recovered"] = recovered(*(arms[arm].means[measure].value for arm in ("base", "private", "pooled")))
    else:
        entry |= {"differences": {}, "recovered": None}
    entry["verdict"] = site_verdict(entry)
    entry["verdict_text"] = verdict_text(site.title, entry)
    if arms["base"].drafts:
        entry["drafts"] = drafts(own, arms, record)
    if record is not None:
        entry["abstention"] = abstention(record, arms["private"].drafts)
    return entry


def abstention(record: TrackRecord, found: Sequence[Drafted]) -> dict[str, Any]:
    """What the site's own model would keep of its test drafts, by how sure it was, at the threshold of the validation patients; and what it
    is blind to, by the same patients.
    """
    threshold = record.threshold
    kept = [one for one in found if not threshold.abstains(one.sure)]
    return {
        "named": {finding: {"there": of.there, "named": of.named} for finding, of in record.named.items()},
        "blind": sorted(record.blind),
        "validation": {
            "drafts": threshold.of,
            "kept": threshold.kept,
            "wrong": threshold.wrong,
            "most_wrong": number(threshold.most_wrong),
        },
        "test": {
            "drafts": len(found),
            "wrong": _wrong(found),
            "wrong_but_for_blind": _wrong(found, but=record.blind),
            "cut": sum(not np.isfinite(one.sure) for one in found),
            "kept": len(kept),
            "kept_wrong": _wrong(kept),
            "kept_wrong_but_for_blind": _wrong(kept, but=record.blind),
        },
    }


def _wrong(drafts: Sequence[Drafted], *, but: Collection[str] = ()) -> int:
    return sum(is_wrong(one.said, one.wanted, kinds=GRAVE, but=but) for one in drafts)


def drafts(own: SiteData, arms: Mapping[Arm, Scored], record: TrackRecord | None) -> list[dict[str, Any]]:
    """A few test patients' reports beside what each model wrote for the same film, and whether the site's own abstains from its."""
    films = own.cohort.part("test")
    rows = [row for row, text in enumerate(films.reports) if text.strip()]
    first = {int(films.patients[row]): place for place, row in reversed(list(enumerate(rows)))}
    shown = sorted(first.values())[:DRAFTS]
    return [
        {
            "film": rows[place],
            "indication": films.indications[rows[place]],
            "prior": films.priors[rows[place]],
            "reference": films.reports[rows[place]],
            **{arm: arms[arm].drafts[place].text for arm in ARMS},
            "abstained": record is not None and record.threshold.abstains(arms["private"].drafts[place].sure),
        }
        for place in shown
    ]


def prevalence(own: SiteData, task: Task) -> dict[str, float | None]:
    """Share of the labelled test images that show each finding."""
    truth = task.truth(own.test)
    return {
        finding: number(float(np.nanmean(truth[:, column]))) if np.isfinite(truth[:, column]).any() else None
        for column, finding in enumerate(task.names)
    }


def scored(one: Scored, confidence: float) -> dict[str, Any]:
    return {metric: interval(measured, confidence) for metric, measured in one.means.items()} | {
        "findings": {finding: {metric: interval(m, confidence) for metric, m in values.items()} for finding, values in one.findings.items()}
    }


def interval(measured: Measured, confidence: float) -> dict[str, float | None]:
    low, high = measured.interval(confidence)
    return {"value": number(measured.value), "low": number(low), "high": number(high)}


def recovered(base: float, private: float, pooled: float) -> float | None:
    """Share of the gap from the unadapted base to the pooled upper bound that the private arm closed."""
    return number((private - base) / (pooled - base)) if pooled - base > GAP else None


def consortium(sites: Mapping[SiteId, Mapping[str, Any]]) -> dict[str, float | None]:
    """Unweighted means over sites. Scores are never pooled: pooled scores rank hospitals, not patients."""
    means: dict[str, float | None] = {}
    for arm in ARMS:
        told = [site[arm][site["measure"]]["value"] for site in sites.values() if site["measure"] in site[arm]]
        values = [value for value in told if value is not None]
        means[arm] = number(float(np.mean(values))) if values else None
    base, private, pooled = means["base"], means["private"], means["pooled"]
    shares = base is not None and private is not None and pooled is not None
    return means | {"recovered": recovered(base, private, pooled) if shares else None}  # type: ignore[arg-type]


def curve(history: tuple[RoundRecord, ...], site: SiteId, last: Mapping[str, float]) -> list[dict[str, float]]:
    """Validation numbers before each round, and after the last as before one that never came."""
    points = [{"round": record.round, **record.evaluations[site]} for record in history if site in record.evaluations]
    return [*points, {"round": history[-1].round + 1, **last}] if history else points


def cross_site(found: Measurements, sites: list[SiteId], measure: str) -> dict[str, Any]:
    return {
        "rows": list(found.cross_site),
        "columns": sites,
        measure: [[number(row.get(site, float("nan"))) for site in sites] for row in found.cross_site.values()],
    }


def crossing(bench: Bench, history: tuple[RoundRecord, ...]) -> dict[str, float]:
    """Bytes both ways, per site and round, against sending the whole model both ways."""
    each = [record.down_bytes[site] + record.up_bytes[site] for record in history for site in record.answered]
    mean = float(np.mean(each)) if each else 0.0
    full = 4 * base_parameters(bench)
    return {"bytes_per_site_round": mean, "bytes_full_model": full, "bytes_ratio": 2 * full / mean if mean else math.inf}


def privacy(bench: Bench, ledgers: Mapping[SiteId, Ledger]) -> dict[str, Any] | None:
    """What was promised to every patient, and what each site's ledger says that was spent; None where nothing was promised."""
    asked = bench.recipe.privacy
    if asked is None:
        return None
    return {
        "epsilon": asked.epsilon,
        "delta": asked.delta,
        "unit": UNIT,
        "neighbours": NEIGHBOURS,
        "max_grad_norm": asked.max_grad_norm,
        "images_per_patient": asked.images_per_patient,
        "noise": "simulated noise: drawn from the seed, so that it protects nobody",
        "sites": {site: _spent(ledger, bench.recipe.name, asked.delta) for site, ledger in ledgers.items()},
    }


def _spent(ledger: Ledger, run: str, delta: float) -> dict[str, Any]:
    events = ledger.events()
    joined = next((event for event in events if isinstance(event, Joined)), None)
    if joined is None:
        return {"epsilon": 0.0, "joined": False}
    history = budget.run_history(ledger, run)
    return {
        "joined": True,
        "epsilon": number(accountant.epsilon(history, delta)),
        "epsilon_rdp": number(accountant.cross_check(history, delta)),
        "noise_multiplier": number(joined.noise_multiplier),
        "sample_rate": number(joined.sample_rate),
        "steps": sum(history.values()),
        "patients": joined.patients,
    }


def base_parameters(bench: Bench) -> int:
    return sum(parameter.numel() for name, parameter in bench.net.named_parameters() if ".lora_" not in name)


def software() -> dict[str, str]:
    return {
        "rainhill": rainhill.__version__,
        **{package: metadata.version(package) for package in ("torch", "peft", "transformers", "flwr")},
        "python": platform.python_version(),
    }


def peak_rss_mb() -> float:
    """Of this process and the largest of its ended children, MB of 10^6 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    used = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return round(max(used) * unit / 1e6, 1)


def number(value: float) -> float | None:
    """JSON has no NaN: what cannot be told is null."""
    return round(value, 6) if math.isfinite(value) else None
