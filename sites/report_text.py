"""A findings text in the hospital's own style: vocabulary, order and habits of negation, by rule from the case.

The same film reads differently in each department: that is what makes report style a shift of its own.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from sites.cases import FINDINGS, Case, Finding, random

Style = Literal["prose", "telegraphic", "structured", "bedside", "paediatric"]

_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "prose": {
        "cardiomegaly": ("The heart is {grade} enlarged.", "There is {grade} cardiomegaly."),
        "effusion": ("There is a {grade} {side} pleural effusion.", "A {grade} {side} pleural effusion is seen."),
        "pneumothorax": ("There is a {grade} {side} apical pneumothorax.",),
        "consolidation": (
            "There is airspace consolidation in the {side} {zone} zone.",
            "Air space opacification is seen in the {side} {zone} zone.",
        ),
        "atelectasis": ("Linear atelectasis is noted at the {side} base.", "There is plate atelectasis in the {side} {zone} zone."),
        "nodule": ("A well defined nodule projects over the {side} {zone} zone.",),
        "oedema": ("Appearances are those of {grade} pulmonary oedema.", "There is {grade} interstitial and alveolar oedema."),
        "device": ("{Device} in situ.", "{Device} noted."),
    },
    "telegraphic": {
        "cardiomegaly": ("Cardiomegaly, {grade}.", "CTR increased."),
        "effusion": ("{Side} effusion, {grade}.",),
        "pneumothorax": ("{Side} PTX, {grade}.",),
        "consolidation": ("{Side} {zone} zone consolidation.",),
        "atelectasis": ("{Side} basal collapse.", "Band atelectasis {side}."),
        "nodule": ("Nodule {side} {zone} zone, ?CT.",),
        "oedema": ("LVF.", "Oedema, {grade}."),
        "device": ("{Device} seen.",),
    },
    "structured": {
        "cardiomegaly": ("HEART: cardiothoracic ratio above 0.5, {grade} enlargement.",),
        "effusion": ("PLEURA: {side} effusion ({grade}).",),
        "pneumothorax": ("PLEURA: {side} pneumothorax ({grade}).",),
        "consolidation": ("LUNGS: consolidation, {side} {zone} zone.",),
        "atelectasis": ("LUNGS: subsegmental atelectasis, {side} {zone} zone.",),
        "nodule": ("LUNGS: solitary nodule, {side} {zone} zone.",),
        "oedema": ("LUNGS: pulmonary oedema ({grade}).",),
        "device": ("DEVICES: {device}.",),
    },
    "bedside": {
        "cardiomegaly": ("Heart appears enlarged allowing for AP projection.",),
        "effusion": ("Hazy veiling of the {side} hemithorax in keeping with layering effusion.",),
        "pneumothorax": ("Deep sulcus sign {side}, suspicious for supine pneumothorax.",),
        "consolidation": ("Patchy {side} {zone} zone airspace shadowing.",),
        "atelectasis": ("Volume loss at the {side} base.",),
        "nodule": ("Rounded density {side} {zone} zone.",),
        "oedema": ("Bilateral perihilar shadowing consistent with {grade} fluid overload.",),
        "device": ("{Device} position satisfactory.",),
    },
    "paediatric": {
        "cardiomegaly": ("Heart size is increased for age.",),
        "effusion": ("{Side} parapneumonic effusion, {grade}.",),
        "pneumothorax": ("{Side} air leak.",),
        "consolidation": ("{Side} {zone} zone round pneumonia.", "Focal consolidation {side} {zone} zone."),
        "atelectasis": ("Mucus plugging with {side} atelectasis.",),
        "nodule": ("Small round opacity {side} {zone} zone.",),
        "oedema": ("Plethoric lungs with {grade} oedema.",),
        "device": ("{Device} noted.",),
    },
}
_NEGATIVES: dict[str, dict[str, str]] = {
    "prose": {
        "cardiomegaly": "The heart is not enlarged.",
        "effusion": "No pleural effusion is seen.",
        "pneumothorax": "There is no pneumothorax.",
        "consolidation": "The lungs are clear of consolidation.",
    },
    "telegraphic": {"consolidation": "No focal consolidation.", "cardiomegaly": "Heart N."},
    "structured": {
        "cardiomegaly": "HEART: cardiothoracic ratio within normal limits.",
        "effusion": "PLEURA: no effusion.",
        "pneumothorax": "PLEURA: no pneumothorax.",
        "consolidation": "LUNGS: no consolidation.",
        "oedema": "LUNGS: no oedema.",
        "device": "DEVICES: none.",
    },
    "bedside": {"pneumothorax": "No pneumothorax on this supine film."},
    "paediatric": {"consolidation": "No focal collapse or consolidation.", "cardiomegaly": "Cardiothymic contour is normal."},
}
_ORDER: dict[str, tuple[str, ...]] = {
    "prose": FINDINGS,
    "telegraphic": ("consolidation", "effusion", "pneumothorax", "oedema", "atelectasis", "nodule", "cardiomegaly", "device"),
    "structured": ("device", "cardiomegaly", "consolidation", "atelectasis", "nodule", "oedema", "effusion", "pneumothorax"),
    "bedside": ("device", "pneumothorax", "oedema", "effusion", "consolidation", "atelectasis", "cardiomegaly", "nodule"),
    "paediatric": ("cardiomegaly", "consolidation", "atelectasis", "effusion", "pneumothorax", "nodule", "oedema", "device"),
}
_OPENING = {
    "prose": "Chest radiograph, {view} projection.",
    "telegraphic": "CXR {view}.",
    "structured": "TECHNIQUE: {view} chest.",
    "bedside": "Portable {view} film.",
    "paediatric": "Chest {view}.",
}
_DEVICES = {"line": "central venous catheter", "tube": "endotracheal tube", "pacemaker": "pacemaker"}


def write(case: Case, style: Style) -> str:
    """The report of one film; what is not mentioned is not thereby absent, as in life."""
    rng = random(*case.exposure.seed, 5)
    found = {finding.name: finding for finding in case.findings}
    sentences = [_OPENING[style].format(view=case.exposure.view)]
    for name in _ORDER[style]:
        chosen = _choose(_WORDS[style][name], rng)
        if name in found:
            sentences.append(_word(chosen, found[name]))
        elif name in _NEGATIVES[style]:
            sentences.append(_NEGATIVES[style][name])
    return " ".join(sentences)


def _choose(templates: Sequence[str], rng: np.random.Generator) -> str:
    return templates[int(rng.integers(len(templates)))]


def _word(template: str, finding: Finding) -> str:
    grade = ("mild", "moderate", "marked")[min(int(finding.severity * 3), 2)]
    if finding.name == "cardiomegaly" and template.startswith("The heart"):
        grade = ("mildly", "moderately", "markedly")[min(int(finding.severity * 3), 2)]
    side = "bilateral" if finding.side == "both" else finding.side
    device = _DEVICES.get(finding.region, finding.region)
    zone = {"middle": "mid", "perihilar": "mid"}.get(finding.region, finding.region)
    return template.format(grade=grade, side=side, Side=side.capitalize(), zone=zone, device=device, Device=device.capitalize())
