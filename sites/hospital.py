"""A phantom hospital as data: one TOML draws its patients, films them on its equipment and writes real DICOM with a manifest.

`write` leaves `films/*.dcm`, `boxes.json`, `manifest.csv` and, last of all, `complete.json`, which says what the folder holds.
"""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from rainhill.config import ColumnsConfig, DataConfig, Fraction, SiteConfig
from rainhill.errors import ConfigError
from rainhill.files import alone
from rainhill.toml import Section
from sites import (
    anatomy,
    cases,
    devices,
    dicom_file,
    geometry,
    lesions,
    phantom,
    population,
    report_text,
    report_words,
    shift,
    skeleton,
    texture,
)
from sites.phantom import FINDINGS, Case, Patient
from sites.population import PopulationConfig, ProjectionConfig
from sites.report_text import Style
from sites.shift import ShiftConfig

COLUMNS = ("patient_id", "image", "split", "sex", "age", "view", *FINDINGS, "indication", "report", "prior")
_TEST = 500_000  # patient numbers from here on are test patients
_CHUNK = 16
_DRAWING = (
    anatomy,
    cases,
    devices,
    dicom_file,
    geometry,
    lesions,
    phantom,
    population,
    report_text,
    report_words,
    shift,
    skeleton,
    texture,
)


class PhantomConfig(Section):
    """What makes a phantom hospital itself."""

    patients: int = Field(gt=0, lt=_TEST)
    """For training and validation, 4 to 1."""
    test_patients: int = Field(default=200, ge=0)
    images_per_patient: tuple[int, int] = (1, 3)
    seed: int = Field(default=0, ge=0)
    size: int = Field(default=192, ge=64, le=1024)
    """Rows and columns of a film."""
    report: Style = "prose"
    missed: Fraction = 0.0
    """Label noise: chance that a finding on a train or val film is not in its labels."""
    invented: Fraction = 0.0
    """Label noise: chance that a label on a train or val film names a finding that is not there."""
    with_priors: bool = False
    """Whether the report of a patient's further film compares with the film before, whose report is then in the column `prior`."""
    lost_priors: Fraction = 0.0
    """Share of first films whose report compares with a film that is not in the data."""
    equipment: dicom_file.EquipmentConfig = dicom_file.EquipmentConfig()
    population: PopulationConfig
    projection: ProjectionConfig = ProjectionConfig()
    shift: ShiftConfig = ShiftConfig()


class HospitalConfig(SiteConfig):
    """A site's file that may say how to draw its films instead of where they are."""

    phantom: PhantomConfig | None = None


@dataclass(frozen=True, kw_only=True)
class _Film:
    split: str
    case: Case
    earlier: tuple[Case, ...]
    """The patient's films before this one, the latest last."""
    name: str
    patient_id: str


def draw(config: PhantomConfig, *, seed: int) -> tuple[list[Patient], list[Patient]]:
    """(patients to adapt on, test patients): another seed draws other patients of the same hospital."""
    key = int(np.random.SeedSequence([config.seed, seed]).generate_state(1)[0])

    def some(n: int, first: int) -> list[Patient]:
        return phantom.draw_patients(config.population, n, key, projection=config.projection, images=config.images_per_patient, first=first)

    return some(config.patients, 0), some(config.test_patients, _TEST)


def write(hospital: HospitalConfig, folder: Path, *, seed: int, threads: int | None = None) -> Path:
    """Writes the hospital's films and manifest into `folder` and returns it; at once where they are there already.

    Label noise is in the labels of the train and val rows, as a hospital's own labels have it; test rows, masks, boxes and reports carry
    the truth, as if two readers had adjudicated them.
    """
    config = hospital.phantom
    if config is None:
        raise ConfigError(f"{hospital.name}: has no [phantom] to draw")
    mark = _mark(hospital, seed)
    # Two runs may want the same hospital at once: the second waits, and finds it drawn.
    with alone(folder.with_name(f".{folder.name}.lock")):
        if not is_complete(folder, mark):
            _draw(hospital, config, folder, mark, seed=seed, threads=threads)
    return folder


def _draw(hospital: HospitalConfig, config: PhantomConfig, folder: Path, mark: dict[str, Any], *, seed: int, threads: int | None) -> None:
    (folder / "complete.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "films", ignore_errors=True)
    (folder / "films").mkdir(parents=True)
    films = list(_films(hospital.name, config, seed=seed))
    chunks = [films[start : start + _CHUNK] for start in range(0, len(films), _CHUNK)]
    with ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1)) as pool:
        parts = list(pool.map(lambda chunk: _write_films(hospital, config, chunk, folder), chunks))
    rows = [row for part, _ in parts for row in part]
    _replace(folder / "boxes.json", json.dumps({name: boxes for _, part in parts for name, boxes in part.items()}))
    _write_manifest(folder / "manifest.csv", rows)
    _replace(folder / "complete.json", json.dumps(mark))


