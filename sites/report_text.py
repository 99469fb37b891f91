"""A report in the hospital's own style, findings and impression, and why it was asked for: by rule from the case and the film before.

The same film reads differently in each department, in vocabulary, order and habits of negation: that makes report style a shift of its own.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sites.cases import FINDINGS, Case, Finding, Side, random
from sites.report_words import (
    COMPARED,
    DEVICES,
    IMPRESSION,
    INDICATIONS,
    NEGATIVES,
    NOUNS,
    OPENING,
    ORDER,
    SYMPTOMS,
    UNSIDED,
    WORDS,
    Style,
)

__all__ = ["Style", "indication", "write"]

_HINT = 0.7
"""Chance that what is found has to do with what was complained of."""


def write(case: Case, style: Style, *, before: Case | None = None, lost: bool = False) -> str:
    """The report of one film: findings, then a line with the impression. What is not mentioned is not thereby absent, as in life.

    With the same patient's film `before`, each finding is new, unchanged or resolved; with `lost` the same is said against a film that
    nobody has at hand. Without either nothing is compared.
    """
    if lost and before is not None:
        raise ValueError("a report compares with the film before or with a lost one, not with both")
    rng = random(*case.exposure.seed, 5)
    found = {finding.name: finding for finding in case.findings}
    earlier = imagined(case) if lost else before
    known = {finding.name: finding for finding in earlier.findings} if earlier else {}
    sentences = [OPENING[style].format(view=case.exposure.view)]
    for name in ORDER[style]:
        chosen = _choose(WORDS[style][name], rng)
        if name in found:
            said = _word(chosen, found[name])
            sentences.append(_against(said, found[name], known.get(name), style) if earlier else said)
        elif name in known:
            sentences.append(_gone(known[name], style))
        elif name in NEGATIVES[style]:
            sentences.append(NEGATIVES[style][name])
    if earlier and not found and not known:
        sentences.append(COMPARED[style]["nothing"])
    return f"{' '.join(sentences)}\n{_impression(case, style)}"


def indication(case: Case, style: Style) -> str:
    """Why the film was asked for: by what the patient complains of, which need not have to do with what is found."""
    rng = random(*case.exposure.seed, 9)
    chance, finding, symptom = rng.random(3)
    likely = tuple(INDICATIONS[style])
    if case.findings and chance < _HINT:
        likely = SYMPTOMS[case.findings[int(finding * len(case.findings))].name]
    return INDICATIONS[style][likely[int(symptom * len(likely))]]


def imagined(case: Case) -> Case:
    """A film that the patient might have had before, drawn for this one."""
    rng = random(*case.exposure.seed, 8)
    found = {finding.name: finding for finding in case.findings}
    earlier = []
    for name in FINDINGS:
        there, left = rng.random(2)
        if name in found and there < 0.5:
            earlier.append(found[name])
        elif name not in found and name != "cardiomegaly" and there < 0.1:
            side: Side = "left" if left < 0.5 else "right"
            region = "line" if name == "device" else "lower"
            earlier.append(Finding(name=name, side=side, region=region, severity=0.5, place=(0.0, 0.0, 0.0)))
    return replace(case, findings=tuple(earlier))


def _against(said: str, finding: Finding, known: Finding | None, style: Style) -> str:
    # What is on another side, or in another place, is another one.
    same = known is not None and (known.side, known.region) == (finding.side, finding.region)
    return COMPARED[style]["unchanged" if same else "new"].format(said=said.removesuffix("."))


def _gone(known: Finding, style: Style) -> str:
    what, place = _noun(known, style), WORDS[style][known.name][0].partition(":")[0]
    template = COMPARED[style]["removed" if known.name == "device" else "resolved"]
    return template.format(what=what, What=_capital(what), place=place)


def _impression(case: Case, style: Style) -> str:
    """Devices are no finding to conclude on."""
    line, between, normal = IMPRESSION[style]
    found = {finding.name: finding for finding in case.findings if finding.name != "device"}
    nouns = [_noun(found[name], style) for name in ORDER[style] if name in found]
    return line.format(between.join(nouns) or normal)


def _noun(finding: Finding, style: Style) -> str:
    if finding.name == "device":
        return DEVICES[finding.region]
    noun = NOUNS[style].get(finding.name, finding.name)
    return noun if finding.name in UNSIDED else f"{_side(finding)} {noun}"


def _side(finding: Finding) -> str:
    return "bilateral" if finding.side == "both" else finding.side


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _choose(templates: Sequence[str], rng: np.random.Generator) -> str:
    return templates[int(rng.integers(len(templates)))]


def _word(template: str, finding: Finding) -> str:
    grade = ("mild", "moderate", "marked")[min(int(finding.severity * 3), 2)]
    if finding.name == "cardiomegaly" and template.startswith("The heart"):
        grade = ("mildly", "moderately", "markedly")[min(int(finding.severity * 3), 2)]
    side = _side(finding)
    device = DEVICES.get(finding.region, finding.region)
    zone = {"middle": "mid", "perihilar": "mid"}.get(finding.region, finding.region)
    return template.format(grade=grade, side=side, Side=_capital(side), zone=zone, device=device, Device=_capital(device))
