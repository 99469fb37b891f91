"""MIMIC-CXR-JPG, or the DICOM files of MIMIC-CXR with its tables. Johnson et al. 2019, Scientific Data 6:317 and arXiv:1901.07042."""

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from client.data.importers._films import Picture, Source, Study
from client.data.importers._labels import CHEXPERT, chexpert_labels
from client.data.importers._sections import sections
from client.data.importers._tables import form_of, optional_table, rows, table_of
from client.data.vocabulary import FINDINGS
from rainhill.errors import DataError
from rainhill.text import shown
from rainhill.toml import Section

ReadReport = Callable[[str, str], str]
"""Patient and study -> the text, empty where there is none."""
_PARTS = {"train": "train", "validate": "val", "test": "test"}
_NO_LABELS = ("",) * len(FINDINGS)
_NO_REPORTS = (
    "no report is there: they come with MIMIC-CXR, not with MIMIC-CXR-JPG, as mimic-cxr-reports.zip; --set reports=FILE says where that is"
)
_FORMS = tuple(form.format for form in ("files/{}.jpg", "files/{}.dcm", "files/{}.png", "{}.jpg", "{}.dcm", "{}.png"))
_REPORT_FORMS = tuple(form.format for form in ("files/{}", "{}", "mimic-cxr-reports/files/{}"))
_PROBED = 50


@dataclass(frozen=True, slots=True)
class _Film:
    dicom: str
    study: str
    view: str
    when: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Person:
    """Of MIMIC-IV: how old somebody was in a year, both shifted alike."""

    sex: str
    age: float
    year: int


@dataclass(frozen=True, kw_only=True)
class _Tables:
    labels: Mapping[str, tuple[str, ...]]
    """Of each study."""
    parts: Mapping[str, str]
    """Of each film."""
    people: Mapping[str, _Person]


class MimicCxr(Section):
    title: ClassVar[str] = "MIMIC-CXR"
    terms: ClassVar[str] = "MIMIC-CXR needs a signed data use agreement with PhysioNet, which forbids to pass films or reports on"
    reports: str = ""
    """Folder or zip of the reports, where they are not in the set's own folder."""

    def read(self, folder: Path) -> Source:
        metadata, chexpert, split = (
            table_of(folder, self.title, f"mimic-cxr-*-{name}.csv", f"mimic-cxr-*-{name}.csv.gz")
            for name in ("metadata", "chexpert", "split")
        )
        films = _films(metadata)
        tables = _Tables(
            labels={
                cells["study_id"]: chexpert_labels(cells, f"{chexpert}: study {shown(cells['study_id'])}")
                for cells in rows(chexpert, ("study_id", *CHEXPERT))
            },
            parts={cells["dicom_id"]: _part(cells["split"], split) for cells in rows(split, ("dicom_id", "split"))},
            people=_people(optional_table(folder, "patients.csv", "patients.csv.gz", "hosp/patients.csv", "hosp/patients.csv.gz")),
        )
        some = [(patient, film.study) for patient, of in films.items() for film in of[:1]][:_PROBED]
        read_report = _reader(Path(self.reports).expanduser() if self.reports else folder, some)
        form = form_of(folder, (_path(patient, film) for patient, of in films.items() for film in of), _FORMS)
        return Source(
            findings=FINDINGS,
            patients=(_studies(patient, of, tables, read_report, form) for patient, of in films.items()),
            parts=frozenset(_PARTS.values()),
            notes=() if any(read_report(*one) for one in some) else (_NO_REPORTS,),
        )


def _films(metadata: Path) -> dict[str, list[_Film]]:
    found: dict[str, list[_Film]] = {}
    for cells in rows(metadata, ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime")):
        try:
            when = (float(cells["StudyDate"]), float(cells["StudyTime"] or 0))
        except ValueError as error:
            raise DataError(f"{metadata}: study {shown(cells['study_id'])}: its StudyDate or StudyTime is no number") from error
        film = _Film(cells["dicom_id"], cells["study_id"], cells["ViewPosition"].strip(), when)
        found.setdefault(cells["subject_id"], []).append(film)
    return found


def _part(split: str, table: Path) -> str:
    if split not in _PARTS:
        raise DataError(f"{table}: split is {shown(split)!r}, expected {', '.join(_PARTS)}")
    return _PARTS[split]


def _people(table: Path | None) -> dict[str, _Person]:
    if table is None:
        return {}
    wanted = ("subject_id", "gender", "anchor_age", "anchor_year")
    return {
        cells["subject_id"]: _Person(cells["gender"], float(cells["anchor_age"]), int(cells["anchor_year"]))
        for cells in rows(table, wanted)
    }


def _path(patient: str, film: _Film) -> str:
    return f"p{patient[:2]}/p{patient}/s{film.study}/{film.dicom}"


def _studies(patient: str, films: Sequence[_Film], tables: _Tables, read_report: ReadReport, form: Callable[[str], str]) -> Sequence[Study]:
    return list(_each(patient, films, tables, read_report, form))


def _each(patient: str, films: Sequence[_Film], tables: _Tables, read_report: ReadReport, form: Callable[[str], str]) -> Iterator[Study]:
    by_study: dict[str, list[_Film]] = {}
    for film in films:
        by_study.setdefault(film.study, []).append(film)
    person = tables.people.get(patient)
    for study, of in by_study.items():
        first = min(of, key=lambda film: film.when)
        taken_apart = sections(read_report(patient, study))
        yield Study(
            patient=patient,
            pictures=tuple(Picture(image=form(_path(patient, film)), view=film.view) for film in of),
            labels=tables.labels.get(study, _NO_LABELS),
            when=first.when,
            split=tables.parts.get(first.dicom, ""),
            sex=person.sex if person else "",
            age=f"{person.age + first.when[0] // 10_000 - person.year:g}" if person else "",
            report=taken_apart.report,
            indication=taken_apart.indication,
        )


def _reader(place: Path, some: Sequence[tuple[str, str]]) -> ReadReport:
    archive = place if place.is_file() else place / "mimic-cxr-reports.zip"
    if archive.is_file():
        return _from_zip(archive)
    if not place.is_dir():
        raise DataError(f"{place}: no such folder or zip of reports")
    form = form_of(place, (_report_path(*one) for one in some), _REPORT_FORMS)

    def read(patient: str, study: str) -> str:
        try:
            return (place / form(_report_path(patient, study))).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    return read


def _report_path(patient: str, study: str) -> str:
    return f"p{patient[:2]}/p{patient}/s{study}.txt"


def _from_zip(path: Path) -> ReadReport:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: is no zip file") from error
    names = {name.rsplit("/", 1)[-1]: name for name in archive.namelist() if name.endswith(".txt")}

    def read(patient: str, study: str) -> str:  # noqa: ARG001 - a study's number is of all patients
        name = names.get(f"s{study}.txt")
        return archive.read(name).decode(errors="replace") if name else ""

    return read
