"""RSNA Pneumonia Detection Challenge 2018, labels only. Shih et al. 2019, Radiology: Artificial Intelligence 1(1), e180041."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from client.data.importers._films import OWN_PATIENT, Picture, Source, Study, by_patient
from client.data.importers._tables import dicom_facts, form_of, optional_table, rows, table_of
from rainhill.errors import DataError
from rainhill.toml import Section

FINDINGS = ("no_finding", "lung_opacity", "pneumonia")
"""The target is an opacity that its readers took for pneumonia, so that it is both."""
_NORMAL = "Normal"
_FORMS = tuple(f"stage_2_train_images/{{}}{suffix}".format for suffix in (".dcm", ".png", ".jpg"))


class Rsna(Section):
    title: ClassVar[str] = "the RSNA Pneumonia Detection Challenge"
    terms: ClassVar[str] = "the RSNA's films are for research and teaching, under the challenge's terms of use"

    def read(self, folder: Path) -> Source:
        labels = table_of(folder, self.title, "stage_2_train_labels.csv")
        classes = table_of(folder, self.title, "stage_2_detailed_class_info.csv")
        # There is a row to each box, so that a film may have several.
        opaque: dict[str, bool] = {}
        for number, cells in enumerate(rows(labels, ("patientId", "Target")), start=2):
            if cells["Target"] not in {"0", "1"}:
                raise DataError(f"{labels}: row {number}: Target is {cells['Target']!r}, expected 0 or 1")
            opaque[cells["patientId"]] = opaque.get(cells["patientId"], False) or cells["Target"] == "1"
        classed = {cells["patientId"]: cells["class"] for cells in rows(classes, ("patientId", "class"))}
        people = _people(optional_table(folder, "pneumonia-challenge-dataset-mappings*.json"))
        form = form_of(folder, opaque, _FORMS)
        studies = _studies(folder, {image: form(image) for image in opaque}, opaque, classed, people)
        patients = by_patient(studies) if people else ([study] for study in studies)
        return Source(
            findings=FINDINGS,
            patients=patients,
            tells_views=form("").endswith(".dcm"),
            notes=()
            if people
            else (
                f"{OWN_PATIENT}; pneumonia-challenge-dataset-mappings_2018.json of the RSNA, put beside the tables, tells whose they are",
            ),
        )


def _studies(
    folder: Path, paths: Mapping[str, str], opaque: Mapping[str, bool], classed: Mapping[str, str], people: Mapping[str, str]
) -> Iterator[Study]:
    for image, path in paths.items():
        facts = dicom_facts(folder / path) if path.endswith(".dcm") else {"sex": "", "age": "", "view": ""}
        target = "1" if opaque[image] else "0"
        normal = {"": "", _NORMAL: "1"}.get(classed.get(image, ""), "0")
        yield Study(
            patient=people.get(image, image),
            pictures=(Picture(image=path, view=facts["view"]),),
            labels=(normal, target, target),
            sex=facts["sex"],
            age=facts["age"],
        )


def _people(path: Path | None) -> dict[str, str]:
    """Image of the challenge -> patient of ChestX-ray14, which its films were taken from."""
    if path is None:
        return {}
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return {one["subset_img_id"]: one["img_id"].split("_")[0] for one in listed if one.get("subset_img_id")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is not the list of which film of the challenge is which of ChestX-ray14") from error
