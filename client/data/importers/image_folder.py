"""Plain images with labels, such as of pathology, skin or fundus: a folder to each class, or a table beside the images."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar

from pydantic import AfterValidator

from client.data.importers._columns import PARTS, columns_of, part_of, table_in
from client.data.importers._films import OWN_PATIENT, Picture, Source, Study, by_patient
from client.data.importers._labels import label_in, snake
from client.data.importers._tables import IMAGES, header_of, images_by, images_in, refuse_no_folder, refuse_without, rows
from rainhill.errors import ConfigError, DataError
from rainhill.text import shown
from rainhill.toml import Section


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return text


class ImageFolder(Section):
    """CLASS/*.png, or train/CLASS/*.png and so on; with `label` or `labels`, a table beside the images."""

    title: ClassVar[str] = "a folder of images"
    terms: ClassVar[str] = "whose images these are, and what was agreed with them, you know best"
    patient: Annotated[str, AfterValidator(_expression)] = ""
    """A regular expression that is searched in an image's path from the folder: its first group, or all that it finds, is the patient."""
    table: str = ""
    image: str = "image"
    """Column with the image's path or name, with its ending or without."""
    label: str = ""
    """Column with the name of the image's class."""
    labels: str = ""
    """Columns of labels: `melanoma, nevus=NV`."""
    patients: str = ""
    """Column with the patient."""
    split: str = ""
    sex: str = ""
    age: str = ""

    def read(self, folder: Path) -> Source:
        refuse_no_folder(folder, self.title)
        if self.patient and self.patients:
            raise ConfigError("layout image_folder: patient and patients are two sources of patients: give one of them")
        findings, studies = self._from_table(folder) if self.table or self.label or self.labels else self._from_classes(folder)
        grouped = by_patient(studies)
        return Source(
            findings=findings,
            patients=grouped,
            parts=frozenset(study.split for of in grouped for study in of if study.split),
            # None of these images has a view.
            tells_views=False,
            notes=() if self.patient or self.patients else (OWN_PATIENT,),
        )

    def _from_classes(self, folder: Path) -> tuple[tuple[str, ...], Iterator[Study]]:
        placed = [(image, *_class_of(image)) for image in images_in(folder)]
        classes = sorted({name for _, _, name in placed if name})
        if len(classes) < 2 or not all(name for _, _, name in placed):
            found = ", ".join(map(shown, classes)) or "none"
            raise DataError(
                f"{folder}: is not {self.title} with a folder to each class: its classes are {found}; a table needs --set label=COLUMN"
            )
        findings = _findings(classes, folder)
        return findings, (
            Study(
                patient=self._patient(image),
                pictures=(Picture(image=image),),
                labels=tuple("1" if one == name else "0" for one in classes),
                split=part,
            )
            for image, part, name in placed
        )

    def _from_table(self, folder: Path) -> tuple[tuple[str, ...], Iterator[Study]]:
        table = table_in(folder, self.title, self.table)
        columns = columns_of(self.labels)
        if bool(self.label) == bool(columns):
            raise ConfigError(
                "layout image_folder: with a table, either label=COLUMN (the name of a class) or labels=COLUMN,COLUMN (1 and 0)"
            )
        wanted = [self.image, self.label, self.patients, self.split, self.sex, self.age, *columns.values()]
        refuse_without(table, header_of(table), [column for column in wanted if column])
        classes = sorted({cells[self.label].strip() for cells in rows(table)} - {""}) if self.label else []
        # A class by number says of what only with the column's name.
        named = [f"{self.label}_{name}" if name[0].isdigit() else name for name in classes]
        return _findings(named, folder) if self.label else tuple(columns), self._rows(table, folder, classes, columns)

    def _rows(self, table: Path, folder: Path, classes: Sequence[str], columns: Mapping[str, str]) -> Iterator[Study]:
        by_name = images_by(_stem, folder)
        for number, cells in enumerate(rows(table), start=2):
            image = cells[self.image].strip().replace("\\", "/")
            path = image if (folder / image).is_file() else by_name.get(_stem(PurePosixPath(image).name), image)
            try:
                name = cells[self.label].strip() if self.label else ""
                found = tuple("1" if one == name else "0" if name else "" for one in classes) or tuple(
                    label_in(cells, of) for of in columns.values()
                )
                split = part_of(cells[self.split]) if self.split else ""
            except ValueError as error:
                raise DataError(f"{table}: row {number}: {error}") from error
            yield Study(
                patient=cells[self.patients].strip() if self.patients else self._patient(path),
                pictures=(Picture(image=path),),
                labels=found,
                split=split,
                sex=cells[self.sex] if self.sex else "",
                age=cells[self.age] if self.age else "",
            )

    def _patient(self, image: str) -> str:
        if not self.patient:
            return image
        found = re.search(self.patient, image)
        if found is None:
            raise DataError(f"{shown(image)!r}: the patient's expression {self.patient!r} finds nothing in it")
        return found[1] if found.re.groups and found[1] else found[0]


def _class_of(image: str) -> tuple[str, str]:
    """The part, where the set has folders for them, and the class; both empty of an image that lies in no folder."""
    folders = PurePosixPath(image).parts[:-1]
    part = PARTS.get(folders[0].lower(), "") if folders else ""
    folders = folders[1:] if part else folders
    return part, folders[0] if folders else ""


def _findings(classes: Sequence[str], folder: Path) -> tuple[str, ...]:
    findings = tuple(map(snake, classes))
    twice = sorted({one for one in findings if findings.count(one) > 1})
    if twice:
        raise DataError(f"{folder}: several classes are called {twice[0]!r} once written as a name: {', '.join(map(shown, classes))}")
    return findings


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0] if name.lower().endswith(IMAGES) else name
