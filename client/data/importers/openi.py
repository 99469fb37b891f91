"""The Indiana University collection of Open-i. Demner-Fushman et al. 2016, JAMIA 23(2), doi:10.1093/jamia/ocv080."""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

from client.data.importers._films import Picture, Source, Study
from client.data.importers._labels import Table, marked
from client.data.importers._sections import joined, unwrapped
from client.data.importers._tables import images_by, optional_table, rows, table_of
from rainhill.errors import DataError
from rainhill.text import shown
from rainhill.toml import Section

MESH: Table = {
    "no_finding": ("normal",),
    "cardiomegaly": ("Cardiomegaly",),
    "lung_opacity": ("Opacity", "Infiltrate", "Airspace Disease", "Density"),
    "lung_lesion": ("Nodule", "Mass", "Granuloma", "Calcified Granuloma"),
    "edema": ("Pulmonary Edema", "Pulmonary Congestion"),
    "consolidation": ("Consolidation",),
    "pneumonia": ("Pneumonia",),
    "atelectasis": ("Pulmonary Atelectasis",),
    "pneumothorax": ("Pneumothorax", "Hydropneumothorax", "Hemopneumothorax"),
    "pleural_effusion": ("Pleural Effusion",),
    "fracture": ("Fractures, Bone",),
    "support_devices": (
        "Catheters, Indwelling", "Implanted Medical Device", "Tube, Inserted", "Medical Device", "Surgical Instruments", "Stents",
    ),
    "granuloma": ("Granuloma", "Calcified Granuloma"),
    "emphysema": ("Emphysema", "Pulmonary Emphysema", "Bullous Emphysema"),
    "copd": ("Pulmonary Disease, Chronic Obstructive",),
    "hiatal_hernia": ("Hernia, Hiatal",),
    "scoliosis": ("Scoliosis",),
    "pulmonary_fibrosis": ("Pulmonary Fibrosis",),
    "atherosclerosis": ("Atherosclerosis",),
}  # fmt: skip
_UNINDEXED = "No Indexing"
_FILM = re.compile(r"\d+_IM-[\d-]+")


class Openi(Section):
    title: ClassVar[str] = "the Indiana University collection (Open-i)"
    terms: ClassVar[str] = (
        "the reports say CC BY-NC-ND 4.0 of themselves: name the collection, sell nothing made from it, pass no changed copy on"
    )

    def read(self, folder: Path) -> Source:
        archive = _reports_of(folder, self.title)
        images = images_by(_number, folder)
        views = {
            _number(cells["filename"]): cells["projection"]
            for table in (optional_table(folder, "indiana_projections.csv"),)
            if table is not None
            for cells in rows(table, ("filename", "projection"))
        }
        studies = (study_of(xml, name, images, views) for name, xml in _documents(archive))
        return Source(findings=tuple(MESH), patients=([study] for study in studies if study.pictures), tells_views=bool(views))


def study_of(xml: bytes, name: str, images: dict[str, str], views: dict[str, str]) -> Study:
    """Of one report. An image that `images` does not have keeps the name that the report gives it."""
    if b"<!DOCTYPE" in xml:
        raise DataError(f"{name}: declares a document type, which the collection's reports do not")
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314 - no entity is declared without a document type
    except ElementTree.ParseError as error:
        raise DataError(f"{name}: is no XML ({error})") from error
    identifier = root.find("uId")
    if identifier is None or not identifier.get("id"):
        raise DataError(f"{name}: is no report of the collection: it has no uId")
    said = {one.get("Label", "").upper(): unwrapped("".join(one.itertext())) for one in root.iter("AbstractText")}
    headings = {(one.text or "").split("/")[0].strip() for one in root.iter("major")}
    named = [one.get("id", "") for one in root.iter("parentImage")]
    return Study(
        patient=identifier.get("id", ""),
        pictures=tuple(Picture(image=images.get(_number(one), f"{one}.png"), view=views.get(_number(one), "")) for one in named),
        labels=("",) * len(MESH) if _UNINDEXED in headings or not headings else marked(MESH, headings),
        report=joined(said.get("FINDINGS", ""), said.get("IMPRESSION", "")),
        indication=said.get("INDICATION", ""),
    )


def _reports_of(folder: Path, title: str) -> Path:
    first = table_of(folder, title, "ecgen-radiology/*.xml", "*.xml", "NLMCXR_reports.tgz")
    return first if first.suffix == ".tgz" else first.parent


def _documents(place: Path) -> Iterator[tuple[str, bytes]]:
    if place.is_dir():
        for path in sorted(place.glob("*.xml"), key=lambda path: (len(path.stem), path.stem)):
            yield f"{place}: {shown(path.name)}", path.read_bytes()
        return
    try:
        with tarfile.open(place) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.name.endswith(".xml") else None
                if content is not None:
                    yield f"{place}: {shown(member.name)}", content.read()
    except tarfile.TarError as error:
        raise DataError(f"{place}: is no archive of reports ({error})") from error


def _number(name: str) -> str:
    """`CXR1_1_IM-0001-3001`, `CXR1000_IM-0003-1001.png` and `1000_IM-0003-1001.dcm.png` name their films by the same number."""
    found = _FILM.search(name)
    return found[0] if found else name
