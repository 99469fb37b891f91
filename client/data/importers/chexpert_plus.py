"""CheXpert Plus: the films of CheXpert with their reports. Chambon et al. 2024, arXiv:2405.19538."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from client.data.importers._films import Picture, Source, Study, by_patient
from client.data.importers._labels import CHEXPERT, chexpert_labels
from client.data.importers._sections import joined, sections, unwrapped
from client.data.importers._tables import form_of, optional_table, rows, table_of
from client.data.vocabulary import FINDINGS
from rainhill.errors import DataError
from rainhill.toml import Section

_NEEDED = (
    "path_to_image", "frontal_lateral", "ap_pa", "deid_patient_id", "patient_report_date_order", "section_clinical_history",
    "section_history", "section_findings", "section_impression", "age", "sex", "split",
)  # fmt: skip
_PARTS = {"train": "train", "valid": "val", "val": "val", "test": "test"}
_ROOTS = ("", "PNG/", "PNG/PNG/", "PNGs/", "images/", "CheXpert-v1.0/", "CheXpert-v1.0-small/", "DICOM/")


class ChexpertPlus(Section):
    title: ClassVar[str] = "CheXpert Plus"
    terms: ClassVar[str] = "CheXpert Plus is under Stanford's research use agreement: no commercial use, and nothing may be passed on"
    labels: Literal["findings", "impression", "report"] = "impression"
    """Of which text CheXbert's labels are taken."""

    def read(self, folder: Path) -> Source:
        table = table_of(folder, self.title, "df_chexpert_plus_*.csv", "df_chexpert_plus_*.csv.gz", "df_chexpert_plus_*.parquet")
        name = f"{self.labels}_fixed.json"
        labels_file = optional_table(folder, f"chexbert_labels/{name}", f"CheXpert_Labels/{name}", f"*/chexbert_labels/{name}", name)
        labels = _labels(labels_file) if labels_file else {}
        form = form_of(folder, (cells["path_to_image"] for cells in rows(table, _NEEDED)), _FORMS)
        patients = by_patient(_studies(table, labels, form))
        parts = frozenset(study.split for studies in patients for study in studies)
        notes = () if labels_file else (f"no label is there: they come as chexbert_labels.zip, of which {name} is read",)
        return Source(findings=FINDINGS if labels_file else (), patients=patients, parts=parts, notes=notes)


def _placed(root: str, suffix: str, path: str) -> str:
    return root + (path.rpartition(".")[0] + suffix if suffix else path)


_FORMS: tuple[Callable[[str], str], ...] = tuple(
    partial(_placed, root, suffix) for root in _ROOTS for suffix in ("", ".png", ".jpg", ".dcm")
)


def _labels(path: Path) -> dict[str, tuple[str, ...]]:
    """A film to a line."""
    found = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                said = json.loads(line)
                film = str(said["path_to_image"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}: line {number}: is not the labels of a film") from error
            cells = {heading: "" if said.get(heading) is None else str(said[heading]) for heading in CHEXPERT}
            found[film] = chexpert_labels(cells, f"{path}: line {number}")
    return found


def _studies(table: Path, labels: Mapping[str, tuple[str, ...]], form: Callable[[str], str]) -> Iterator[Study]:
    shared: dict[tuple[str, str], tuple[str, str]] = {}
    for number, cells in enumerate(rows(table, _NEEDED), start=2):
        film, patient, order = cells["path_to_image"], cells["deid_patient_id"], cells["patient_report_date_order"]
        if cells["split"] not in _PARTS:
            raise DataError(f"{table}: row {number}: split is {cells['split']!r}, expected {', '.join(_PARTS)}")
        frontal = cells["frontal_lateral"].strip().lower() == "frontal"
        key = (patient, film.rpartition("/")[0])
        # Films of one study share its report: kept once.
        report, indication = shared.get(key) or shared.setdefault(key, _report(cells))
        yield Study(
            patient=patient,
            pictures=(Picture(image=form(film), view=(_said(cells["ap_pa"]) or "FRONTAL") if frontal else "LATERAL"),),
            labels=labels.get(film, ("",) * len(FINDINGS)) if labels else (),
            when=(float(order),) if order.replace(".", "", 1).isdigit() else (),
            split=_PARTS[cells["split"]],
            sex=cells["sex"],
            age=cells["age"],
            report=report,
            indication=indication,
        )


def _report(cells: Mapping[str, str]) -> tuple[str, str]:
    """Report and indication. A report that was not cut into sections is cut here."""
    report = joined(unwrapped(_said(cells["section_findings"])), unwrapped(_said(cells["section_impression"])))
    indication = unwrapped(_said(cells["section_clinical_history"]) or _said(cells["section_history"]))
    if report and indication:
        return report, indication
    whole = sections(_said(cells.get("report", "")))
    return report or whole.report, indication or whole.indication


def _said(cell: str) -> str:
    return "" if cell.strip().lower() == "nan" else cell.strip()
