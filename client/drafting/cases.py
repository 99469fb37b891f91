"""What a model is asked of each film of a site, and what it is to answer: prompts, and the texts that it is trained on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from client.data.cohort import Cohort
from client.data.labeler import Label, Labeler
from client.drafting.counterfactual import Pair, counterfactual
from client.drafting.expansion import Expander
from client.drafting.prompt import Prompt, defused
from client.drafting.retrieval import Index, Neighbour
from client.drafting.scrub import scrub

_LABELS: Mapping[float, Label] = {1.0: "positive", 0.0: "negative"}

Finds = Callable[[Cohort], Sequence[tuple[str, ...]]]
"""What a classifier finds on each film."""
Sees = Callable[[Cohort], NDArray[np.float32]]
"""(N, d) of N films: those that look alike are near each other."""


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How the texts of one task are made."""

    labeler: Labeler
    language: str
    with_indication: bool
    with_prior: bool
    scrubs: bool
    """Comparisons out of training texts without a prior in their prompt."""
    expands: Mapping[str, str] | None
    """Label column -> finding of the labeler, where films without a report get one from their labels."""
    counterfactual: float = 0.0
    """Share of what training reports call unchanged that is made new."""
    finds: Finds | None = None
    sees: Sees | None = None
    similar: int = 0
    """Reports of films that look alike, in a prompt."""


def to_train_on(cohort: Cohort, wording: Wording) -> Cohort:
    """Training films, some of whose findings were not on the film before as far as its report goes."""
    if not (wording.with_prior and wording.counterfactual):
        return cohort
    pairs = [
        counterfactual(Pair(prior=prior, report=report), wording.labeler, share=wording.counterfactual, language=wording.language)
        for prior, report in zip(cohort.priors, cohort.reports, strict=True)
    ]
    return replace(cohort, priors=tuple(one.prior for one in pairs), reports=tuple(one.report for one in pairs))


def prompts(cohort: Cohort, among: Cohort, wording: Wording) -> list[str]:
    """Of each film; similar ones are looked for `among` the site's training films, of other patients."""
    found = wording.finds(cohort) if wording.finds else [None] * len(cohort)
    alike = _alike(cohort, among, wording.sees, wording.similar) if wording.sees else [()] * len(cohort)
    return [
        Prompt(
            indication=indication if wording.with_indication else "",
            prior=prior if wording.with_prior else "",
            findings=findings,
            neighbours=neighbours,
        ).text()
        for indication, prior, findings, neighbours in zip(cohort.indications, cohort.priors, found, alike, strict=True)
    ]


def answers(cohort: Cohort, among: Cohort, wording: Wording) -> list[str]:
    """Of each film; empty where there is neither a report nor, where they are to serve, a label."""
    texts = []
    expander = _expander(among, wording) if wording.expands is not None else None
    for place, (report, prior) in enumerate(zip(cohort.reports, cohort.priors, strict=True)):
        if report.strip():
            known = wording.with_prior and defused(prior)
            texts.append(scrub(report, wording.labeler, language=wording.language) if wording.scrubs and not known else report)
        else:
            texts.append(_from_labels(cohort, place, expander, wording.expands) if expander and wording.expands is not None else "")
    return [text.strip() for text in texts]


def _alike(cohort: Cohort, among: Cohort, sees: Sees, k: int) -> list[tuple[Neighbour, ...]]:
    told = np.flatnonzero([bool(report.strip()) for report in among.reports])
    spoken = [among.reports[place] for place in told]
    owners = [str(among.pseudonym[place]) for place in told]
    vectors = sees(among)[told]
    # Cited by its place among the site's training films, which tells nobody's name.
    index = Index.of(vectors, spoken, [f"film {place}" for place in told], patients=owners, cohort=among.fingerprint())
    return [index.nearest(vector, k, without=str(owner)) for vector, owner in zip(sees(cohort), cohort.pseudonym, strict=True)]


def _expander(among: Cohort, wording: Wording) -> Expander:
    told = [place for place, report in enumerate(among.reports) if report.strip()]
    scrubbed = [scrub(among.reports[place], wording.labeler, language=wording.language) for place in told]
    return Expander.of(scrubbed, wording.labeler, patients=among.patients[told], language=wording.language)


def _from_labels(cohort: Cohort, place: int, expander: Expander, called: Mapping[str, str]) -> str:
    labels = {
        called[column]: _LABELS[float(value)]
        for column, value in zip(cohort.findings, cohort.labels[place], strict=True)
        if column in called and np.isfinite(value)
    }
    # A film has the same text each time, whatever it is read with.
    return expander.write(labels, seed=(place,)) if labels else ""
