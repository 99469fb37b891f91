"""NIH ChestX-ray14, labels only. Wang et al. 2017, CVPR, arXiv:1705.02315."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from client.data.importers._films import Picture, Source, Study, by_patient
from client.data.importers._labels import Table, marked
from client.data.importers._tables import images_by, optional_table, rows, table_of
from rainhill.errors import DataError
from rainhill.toml import Section

TABLE: Table = {
    "no_finding": ("No Finding",),
    "cardiomegaly": ("Cardiomegaly",),
    "lung_lesion": ("Mass", "Nodule"),
    "edema": ("Edema",),
    "consolidation": ("Consolidation",),
    "pneumonia": ("Pneumonia",),
    "atelectasis": ("Atelectasis",),
    "pneumothorax": ("Pneumothorax",),
    "pleural_effusion": ("Effusion",),
    "infiltration": ("Infiltration",),
    "mass": ("Mass",),
    "nodule": ("Nodule",),
    "emphysema": ("Emphysema",),
    "fibrosis": ("Fibrosis",),
    "pleural_thickening": ("Pleural_Thickening",),
    "hernia": ("Hernia",),
}
_KNOWN = frozenset(one for of in TABLE.values() for one in of)
_LISTS = {"train_val_list.txt": "train", "train_list.txt": "train", "val_list.txt": "val", "test_list.txt": "test"}


class NihChestxray14(Section):
    title: ClassVar[str] = "NIH ChestX-ray14"
    terms: ClassVar[str] = "ChestX-ray14 is free to use if the NIH Clinical Center and the paper are named"

    def read(self, folder: Path) -> Source:
        table = table_of(folder, self.title, "Data_Entry_2017*.csv", "Data_Entry_2017*.csv.gz")
        parts = {
            line.strip(): part
            for name, part in _LISTS.items()
            for path in (optional_table(folder, name),)
            if path is not None
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.strip()
        }
        patients = by_patient(_studies(table, images_by(str, folder), parts))
        return Source(findings=tuple(TABLE), patients=patients, parts=frozenset(parts.values()))


def _studies(table: Path, images: Mapping[str, str], parts: Mapping[str, str]) -> Iterator[Study]:
    # The header of the release of 2020 spells some columns otherwise, none of these.
    for number, cells in enumerate(rows(table, ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "View Position")), start=2):
        said = {one.strip() for one in cells["Finding Labels"].split("|")}
        if not said <= _KNOWN:
            raise DataError(f"{table}: row {number}: {', '.join(sorted(said - _KNOWN))!r} is none of the set's labels")
        image = cells["Image Index"]
        yield Study(
            patient=cells["Patient ID"],
            pictures=(Picture(image=images.get(image, image), view=cells["View Position"]),),
            labels=marked(TABLE, said),
            split=parts.get(image, ""),
            sex=cells.get("Patient Gender") or cells.get("Patient Sex") or "",
            age=cells["Patient Age"],
        )