def data_config(folder: Path) -> DataConfig:
    """How the general reader of cohorts reads what `write` left."""
    same = {name: name for name in ("image", "split", "sex", "age", "view", "report", "indication", "prior")}
    columns = ColumnsConfig(patient="patient_id", **same)
    return DataConfig(manifest=folder / "manifest.csv", images=folder, columns=columns, labels={name: name for name in FINDINGS})


def training_patients(hospital: HospitalConfig, *, seed: int) -> int:
    """How many of those that `write` leaves are in its train part."""
    assert hospital.phantom is not None
    return len({film.patient_id for film in _films(hospital.name, hospital.phantom, seed=seed) if film.split == "train"})


def fingerprint(hospital: HospitalConfig, *, seed: int) -> str:
    """sha256 of the hospital's file, the seed, and the code that draws."""
    digest = hashlib.sha256(json.dumps([hospital.model_dump(mode="json"), seed], sort_keys=True).encode())
    for module in _DRAWING:
        digest.update(Path(str(module.__file__)).read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()


def is_drawn(hospital: HospitalConfig, folder: Path, *, seed: int) -> bool:
    """Whether the folder holds what `write` leaves of this very hospital, whole."""
    return is_complete(folder, _mark(hospital, seed))


def _mark(hospital: HospitalConfig, seed: int) -> dict[str, Any]:
    return {"hospital": hospital.name, "seed": seed, "sha256": fingerprint(hospital, seed=seed)}


def is_complete(folder: Path, mark: dict[str, Any]) -> bool:
    try:
        return bool(json.loads((folder / "complete.json").read_text()) == mark) and (folder / "manifest.csv").exists()
    except (OSError, ValueError):
        return False


def _films(name: str, config: PhantomConfig, *, seed: int) -> Iterator[_Film]:
    known, test = draw(config, seed=seed)
    order = cases.random(config.seed, seed, 6).permutation(len(known))
    val = {known[int(n)].number for n in order[: round(0.2 * len(known))]}
    for patient in [*known, *test]:
        split = "test" if patient.number >= _TEST else "val" if patient.number in val else "train"
        patient_id = f"{name[:3].upper()}{patient.number:06d}"
        for image, case in enumerate(patient.cases):
            path, earlier = f"films/{patient_id}_{image}.dcm", patient.cases[:image]
            yield _Film(split=split, case=case, earlier=earlier, name=path, patient_id=patient_id)


def _write_films(
    hospital: HospitalConfig, config: PhantomConfig, films: list[_Film], folder: Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    shown = [film.case for film in films]
    drawn = phantom.render(shown, config.size)
    stored = shift.apply(drawn.attenuation, config.shift, [case.exposure for case in shown])
    institution = hospital.title or hospital.name
    rows, boxes = [], {}
    for film, values, found in zip(films, stored, drawn.boxes, strict=True):
        encoded = dicom_file.encode(values, film.case, film.patient_id, institution, config.equipment, config.shift.photometric)
        (folder / film.name).write_bytes(encoded)
        rows.append(_row(film, config))
        boxes[film.name] = {
            finding.name: {
                "side": finding.side,
                "region": finding.region,
                "severity": round(finding.severity, 3),
                "box": found[FINDINGS.index(finding.name)].tolist(),
            }
            for finding in film.case.findings
        }
    return rows, boxes


def _row(film: _Film, config: PhantomConfig) -> dict[str, Any]:
    case, truth = film.case, phantom.labels(film.case)
    if film.split != "test":
        flip = cases.random(*case.exposure.seed, 7).random(len(FINDINGS))
        truth = np.where(flip < np.where(truth == 1, config.missed, config.invented), 1 - truth, truth)
    about = {
        "patient_id": film.patient_id,
        "image": film.name,
        "split": film.split,
        "sex": case.sex,
        "age": case.age,
        "view": case.exposure.view,
    }
    texts = {
        "indication": report_text.indication(case, config.report),
        "report": _report(case, film.earlier, config),
        "prior": _report(film.earlier[-1], film.earlier[:-1], config) if film.earlier and config.with_priors else "",
    }
    return about | dict(zip(FINDINGS, truth.tolist(), strict=True)) | texts


def _report(case: Case, earlier: tuple[Case, ...], config: PhantomConfig) -> str:
    if earlier:
        return report_text.write(case, config.report, before=earlier[-1] if config.with_priors else None)
    lost = bool(cases.random(*case.exposure.seed, 10).random() < config.lost_priors)
    return report_text.write(case, config.report, lost=lost)


def _write_manifest(path: Path, rows: list[dict[str, Any]]) -> None:
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
