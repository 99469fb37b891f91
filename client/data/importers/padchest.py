"""PadChest: films of San Juan, Alicante, with reports in Spanish. Bustos et al. 2020, Medical Image Analysis 66, arXiv:1901.07441."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from client.data.importers._films import Picture, Source, Study, by_patient
from client.data.importers._labels import Table, marked
from client.data.importers._tables import images_by, rows, table_of
from rainhill.toml import Section

_DEVICES = (
    "artificial aortic heart valve", "artificial heart valve", "artificial mitral heart valve", "catheter", "central venous catheter",
    "central venous catheter via jugular vein", "central venous catheter via subclavian vein", "central venous catheter via umbilical vein",
    "chest drain tube", "dai", "double j stent", "dual chamber device", "electrical device", "endotracheal tube", "gastrostomy tube",
    "nephrostomy tube", "nsg tube", "pacemaker", "reservoir central venous catheter", "single chamber device", "tracheostomy tube",
    "ventriculoperitoneal drain tube",
)  # fmt: skip
TABLE: Table = {
    "no_finding": ("normal",),
    "enlarged_cardiomediastinum": ("mediastinal enlargement", "superior mediastinal enlargement"),
    "cardiomegaly": ("cardiomegaly",),
    "lung_opacity": (
        "alveolar pattern", "consolidation", "ground glass pattern", "increased density", "infiltrates", "interstitial pattern",
        "miliary opacities", "reticular interstitial pattern", "reticulonodular interstitial pattern",
    ),
    "lung_lesion": ("mass", "multiple nodules", "nodule", "pulmonary mass", "lung metastasis"),
    "edema": ("pulmonary edema",),
    "consolidation": ("consolidation",),
    "pneumonia": ("pneumonia", "atypical pneumonia"),
    "atelectasis": (
        "atelectasis", "atelectasis basal", "laminar atelectasis", "lobar atelectasis", "round atelectasis", "segmental atelectasis",
        "total atelectasis",
    ),
    "pneumothorax": ("pneumothorax", "hydropneumothorax"),
    "pleural_effusion": ("pleural effusion", "loculated pleural effusion", "hydropneumothorax"),
    "pleural_other": (
        "apical pleural thickening", "calcified pleural plaques", "calcified pleural thickening", "pleural mass", "pleural plaques",
        "pleural thickening",
    ),
    "fracture": ("callus rib fracture", "clavicle fracture", "fracture", "humeral fracture", "rib fracture", "vertebral fracture"),
    "support_devices": _DEVICES,
    "aortic_elongation": ("aortic elongation", "ascendent aortic elongation", "descendent aortic elongation", "supra aortic elongation"),
    "bronchiectasis": ("bronchiectasis",),
    "copd": ("copd signs",),
    "emphysema": ("emphysema",),
    "heart_insufficiency": ("heart insufficiency",),
    "hiatal_hernia": ("hiatal hernia",),
    "pulmonary_fibrosis": ("pulmonary fibrosis",),
    "scoliosis": ("scoliosis",),
    "tuberculosis": ("tuberculosis", "tuberculosis sequelae"),
}  # fmt: skip
"""Finding -> labels of PadChest, in lower case."""
_SILENT = frozenset({"", "exclude", "nan", "unchanged"})
"""A film that has only these is not labelled: unchanged against an earlier report does not say what there is."""
_QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""")
_VIEWS = {"L": "LATERAL", "AP_HORIZONTAL": "AP", "AP-HORIZONTAL": "AP"}
"""A film taken lying is AP all the same."""
_NEEDED = ("ImageID", "StudyID", "PatientID", "Projection", "Report", "Labels", "StudyDate_DICOM")


class Padchest(Section):
    title: ClassVar[str] = "PadChest"
    terms: ClassVar[str] = "PadChest is given out by BIMCV for research under its own licence, on request"

    def read(self, folder: Path) -> Source:
        table = table_of(
            folder, self.title, "PADCHEST_chest_x_ray_images_labels_160K*.csv", "PADCHEST_chest_x_ray_images_labels_160K*.csv.gz"
        )
        patients = by_patient(_studies(table, images_by(str, folder)))
        notes = (
            "the reports are Spanish, with their words reduced to stems: labeler and scores of wording in English say nothing of them",
        )
        return Source(findings=tuple(TABLE), patients=patients, notes=notes)


def _studies(table: Path, images: dict[str, str]) -> Iterator[Study]:
    reports: dict[str, str] = {}
    for cells in rows(table, _NEEDED):
        image, date, view = cells["ImageID"], cells["StudyDate_DICOM"], cells["Projection"].strip().upper()
        # Films of one study share its report: kept once.
        report = reports.setdefault(cells["StudyID"], " ".join(cells["Report"].split()))
        yield Study(
            patient=cells["PatientID"].strip(),
            pictures=(Picture(image=images.get(image, image), view=_VIEWS.get(view, view)),),
            labels=marked(TABLE, said) if (said := labels_in(cells["Labels"])) else ("",) * len(TABLE),
            when=(float(date),) if date.replace(".", "", 1).isdigit() else (),
            sex=cells.get("PatientSex_DICOM", ""),
            age=_age(date, cells.get("PatientBirth", "")),
            report=report,
        )


def labels_in(text: str) -> frozenset[str]:
    """Of a list as Python would print it, such as `['pleural effusion', 'nodule ', nan]`, without running it."""
    found = {(single or double).replace("\\'", "'").strip().lower() for single, double in _QUOTED.findall(text)}
    return frozenset(found - _SILENT)


def _age(date: str, birth: str) -> str:
    """The year of birth is all that is told of it."""
    try:
        return str(int(date[:4]) - int(float(birth)))
    except ValueError:
        return ""
