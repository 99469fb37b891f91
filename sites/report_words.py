"""How five departments speak of a chest film: vocabulary, order and habits of negation, as tables by style."""

from typing import Literal

from sites.cases import FINDINGS

Style = Literal["prose", "telegraphic", "structured", "bedside", "paediatric"]

WORDS: dict[Style, dict[str, tuple[str, ...]]] = {
    "prose": {
        "cardiomegaly": ("The heart is {grade} enlarged.", "There is {grade} cardiomegaly."),
        "effusion": ("There is a {grade} {side} pleural effusion.", "A {grade} {side} pleural effusion is seen."),
        "pneumothorax": ("There is a {grade} {side} apical pneumothorax.",),
        "consolidation": (
            "There is airspace consolidation in the {side} {zone} zone.",
            "Airspace consolidation is seen in the {side} {zone} zone.",
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
NEGATIVES: dict[Style, dict[str, str]] = {
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
    "paediatric": {
        "consolidation": "No focal consolidation.",
        "atelectasis": "No collapse.",
        "cardiomegaly": "Cardiothymic contour is normal.",
    },
}
ORDER: dict[Style, tuple[str, ...]] = {
    "prose": FINDINGS,
    "telegraphic": ("consolidation", "effusion", "pneumothorax", "oedema", "atelectasis", "nodule", "cardiomegaly", "device"),
    "structured": ("device", "cardiomegaly", "consolidation", "atelectasis", "nodule", "oedema", "effusion", "pneumothorax"),
    "bedside": ("device", "pneumothorax", "oedema", "effusion", "consolidation", "atelectasis", "cardiomegaly", "nodule"),
    "paediatric": ("cardiomegaly", "consolidation", "atelectasis", "effusion", "pneumothorax", "nodule", "oedema", "device"),
}
OPENING: dict[Style, str] = {
    "prose": "Chest radiograph, {view} projection.",
    "telegraphic": "CXR {view}.",
    "structured": "TECHNIQUE: {view} chest.",
    "bedside": "Portable {view} film.",
    "paediatric": "Chest {view}.",
}
DEVICES = {"line": "central venous catheter", "tube": "endotracheal tube", "pacemaker": "pacemaker"}
NOUNS: dict[Style, dict[str, str]] = {
    "prose": {"effusion": "pleural effusion", "oedema": "pulmonary oedema"},
    "telegraphic": {"pneumothorax": "PTX", "atelectasis": "collapse"},
    "structured": {"cardiomegaly": "cardiac enlargement", "oedema": "pulmonary oedema"},
    "bedside": {
        "cardiomegaly": "enlarged heart",
        "effusion": "layering effusion",
        "atelectasis": "volume loss",
        "nodule": "rounded density",
        "oedema": "fluid overload",
    },
    "paediatric": {"cardiomegaly": "increased heart size", "pneumothorax": "air leak", "nodule": "round opacity"},
}
"""What an impression calls a finding where that is not its own name."""
UNSIDED = ("cardiomegaly", "oedema", "device")
IMPRESSION: dict[Style, tuple[str, str, str]] = {
    "prose": ("Impression: {}.", ", ", "No acute abnormality"),
    "telegraphic": ("IMP: {}.", ", ", "NAD"),
    "structured": ("IMPRESSION: {}.", "; ", "no significant abnormality"),
    "bedside": ("Summary: {}.", ", ", "No acute abnormality on this film"),
    "paediatric": ("Opinion: {}.", ", ", "Normal for age"),
}
"""The line, what stands between two findings, and what is said where there is none."""
COMPARED: dict[Style, dict[str, str]] = {
    "prose": {
        "new": "{said}. New since the previous film.",
        "unchanged": "{said}. Unchanged.",
        "resolved": "The previous {what} has resolved.",
        "removed": "The previous {what} has been removed.",
        "nothing": "No change since the previous film.",
    },
    "telegraphic": {
        "new": "{said}. New.",
        "unchanged": "{said}. Unchanged.",
        "resolved": "{What} resolved.",
        "removed": "{What} removed.",
        "nothing": "No change.",
    },
    "structured": {
        "new": "{said}, new.",
        "unchanged": "{said}, unchanged.",
        "resolved": "{place}: {what} resolved.",
        "removed": "{place}: removed.",
        "nothing": "COMPARISON: no change.",
    },
    "bedside": {
        "new": "{said}. New since previous film.",
        "unchanged": "{said}. Stable.",
        "resolved": "{What} has cleared.",
        "removed": "{What} has been removed.",
        "nothing": "No change since previous film.",
    },
    "paediatric": {
        "new": "{said}. New since last film.",
        "unchanged": "{said}. Persists.",
        "resolved": "{What} no longer seen.",
        "removed": "{What} no longer seen.",
        "nothing": "No change since last film.",
    },
}
SYMPTOMS = {
    "cardiomegaly": ("breath", "ankles", "routine"),
    "effusion": ("breath", "pain", "weight"),
    "pneumothorax": ("breath", "pain", "procedure"),
    "consolidation": ("fever", "breath"),
    "atelectasis": ("fever", "surgery"),
    "nodule": ("weight", "routine"),
    "oedema": ("breath", "ankles"),
    "device": ("procedure", "surgery"),
}
"""What brings a patient. Each goes with several findings, so that it gives none away."""
INDICATIONS: dict[Style, dict[str, str]] = {
    "prose": {
        "breath": "Shortness of breath, is there a cause?",
        "fever": "Cough and fever, is there a cause?",
        "pain": "Chest pain, is there a cause?",
        "ankles": "Ankle swelling, is there a cause?",
        "weight": "Weight loss, is there a cause?",
        "surgery": "After surgery.",
        "procedure": "After a procedure.",
        "routine": "Routine examination.",
    },
    "telegraphic": {
        "breath": "SOB, ?cause.",
        "fever": "Fever, ?cause.",
        "pain": "CP, ?cause.",
        "ankles": "Swollen ankles.",
        "weight": "Wt loss, ?cause.",
        "surgery": "Post op.",
        "procedure": "Post procedure.",
        "routine": "Routine.",
    },
    "structured": {
        "breath": "SYMPTOM: dyspnoea.",
        "fever": "SYMPTOM: cough, fever.",
        "pain": "SYMPTOM: chest pain.",
        "ankles": "SYMPTOM: ankle swelling.",
        "weight": "SYMPTOM: weight loss.",
        "surgery": "CHECK: after surgery.",
        "procedure": "CHECK: after procedure.",
        "routine": "CHECK: routine.",
    },
    "bedside": {
        "breath": "Breathless on the ward.",
        "fever": "Spiking a fever.",
        "pain": "Chest pain on the ward.",
        "ankles": "Swollen ankles.",
        "weight": "Losing weight.",
        "surgery": "Back from theatre.",
        "procedure": "Position check.",
        "routine": "Routine ward film.",
    },
    "paediatric": {
        "breath": "Fast breathing.",
        "fever": "Cough and fever.",
        "pain": "Chest pain.",
        "ankles": "Puffy ankles.",
        "weight": "Failing to thrive.",
        "surgery": "After surgery.",
        "procedure": "After procedure.",
        "routine": "Routine review.",
    },
}
