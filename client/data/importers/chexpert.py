"""CheXpert, labels only, whole or small. Irvin et al. 2019, AAAI, arXiv:1901.07031."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from client.data.importers._films import Picture, Source, Study, by_patient
from client.data.importers._labels import CHEXPERT, chexpert_labels
from client.data.importers._tables import optional_table, rows, table_of
from client.data.vocabulary import FINDINGS
from rainhill.errors import DataError
from rainhill.text import shown
from rainhill.toml import Section

_FILM = re.compile(r"(train|valid|test)/(patient\d+)/(study\d+/[^/]+)$")
_TABLES = {"train": ("train.csv",), "val": ("valid.csv",), "test": ("test.csv", "test_labels.csv")}
_BATCHES = "CheXpert-v1.0 batch*(train*)"
"""The whole set comes in such folders, with the patients right in them."""


class Chexpert(Section):
    title: ClassVar[str] = "CheXpert"
    terms: ClassVar[str] = "CheXpert is under Stanford's research use agreement: no commercial use, and nothing may be passed on"

    def read(self, folder: Path) -> Source:
        train = table_of(folder, self.title, "train.csv", "CheXpert-v1.0*/train.csv")
        tables = {part: optional_table(train.parent, *names) for part, names in _TABLES.items()}
        root = train.parent.relative_to(folder)
        batches = {path.name: path.parent.relative_to(folder) for path in sorted(folder.glob(f"{_BATCHES}/patient*"))}
        studies = (study for part, table in tables.items() if table for study in _studies(table, part, root, batches))
        return Source(findings=FINDINGS, patients=by_patient(studies), parts=frozenset(part for part, table in tables.items() if table))


def _studies(table: Path, part: str, root: Path, batches: dict[str, Path]) -> Iterator[Study]:
    # The table of the test films was given out later, without all of the columns.
    needed = ("Path",) if part == "test" else ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT)
    for number, cells in enumerate(rows(table, needed), start=2):
        found = _FILM.search(cells["Path"].replace("\\", "/"))
        if found is None:
            raise DataError(f"{table}: row {number}: {shown(cells['Path'])!r} is not the path of a film of CheXpert")
        of, patient, rest = found.groups()
        place = batches[patient] / patient if of == "train" and patient in batches else root / of / patient
        yield Study(
            patient=patient,
            pictures=(Picture(image=(place / rest).as_posix(), view=_view(cells, rest)),),
            labels=chexpert_labels(cells, f"{table}: row {number}"),
            split=part,
            sex=cells.get("Sex", ""),
            age=cells.get("Age", ""),
        )


def _view(cells: dict[str, str], name: str) -> str:
    """The table of the test films says nothing of them but labels; their names do."""
    plane = cells.get("Frontal/Lateral", "") or name
    return (cells.get("AP/PA", "").strip() or "FRONTAL") if "frontal" in plane.lower() else "LATERAL"
