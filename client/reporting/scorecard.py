"""A column of drafts against the reports that were signed, by all measures, and as a document with intervals and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.data.labeler import Labeler
from client.data.manifest import Problem, read_table, refuse
from client.reporting import wording
from client.reporting.clinical import Clinical, clinical
from client.reporting.external import Answer, ask
from client.reporting.paired import difference
from client.reporting.reading import reading
from client.training.metrics import Measured
from rainhill.errors import DataError
from rainhill.recipe import EvaluationSection
from rainhill.text import did_you_mean, shown


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Drafts of one or two models for the same examinations."""

    references: tuple[str, ...]
    drafts: Mapping[str, tuple[str, ...]]
    """By column."""
    patients: NDArray[np.int64]
    """(N,) numbers; the table's own are not kept."""


@dataclass(frozen=True, kw_only=True)
class Scorecard:
    clinical: Clinical
    wording: Mapping[str, Measured]
    external: Mapping[str, Measured]
    not_measured: Mapping[str, str]
    """Metric or program -> why."""

    @property
    def means(self) -> dict[str, Measured]:
        return {**self.clinical.means, **self.wording, **self.external}

    def without_draws(self) -> "Scorecard":
        of = self.clinical
        findings = {finding: _values(each) for finding, each in of.findings.items()}
        said = replace(of, means=_values(of.means), findings=findings)
        return replace(self, clinical=said, wording=_values(self.wording), external=_values(self.external))


def _values(measured: Mapping[str, Measured]) -> dict[str, Measured]:
    return {name: Measured(value=of.value, replicates=np.empty(0)) for name, of in measured.items()}


def read_pairs(path: Path, *, drafts: Sequence[str], reference: str, patient: str) -> Pairs:
    """Raises one DataError that lists what is missing: columns, or cells by their rows. A draft may be empty. No cell is shown."""
    table = read_table(path)
    wanted = [*drafts, reference, patient]
    absent = [name for name in dict.fromkeys(wanted) if name not in table.columns]
    # A header line that is none may hold a report.
    there = ", ".join(shown(name) for name in table.columns)
    refuse(
        path, [Problem(row=1, column=name, what=f"no such column{did_you_mean(name, table.columns)}; there are {there}") for name in absent]
    )
    empty = [
        Problem(row=number, column=name, what="empty")
        for number, cells in table.rows
        for name in dict.fromkeys((reference, patient))
        if not cells[name]
    ]
    refuse(path, [*table.problems, *empty])
    if not table.rows:
        raise DataError(f"{path}: has no rows, expected a draft and a reference in each")
    _, patients = np.unique([cells[patient] for _, cells in table.rows], return_inverse=True)
    return Pairs(
        references=tuple(cells[reference] for _, cells in table.rows),
        drafts={name: tuple(cells[name] for _, cells in table.rows) for name in drafts},
        patients=patients.astype(np.int64),
    )


def scorecard(
    labeler: Labeler, pairs: Pairs, column: str, answers: Sequence[Answer], *, section: EvaluationSection, seed: int
) -> Scorecard:
    """`answers` are of programs that were asked about the same drafts."""
    drafts, key = pairs.drafts[column], (seed,)
    said, signed = ([reading(labeler, text) for text in texts] for texts in (drafts, pairs.references))
    external: dict[str, Measured] = {}
    for answer in answers:
        found = answer.measured(pairs.patients, section=section, seed=key)
        twice = sorted(found.keys() & external.keys())
        if twice:
            raise DataError(f"two programs measure {twice[0]}: ask one of them")
        external |= found
    return Scorecard(
        clinical=clinical(said, signed, pairs.patients, section=section, seed=key),
        wording=wording.measured(drafts, pairs.references, pairs.patients, section=section, seed=key),
        external=external,
        not_measured={name: why for answer in answers for name, why in answer.not_measured.items()},
    )


def answers_of(commands: Sequence[Sequence[str]], pairs: Pairs, column: str, *, timeout_s: float) -> list[Answer]:
    return [ask(command, pairs.drafts[column], pairs.references, timeout_s=timeout_s) for command in commands]


def document(cards: Mapping[str, Scorecard], pairs: Pairs, *, section: EvaluationSection, seed: int) -> dict[str, Any]:
    """For JSON: null is "not measured". Of two columns the differences are the first minus the second, of what both have.

    Of a single patient there is no interval: whoever is drawn, it is the same.
    """
    confidence, patients = section.confidence, int(pairs.patients.max()) + 1
    if patients == 1:
        cards = {name: card.without_draws() for name, card in cards.items()}
    columns = {
        name: {
            "means": _intervals(card.clinical.means, confidence),
            "errors": asdict(card.clinical.errors),
            "findings": {finding: _intervals(of, confidence) for finding, of in card.clinical.findings.items()},
            "left_out": list(card.clinical.left_out),
            "wording": _intervals(card.wording, confidence),
            "external": _intervals(card.external, confidence),
            "not_measured": dict(card.not_measured),
        }
        for name, card in cards.items()
    }
    return {
        "reports": len(pairs.references),
        "patients": patients,
        "confidence": confidence,
        "bootstraps": section.bootstraps,
        "seed": seed,
        "drafts": columns,
        "differences": _differences(*cards.values(), confidence=confidence) if len(cards) == 2 else {},
    }


def _differences(one: Scorecard, other: Scorecard, *, confidence: float) -> dict[str, dict[str, float | None]]:
    first, second = one.means, other.means
    # The same references: the same findings count.
    for finding, of in one.clinical.findings.items():
        first[f"{finding}.f1"], second[f"{finding}.f1"] = of["f1"], other.clinical.findings[finding]["f1"]
    both = {name: asdict(difference(of, second[name], confidence=confidence)) for name, of in first.items() if name in second}
    return {name: {key: _finite(value) for key, value in of.items()} for name, of in both.items()}


def _intervals(measured: Mapping[str, Measured], confidence: float) -> dict[str, dict[str, float | None]]:
    found = {}
    for name, of in measured.items():
        low, high = of.interval(confidence)
        found[name] = {"value": _finite(of.value), "low": _finite(low), "high": _finite(high)}
    return found


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
