"""The page a run leaves behind: whole, self-contained, readable, honest about what is missing."""

import math

import numpy as np

from sites.plots import ARMS, Film
from sites.verdict import verdict, verdict_text

TITLES = {
    "liverpool": "Liverpool",
    "manchester": "Manchester",
    "alder_hey": "Alder Hey children's hospital",
    "bolton_icu": "Bolton intensive care",
    "ormskirk": "Ormskirk district hospital",
    "wigan": "Wigan, old detector",
}
FINDINGS = ["cardiomegaly", "effusion", "pneumothorax", "consolidation", "atelectasis", "nodule", "oedema", "device"]
LEVELS = {  # base, local, shared, private, pooled
    "liverpool": (0.848, 0.866, 0.871, 0.879, 0.884),
    "manchester": (0.772, 0.838, 0.846, 0.861, 0.869),
    "alder_hey": (0.741, 0.812, 0.803, 0.846, 0.858),
    "bolton_icu": (0.764, 0.829, 0.838, 0.851, 0.857),
    "ormskirk": (0.803, 0.798, 0.851, 0.856, 0.864),
    "wigan": (0.861, 0.869, 0.864, 0.866, 0.868),
}
PATIENTS = {"liverpool": 900, "manchester": 760, "alder_hey": 420, "bolton_icu": 380, "ormskirk": 150, "wigan": 240}


def between(value, half):
    return {"value": round(value, 4), "low": round(value - half, 4), "high": round(min(value + half * 0.9, 0.999), 4)}


def fake_arm(level, half, rng, left_out):
    findings = {}
    for finding in FINDINGS:
        at = None if finding in left_out else float(np.clip(level + rng.normal(0, 0.035), 0.4, 0.99))
        measured = {"value": None, "low": None, "high": None} if at is None else between(at, half * 1.8)
        findings[finding] = dict.fromkeys(("auroc", "auprc", "brier", "ece"), measured)
    return {
        "auroc": between(level, half),
        "auprc": between(level - 0.3, half),
        "brier": between(0.11, 0.01),
        "ece": between(0.04, 0.01),
        "findings": findings,
    }


def fake_site(name, title, levels, patients, rounds, rng):
    half = 0.55 / math.sqrt(patients)
    left_out = ["nodule"] if name == "ormskirk" else []
    arms = {each: fake_arm(level, half, rng, left_out) for each, level in zip(ARMS, levels, strict=True)}
    base, local, shared, private, pooled = levels
    curve = lambda end, pace: [  # noqa: E731
        {"round": k + 1, "auroc": round(end - (end - base) * math.exp(-pace * k) + float(rng.normal(0, 0.004)), 4), "loss": 0.5}
        for k in range(rounds + 1)
    ]
    site = {
        "title": title,
        "patients": {"train": int(patients * 0.6), "val": int(patients * 0.15), "test": int(patients * 0.25)},
        "images": {"train": patients, "val": patients // 4, "test": patients // 2},
        "prevalence": {finding: round(float(rng.uniform(0.02, 0.3)), 3) for finding in FINDINGS},
        **arms,
        "left_out": left_out,
        "differences": {
            f"private_minus_{other}": between(private - level, half * 0.5)
            for other, level in (("base", base), ("local", local), ("shared", shared))
        },
        "recovered": round((private - base) / (pooled - base), 3) if pooled - base > 0.01 else None,
        "curve": {"local": curve(local, 0.5), "shared": curve(shared, 0.6)},
    }
    site["private"] |= {"steps": 40, "temperature": 1.13}
    site["verdict"] = verdict(site["differences"]["private_minus_base"])
    site["verdict_text"] = verdict_text(title, site)
    return site


def fake_results(levels=LEVELS, titles=TITLES, patients=PATIENTS, rounds=8, seed=0):
    rng = np.random.default_rng(seed)
    names = list(levels)
    sites = {name: fake_site(name, titles[name], levels[name], patients[name], rounds, rng) for name in names}
    means = {each: round(float(np.mean([site[each]["auroc"]["value"] for site in sites.values()])), 4) for each in ARMS}
    rows = ["base", *names, "shared", "pooled"]
    matrix = [
        [
            levels[c][0]
            if r == "base"
            else levels[c][2]
            if r == "shared"
            else levels[c][4]
            if r == "pooled"
            else levels[c][1]
            if r == c
            else round(levels[c][1] - float(rng.uniform(0.02, 0.09)), 4)
            for c in names
        ]
        for r in rows
    ]
    refused = {3: {names[-1]: "budget spent: epsilon 2.0 of 2.0"}} if len(names) > 1 else {}
    log = []
    for k in range(1, rounds + 1):
        answered = [name for name in names if name not in refused.get(k, {})]
        log.append(
            {
                "round": k,
                "asked": names,
                "answered": answered,
                "refused": refused.get(k, {}),
                "seconds": 3.1 + 0.1 * k,
                "down_bytes": dict.fromkeys(names, 295_000),
                "up_bytes": dict.fromkeys(answered, 295_000),
                "log": {"energy_kept": 0.97 - 0.002 * k},
            }
        )
    return {
        "format": 1,
        "name": "demo",
        "title": "Six phantom hospitals adapt one small model",
        "recipe_sha256": "3f" * 32,
        "seed": 0,
        "engine": "inline",
        "task": "findings",
        "strategy": "flexlora",
        "outputs": FINDINGS,
        "base": {"model": "vit", "weights": "embedded:thorax_tiny", "sha256": "9a" * 32, "parameters": 1_200_000},
        "lora": {"rank": 8, "modules": 18, "parameters": 73_728, "last_blocks": 3},
        "source": {
            "site": "halifax",
            "title": "Halifax",
            "auroc": between(0.882, 0.012),
            "findings": {finding: {"auroc": between(0.88, 0.02)} for finding in FINDINGS},
        },
        "sites": sites,
        "cross_site": {"rows": rows, "columns": names, "auroc": matrix},
        "consortium": means | {"recovered": round((means["private"] - means["base"]) / (means["pooled"] - means["base"]), 3)},
        "rounds": log,
        "bytes_per_site_round": 590_000.0,
        "bytes_full_model": 4_800_000,
        "bytes_ratio": 2 * 4_800_000 / 590_000,
        "privacy": None,
        "seconds": 88.2,
        "seconds_by_phase": {"data": 12.1, "local": 21.0, "shared": 26.4, "pooled": 14.0, "private": 6.1, "evaluation": 8.6},
        "peak_rss_mb": 1400,
        "adapters": {"shared": "0c" * 32} | {f"local/{name}": f"{index:02x}" * 32 for index, name in enumerate(names)},
        "software": {"rainhill": "0.1.0", "torch": "2.13.0", "flwr": "1.41.0", "python": "3.11.7"},
    }


def fake_films(names, size=48, seed=0):
    rng = np.random.default_rng(seed)
    return {name: [Film(image=rng.integers(0, 255, (size, size), dtype=np.uint8), caption="PA, 54 y") for _ in range(4)] for name in names}
