"""VinDr-CXR: labels of three readers a film, in the test part of a consensus. Nguyen et al. 2022, Scientific Data 9:429."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from client.data.importers._films import OWN_PATIENT, Picture, Source, Study
from client.data.importers._labels import Table, label_in, strongest
from client.data.importers._tables import dicom_facts, form_of, optional_table, rows, table_of
from rainhill.errors import DataError
from rainhill.toml import Section

TABLE: Table = {
    "no_finding": ("No finding",),
    "cardiomegaly": ("Cardiomegaly",),
    "lung_opacity": ("Lung Opacity",),
    "lung_lesion": ("Nodule/Mass", "Lung tumor"),
    "edema": ("Edema",),
    "consolidation": ("Consolidation",),
    "pneumonia": ("Pneumonia",),
    "atelectasis": ("Atelectasis",),
    "pneumothorax": ("Pneumothorax",),
    "pleural_effusion": ("Pleural effusion",),
    "fracture": ("Clavicle fracture", "Rib fracture"),
    "aortic_enlargement": ("Aortic enlargement",),
    "calcification": ("Calcification",),
    "copd": ("COPD",),
    "emphysema": ("Emphysema",),
    "enlarged_pulmonary_artery": ("Enlarged PA",),
    "infiltration": ("Infiltration",),
    "interstitial_lung_disease": ("ILD",),
    "lung_cavity": ("Lung cavity",),
    "lung_cyst": ("Lung cyst",),
    "mediastinal_shift": ("Mediastinal shift",),
    "pleural_thickening": ("Pleural thickening",),
    "pulmonary_fibrosis": ("Pulmonary fibrosis",),
    "tuberculosis": ("Tuberculosis",),
    "other_lesion": ("Other lesion",),
    "other_disease": ("Other diseases", "Other disease"),
}
"""Of the last the two tables of the set spell the column differently."""
_FORMS = tuple(form.format for form in ("{}.dicom", "{}.dcm", "{}.png", "{}.jpg"))


class Vindr(Section):
    title: ClassVar[str] = "VinDr-CXR"
    terms: ClassVar[str] = "VinDr-CXR needs training and a signed data use agreement with PhysioNet, which forbids to pass films on"
    readers: int = Field(default=2, ge=1, le=3)
    """So many of a film's three have to see a finding; fewer who do are outvoted."""

    def read(self, folder: Path) -> Source:
        train = table_of(folder, self.title, "annotations/image_labels_train.csv", "image_labels_train.csv")
        tables = {"train": train, "test": optional_table(train.parent, "image_labels_test.csv")}
        patients = ([study] for part, table in tables.items() if table for study in _films(folder, part, table, self.readers))
        return Source(
            findings=tuple(TABLE),
            patients=patients,
            parts=frozenset(part for part, table in tables.items() if table),
            notes=(OWN_PATIENT,),
        )


def _films(folder: Path, part: str, table: Path, readers: int) -> Iterator[Study]:
    votes: dict[str, list[tuple[str, ...]]] = {}
    for number, cells in enumerate(rows(table, ("image_id", "No finding")), start=2):
        try:
            said = tuple(strongest(label_in(cells, column) for column in of if column in cells) for of in TABLE.values())
        except ValueError as error:
            raise DataError(f"{table}: row {number}: {error}") from error
        votes.setdefault(cells["image_id"], []).append(said)
    form = form_of(folder, (f"{part}/{image}" for image in votes), _FORMS)
    for image, of in votes.items():
        path = form(f"{part}/{image}")
        facts = dicom_facts(folder / path) if path.endswith((".dicom", ".dcm")) else {"sex": "", "age": ""}
        # All films of the set are PA, whatever else their headers say.
        yield Study(
            patient=image,
            pictures=(Picture(image=path, view="PA"),),
            labels=tuple(_agreed(column, readers) for column in zip(*of, strict=True)),
            split=part,
            sex=facts["sex"],
            age=facts["age"],
        )


def _agreed(votes: tuple[str, ...], readers: int) -> str:
    """Of the test part there is one line a film, agreed upon before."""
    if not any(votes):
        return ""
    return "1" if votes.count("1") >= min(readers, len(votes)) else "0"
