"""A program for `rainhill reports score --external`: RadGraph, CheXbert, GREEN, RadCliQ, BERTScore and RaTEScore by radeval 2.2.

It runs in radeval's own environment and imports nothing of Rainhill: docs/report-metrics.md. RadEval: Xu et al. 2025, arXiv:2509.18030.
"""

import argparse
import importlib
import json
import math
import os
import sys
from pathlib import Path

CHEXBERT = "chexbert/models--StanfordAIMI--RRG_scorers/snapshots/*/chexbert.pth"
HUB = "huggingface/hub/models--{}/snapshots/*"
NEEDS = {
    "radgraph": ["radgraph/0.1.18/radgraph-xl/weights.th"],
    "f1chexbert": [CHEXBERT, HUB.format("bert-base-uncased")],
    "green": [HUB.format("StanfordAIMI--GREEN-radllama2-7b")],
    "radcliq": ["radgraph/0.1.18/radgraph/weights.th", CHEXBERT, HUB.format("bert-base-uncased"), HUB.format("distilroberta-base")],
    "bertscore": [HUB.format("distilbert-base-uncased")],
    "ratescore": [HUB.format("Angelakeke--RaTE-NER-Deberta"), HUB.format("FremyCompany--BioLORD-2023-C")],
}
"""radeval's name of a metric -> where it looks for weights, in the folder of weights."""
OF_ALL_REPORTS = ("f1chexbert",)
"""Its F1 is of a set of reports: a single one has none."""


def missing(metric: str, weights: Path) -> list[str]:
    return [str(weights / pattern) for pattern in NEEDS[metric] if not any(weights.glob(pattern))]


def measure(metric: str, drafts: list[str], references: list[str]) -> dict[str, object]:
    """radeval's keys, such as `radgraph_partial`; those without an answer with the reason."""
    try:
        radeval = importlib.import_module("radeval")
        # Its copy of RadGraph imports the package by an older spelling.
        sys.modules.setdefault("RadEval", radeval)
        scorer = radeval.RadEval(metrics=[metric], per_sample=metric not in OF_ALL_REPORTS, show_progress=False)
    except Exception as error:
        # Whatever its many libraries raise: no report is in it yet.
        return {metric: {"not_measured": f"cannot be loaded: {type(error).__name__}: {error}"}}
    try:
        found = scorer(refs=references, hyps=drafts)
    except Exception as error:
        # Its text may quote a report.
        return {metric: {"not_measured": f"failed with {type(error).__name__}"}}
    return {name: told(of) for name, of in found.items()}


def told(of: object) -> object:
    if not isinstance(of, list):
        return {"value": float(of)}  # type: ignore[arg-type]
    numbers = [math.nan if one is None else float(one) for one in of]
    without = sum(not math.isfinite(one) for one in numbers)
    return {"not_measured": f"{without} of {len(numbers)} reports have no score"} if without else numbers


def main() -> None:
    parser = argparse.ArgumentParser(description="Reads drafts and references as JSON from standard input, writes metrics as JSON.")
    parser.add_argument("--weights", type=Path, required=True, help="folder with chexbert, radgraph and huggingface")
    parser.add_argument("--metric", choices=NEEDS, action="append", help="only this one, or several; all of them where none is named")
    given = parser.parse_args()
    asked = json.load(sys.stdin)
    # Its libraries look there, and print to standard output.
    weights = given.weights.absolute()
    os.environ |= {"XDG_CACHE_HOME": str(weights), "HF_HOME": str(weights / "huggingface"), "HF_HUB_OFFLINE": "1"}
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"):
        os.environ.pop(name, None)
    answer, _ = os.dup(1), os.dup2(2, 1)
    found: dict[str, object] = {}
    for metric in dict.fromkeys(given.metric or NEEDS):
        gone = missing(metric, weights)
        if gone:
            found[metric] = {"not_measured": f"weights are not at {', '.join(gone)}"}
        else:
            found |= measure(metric, asked["drafts"], asked["references"])
    with os.fdopen(answer, "w", encoding="utf-8") as out:
        json.dump(found, out)


if __name__ == "__main__":
    # This folder's modules are Rainhill's, and none of radeval's imports may find them.
    sys.path.pop(0)
    main()
