"""How far the labeler agrees with people: with hand-written hard sentences, and with those who indexed real reports; and how fast it is.

    python -m perf.labeler [--reports ../shared/data/cxr/reports_iu/NLMCXR_reports.tgz] [--hard tests/client/data/hard_sentences.txt]

The reports are the Indiana University collection (Demner-Fushman et al. 2016, JAMIA 23(2)), which is not part of the project. Its people
gave each report MeSH headings, or the word normal; they indexed findings that matter to a search, and did not label. A finding counts as
found where a report says that it is there, and in the second column also where it says that it may be. Intervals are percentile bootstraps
over reports, seed 0. Speed is that of one process on one core, over findings and impression of all reports.
"""

import argparse
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from client.data.labeler import Label, Labeler

HEADINGS = {
    "cardiomegaly": ("Cardiomegaly",),
    "lung_opacity": ("Opacity", "Infiltrate", "Airspace Disease", "Density"),
    "lung_lesion": ("Nodule", "Mass", "Granuloma", "Calcified Granuloma"),
    "edema": ("Pulmonary Edema", "Pulmonary Congestion"),
    "consolidation": ("Consolidation",),
    "pneumonia": ("Pneumonia",),
    "atelectasis": ("Pulmonary Atelectasis",),
    "pneumothorax": ("Pneumothorax", "Hydropneumothorax"),
    "pleural_effusion": ("Pleural Effusion",),
    "fracture": ("Fractures, Bone",),
    "support_devices": (
        "Catheters, Indwelling", "Implanted Medical Device", "Tube, Inserted", "Medical Device", "Surgical Instruments", "Stents",
    ),
}  # fmt: skip
"""Finding -> MeSH headings and words of the collection that stand for it."""
NORMAL, UNINDEXED = "normal", "No Indexing"
STATES: dict[str, Label] = {"+": "positive", "-": "negative", "?": "uncertain"}
DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class Report:
    text: str
    headings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    name: str
    headed: int
    """Reports with the heading."""
    precision: float
    recall: float
    f1: float
    low: float
    high: float
    """Interval of f1."""

    def __str__(self) -> str:
        return (
            f"| {self.name} | {self.headed} | {self.precision:.3f} | {self.recall:.3f} | {self.f1:.3f} [{self.low:.3f}, {self.high:.3f}] |"
        )


@dataclass(frozen=True, kw_only=True)
class Hard:
    """A sentence, and what a person reads in it."""

    kind: str
    text: str
    labels: dict[str, Label]
    sides: dict[str, str]


def reports_in(archive: Path) -> Iterator[Report]:
    with tarfile.open(archive) as files:
        for member in files:
            file = files.extractfile(member) if member.name.endswith(".xml") else None
            if file is not None:
                root = ElementTree.parse(file).getroot()
                said = {one.get("Label"): (one.text or "").strip() for one in root.iter("AbstractText")}
                text = f"{said.get('FINDINGS', '')}\n\n{said.get('IMPRESSION', '')}"
                yield Report(text=text, headings=tuple((one.text or "").split("/")[0] for one in root.iter("major")))


def hard_in(file: Path) -> list[Hard]:
    lines = [line.split(" | ") for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return [_hard(*line) for line in lines]


def _hard(kind: str, text: str, said: str) -> Hard:
    words = [one.split() for one in said.split(", ")] if said != "-" else []
    labels = {finding: STATES[state] for finding, state, *_ in words}
    return Hard(kind=kind, text=text, labels=labels, sides={one[0]: one[2] for one in words if len(one) > 2})


def reads_as(labeler: Labeler, hard: Hard) -> bool:
    """Whether the labeler finds in it what the person does, nothing else, and each side that is said."""
    mentions = labeler.mentions(hard.text)
    said = {finding: label for finding, label in labeler.labels(hard.text).items() if label != "unmentioned" and finding != "no_finding"}
    sides = {finding: {one.side for one in mentions if one.finding == finding and one.side} for finding in hard.sides}
    merged = {finding: "both" if len(of) > 1 else next(iter(of), "") for finding, of in sides.items()}
    return said == hard.labels and merged == hard.sides


def agreements(reports: Sequence[Report], labels: Sequence[dict[str, Label]], *, maybe: bool = False) -> list[Agreement]:
    """`maybe`: what a report calls uncertain counts as found."""
    found: tuple[Label, ...] = ("positive", "uncertain") if maybe else ("positive",)
    rows = [("normal", [one["no_finding"] == "positive" for one in labels], [NORMAL in one.headings for one in reports])]
    for finding, headings in HEADINGS.items():
        truth = [any(heading in headings for heading in one.headings) for one in reports]
        rows.append((finding, [one[finding] in found for one in labels], truth))
    return [_agreement(name, np.array(said), np.array(truth)) for name, said, truth in rows]


def _agreement(name: str, said: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Agreement:
    both = (said & truth).astype(np.int64)
    draws = np.random.default_rng(0).integers(len(said), size=(DRAWS, len(said)))
    drawn = 2 * both[draws].sum(axis=1) / np.maximum(said[draws].sum(axis=1) + truth[draws].sum(axis=1), 1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Agreement(
        name=name,
        headed=int(truth.sum()),
        precision=float(both.sum() / max(said.sum(), 1)),
        recall=float(both.sum() / max(truth.sum(), 1)),
        f1=float(2 * both.sum() / max(said.sum() + truth.sum(), 1)),
        low=float(low),
        high=float(high),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=Path, default=Path("../shared/data/cxr/reports_iu/NLMCXR_reports.tgz"))
    parser.add_argument("--hard", type=Path, default=Path("tests/client/data/hard_sentences.txt"))
    options = parser.parse_args()
    labeler, hard = Labeler(), hard_in(options.hard)
    right = [reads_as(labeler, one) for one in hard]
    for kind in dict.fromkeys(one.kind for one in hard):
        of = [own for own, one in zip(right, hard, strict=True) if one.kind == kind]
        print(f"hard sentences, {kind}: {sum(of)} of {len(of)}")
    print(f"hard sentences: {sum(right)} of {len(right)}, {np.mean(right):.3f}")
    if not options.reports.exists():
        print(f"{options.reports}: not there, so nothing is said of real reports")
        return
    reports = list(reports_in(options.reports))
    begun = time.perf_counter()
    labels = [labeler.labels(one.text) for one in reports]
    print(f"{len(reports)} reports, {len(reports) / (time.perf_counter() - begun):.0f} a second")
    for title, maybe in (("there", False), ("there, or may be", True)):
        print(f"| {title} | reports with the heading | precision | recall | F1 |\n|---|---|---|---|---|")
        print(*agreements(reports, labels, maybe=maybe), sep="\n")
    indexed = [place for place, one in enumerate(reports) if UNINDEXED not in one.headings and one.text.strip()]
    normal = agreements([reports[place] for place in indexed], [labels[place] for place in indexed])[0]
    print(f"of the {len(indexed)} that were indexed and say something:\n{normal}")


if __name__ == "__main__":
    main()
