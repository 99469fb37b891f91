"""Any table of films with reports: a hospital's own export, or a public set in plain columns."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from client.data.importers._columns import columns_of, part_of, table_in
from client.data.importers._films import Picture, Source, Study, by_patient
from client.data.importers._labels import label_in
from client.data.importers._sections import joined, sections, unwrapped
from client.data.importers._tables import header_of, refuse_without, rows
from client.data.labeler import Label, Labeler
from client.data.vocabulary import FINDINGS
from rainhill.errors import ConfigError, DataError
from rainhill.text import shown
from rainhill.toml import Section

_STATES: dict[Label, str] = {"positive": "1", "negative": "0", "uncertain": "-1", "unmentioned": ""}
_ROLES = ("patient", "image", "report", "impression", "indication", "date", "split", "sex", "age", "view")
_NEEDED = {"patient", "image", "report"}
_GERMAN = ("%d.%m.%Y", "%d.%m.%Y %H:%M")


class CsvReports(Section):
    """A column of the name that stands here is taken where the table has it; one that `--set` names has to be there."""

    title: ClassVar[str] = "a table of reports"
    terms: ClassVar[str] = "whose reports these are, and what was agreed with them, you know best"
    table: str = ""
    """Its name in the folder; where not given, the one CSV or Parquet file there."""
    patient: str = "patient"
    image: str = "image"
    report: str = "report"
    """The whole report, which is taken apart at its headings; where there is an `impression` too, the findings."""
    impression: str = "impression"
    indication: str = "indication"
    date: str = "date"
    """Sorts a patient's studies, so that one has another's report as its prior: ISO 8601, 31.12.2024, or a number."""
    split: str = "split"
    sex: str = "sex"
    age: str = "age"
    view: str = "view"
    labels: str = ""
    """Columns of labels: `pneumonia, effusion=Pleural Effusion`."""
    labeler: str = ""
    """Language of the labeler that labels the reports, such as en; nothing does where empty."""

    def read(self, folder: Path) -> Source:
        if self.labels and self.labeler:
            raise ConfigError("layout csv_reports: labels and labeler are two sources of labels: give one of them")
        table = table_in(folder, self.title, self.table)
        header = header_of(table)
        named = {role: str(getattr(self, role)) for role in _ROLES}
        roles = {
            role: column
            for role, column in named.items()
            if column in header or role in _NEEDED or (column and role in self.model_fields_set)
        }
        labels = columns_of(self.labels)
        refuse_without(table, header, [*roles.values(), *labels.values()])
        labeler = Labeler(language=self.labeler) if self.labeler else None
        patients = by_patient(_studies(table, roles, labels, labeler))
        return Source(
            findings=FINDINGS if labeler else tuple(labels),
            patients=patients,
            parts=frozenset(study.split for studies in patients for study in studies if study.split),
            tells_views="view" in roles,
        )


def _studies(table: Path, roles: Mapping[str, str], labels: Mapping[str, str], labeler: Labeler | None) -> Iterator[Study]:
    for number, cells in enumerate(rows(table), start=2):
        said = {role: cells[column].strip() for role, column in roles.items()}
        report, indication = _report(said)
        try:
            found = tuple(label_in(cells, column) for column in labels.values())
            when, split = when_of(said.get("date", "")), part_of(said.get("split", ""))
        except ValueError as error:
            raise DataError(f"{table}: row {number}: {error}") from error
        yield Study(
            patient=said["patient"],
            pictures=(Picture(image=said["image"].replace("\\", "/"), view=said.get("view", "")),),
            labels=_labelled(report, labeler) if labeler else found,
            when=when,
            split=split,
            sex=said.get("sex", ""),
            age=said.get("age", ""),
            report=report,
            indication=indication,
        )


def _report(said: Mapping[str, str]) -> tuple[str, str]:
    """Report and indication; an indication in a column of its own goes before one in the report."""
    parts = sections(said["report"])
    impression = unwrapped(said.get("impression", ""))
    report = joined(parts.findings or parts.body, impression) if impression else parts.report
    return report, unwrapped(said.get("indication", "")) or parts.indication


def _labelled(report: str, labeler: Labeler) -> tuple[str, ...]:
    if not report:
        return ("",) * len(FINDINGS)
    said = labeler.labels(report)
    return tuple(_STATES[said[finding]] for finding in FINDINGS)


def when_of(text: str) -> tuple[float, ...]:
    """What sorts dates; nothing for none. ValueError for what is neither a date nor a number."""
    if not text:
        return ()
    for parse in (datetime.fromisoformat, *(lambda text, form=form: datetime.strptime(text, form) for form in _GERMAN)):
        try:
            found = parse(text)
        except ValueError:
            continue
        return (found.toordinal(), found.hour * 3600 + found.minute * 60 + found.second)
    try:
        return (float(text),)
    except ValueError as error:
        raise ValueError(f"date is {shown(text)!r}, expected ISO 8601, such as 2024-12-31, or 31.12.2024, or a number") from error
