import csv
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest

import sites
from client.data import cohort
from client.data.labeler import Labeler
from rainhill.config import SiteConfig
from rainhill.errors import ConfigError
from rainhill.toml import parse, read_toml
from sites import hospital, report_text
from sites.hospital import HospitalConfig
from sites.phantom import FINDINGS, labels, render
from sites.shift import apply

LABELER = Labeler()
TOMLS = sorted(Path(sites.__file__).parent.glob("*.toml"))
RAW = {
    "name": "testing",
    "title": "Testing Infirmary",
    "phantom": {
        "patients": 10,
        "test_patients": 6,
        "missed": 0.5,
        "population": {"prevalence": dict.fromkeys(FINDINGS, 0.4)},
        "projection": {"ap": 0.5},
    },
}


@pytest.fixture(scope="module")
def config():
    return parse(RAW, HospitalConfig, origin="test")


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory):
    return hospital.write(config, tmp_path_factory.mktemp("testing"), seed=1)


@pytest.fixture(scope="module")
def rows(folder):
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def cases(config):
    known, test = hospital.draw(config.phantom, seed=1)
    return [case for patient in [*known, *test] for case in patient.cases]


def test_the_manifest_names_every_film_once(folder, rows):
    assert tuple(rows[0]) == hospital.COLUMNS
    assert sorted(row["image"] for row in rows) == sorted(f"films/{path.name}" for path in (folder / "films").iterdir())
    assert len({row["patient_id"] for row in rows}) == 16
    assert {row["split"] for row in rows} == {"train", "val", "test"}


def test_no_patient_is_in_two_splits(rows):
    pairs = {(row["patient_id"], row["split"]) for row in rows}
    assert len(pairs) == 16
    assert sum(split == "val" for _, split in pairs) == 2
    assert sum(split == "test" for _, split in pairs) == 6


def test_label_noise_is_in_what_the_site_trains_on_and_not_in_the_test(rows, cases):
    for wanted, noisy in (("test", False), ("train", True)):
        pairs = [
            ([int(row[name]) for name in FINDINGS], labels(case)) for row, case in zip(rows, cases, strict=True) if row["split"] == wanted
        ]
        given, truth = (np.array(part) for part in zip(*pairs, strict=True))
        assert (given != truth).any() == noisy
        assert (given <= truth).all()  # invented = 0


def test_a_film_reads_back_as_it_was_drawn(folder, rows, cases, config):
    stored = apply(render(cases[:4]).attenuation, config.phantom.shift, [case.exposure for case in cases[:4]])
    for row, case, values in zip(rows, cases[:4], stored, strict=False):
        film = pydicom.dcmread(folder / row["image"])
        assert np.array_equal(film.pixel_array, values)
        assert film.PatientID == row["patient_id"]
        assert film.ViewPosition == case.exposure.view == row["view"]
        assert film.PatientSex == row["sex"]
        assert film.PatientAge.endswith(("Y", "M"))
        assert film.BodyPartExamined == "CHEST"
        assert film.InstitutionName == "Testing Infirmary"
        assert (film.BitsAllocated, film.BitsStored, film.HighBit) == (16, 12, 11)
        assert film.PhotometricInterpretation == "MONOCHROME2"
        assert film.file_meta.MediaStorageSOPInstanceUID == film.SOPInstanceUID
        assert all(pydicom.uid.UID(film[key].value).is_valid for key in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"))
        assert len(film.PixelSpacing) == 2


def test_headers_follow_the_equipment(tmp_path):
    changed = RAW["phantom"] | {
        "patients": 2,
        "test_patients": 0,
        "equipment": {"modality": "CR", "rescale": [2.0, -10.0]},
        "shift": {"photometric": "MONOCHROME1"},
    }
    folder = hospital.write(parse(RAW | {"phantom": changed}, HospitalConfig, origin="test"), tmp_path, seed=1)
    film = pydicom.dcmread(next((folder / "films").iterdir()))
    assert film.SOPClassUID == pydicom.uid.ComputedRadiographyImageStorage
    assert (film.RescaleSlope, film.RescaleIntercept) == (2, -10)
    assert film.PhotometricInterpretation == "MONOCHROME1"
    assert film.pixel_array[2, 2] > film.pixel_array[96, 96]  # the free beam, then the spine: bright is low


def test_same_hospital_and_seed_give_the_same_bytes_and_another_seed_does_not(config, folder, tmp_path):
    again, other = hospital.write(config, tmp_path / "again", seed=1, threads=1), hospital.write(config, tmp_path / "other", seed=2)
    for path in sorted((folder / "films").iterdir()):
        assert path.read_bytes() == (again / "films" / path.name).read_bytes()
    assert (folder / "manifest.csv").read_bytes() == (again / "manifest.csv").read_bytes()
    assert (folder / "boxes.json").read_bytes() == (again / "boxes.json").read_bytes()
    first = "films/TES000000_0.dcm"
    assert (folder / first).read_bytes() != (other / first).read_bytes()


def test_a_complete_folder_is_used_again_and_an_incomplete_one_is_not(config, tmp_path):
    small = parse(RAW | {"phantom": RAW["phantom"] | {"patients": 2, "test_patients": 0}}, HospitalConfig, origin="test")
    film = tmp_path / "films" / "TES000000_0.dcm"
    hospital.write(small, tmp_path, seed=1)
    before = film.stat().st_mtime_ns
    hospital.write(small, tmp_path, seed=1)
    assert film.stat().st_mtime_ns == before
    (tmp_path / "complete.json").unlink()
    hospital.write(small, tmp_path, seed=1)
    assert film.stat().st_mtime_ns != before
    assert hospital.fingerprint(small, seed=1) != hospital.fingerprint(small, seed=2)
    assert hospital.fingerprint(small, seed=1) != hospital.fingerprint(config, seed=1)


def test_two_runs_that_want_a_hospital_at_once_draw_it_once(tmp_path):
    small = parse(RAW | {"phantom": RAW["phantom"] | {"patients": 4, "test_patients": 2}}, HospitalConfig, origin="test")
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: hospital.write(small, tmp_path / "small", seed=1), range(4)))
    assert set(folders) == {tmp_path / "small"}
    with (tmp_path / "small" / "manifest.csv").open(newline="") as file:
        assert all((tmp_path / "small" / row["image"]).stat().st_size > 1000 for row in csv.DictReader(file))


def test_boxes_say_where_each_finding_is(folder, rows, cases):
    boxes = json.loads((folder / "boxes.json").read_text())
    assert set(boxes) == {row["image"] for row in rows}
    for row, case in zip(rows, cases, strict=True):
        assert set(boxes[row["image"]]) == {finding.name for finding in case.findings}
        for found in boxes[row["image"]].values():
            assert len(found["box"]) == 4
            assert 0 <= min(found["box"]) <= max(found["box"]) <= 192


def test_data_config_names_what_is_there(folder, rows):
    data = hospital.data_config(folder)
    assert data.manifest.exists()
    assert {*data.columns.model_dump().values(), *data.labels.values()} == set(rows[0])


def test_films_and_labels_stay_what_they_were(folder, rows):
    assert "".join(row[name] for row in rows for name in FINDINGS) == (
        "00000100000000001010100000101011000000000001000101101000000000000000100000101010"
        "00100010010000100000110100000100111011100100100001001000010010001000011010000110"
    )
    assert [(row["image"], row["age"], row["view"], row["sex"]) for row in rows[:3]] == [
        ("films/TES000000_0.dcm", "31.7", "AP", "F"),
        ("films/TES000001_0.dcm", "79.1", "AP", "F"),
        ("films/TES000002_0.dcm", "95.0", "PA", "M"),
    ]
    known = {0: (1984.155, [0, 1515, 3397, 1772]), 1: (2696.351, [2084, 2904, 3476, 2654]), 2: (2311.231, [1288, 2172, 3435, 2185])}
    for place, (mean, across) in known.items():
        values = pydicom.dcmread(folder / rows[place]["image"]).pixel_array
        assert values.mean() == pytest.approx(mean, abs=0.1)
        # One step: another processor may round the last place otherwise.
        assert values[96, [20, 60, 96, 150]].tolist() == pytest.approx(across, abs=1)


def test_reports_mention_what_is_there(rows):
    assert all(row["report"].startswith("Chest radiograph") for row in rows)
    assert any("effusion" in row["report"] for row in rows)


def test_a_report_compares_with_nothing_where_nobody_asked_for_it(rows):
    assert any(row["image"].endswith("_1.dcm") for row in rows)
    assert all(row["indication"] and not row["prior"] and not LABELER.comparisons(row["report"]) for row in rows)


def texts(**changed):
    """The cases of twelve patients, and the three texts of each row, without a film."""
    asked = RAW["phantom"] | {"images_per_patient": (2, 3)} | changed
    config = parse(RAW | {"phantom": asked}, HospitalConfig, origin="test").phantom
    films = list(hospital._films("testing", config, seed=1))
    return films, [hospital._row(film, config) for film in films]


def test_the_report_of_a_further_film_compares_with_the_film_before_whose_report_is_the_prior():
    films, rows = texts(with_priors=True)
    latest = {}
    for film, row in zip(films, rows, strict=True):
        case, before = latest.get(row["patient_id"], (None, ""))
        assert row["prior"] == before
        assert row["report"] == report_text.write(film.case, "prose", before=case)
        assert bool(LABELER.comparisons(row["report"])) == bool(before)
        latest[row["patient_id"]] = (film.case, row["report"])
    assert sum(bool(row["prior"]) for row in rows) == len(rows) - 16


def test_so_many_first_films_as_asked_compare_with_a_film_that_is_not_there():
    for share, low, high in ((0.0, 0, 0), (0.5, 60, 100), (1.0, 160, 160)):
        _, rows = texts(patients=160, test_patients=0, lost_priors=share)
        compared = [row["image"] for row in rows if LABELER.comparisons(row["report"])]
        assert all(image.endswith("_0.dcm") for image in compared)
        assert low <= len(compared) <= high
        assert not any(row["prior"] for row in rows)


def test_what_is_compared_changes_the_texts_and_nothing_else(folder, rows, tmp_path):
    compared = parse(RAW | {"phantom": RAW["phantom"] | {"with_priors": True, "lost_priors": 1.0}}, HospitalConfig, origin="test")
    other = hospital.write(compared, tmp_path, seed=1)
    for path in sorted((folder / "films").iterdir()):
        assert path.read_bytes() == (other / "films" / path.name).read_bytes()
    with (other / "manifest.csv").open(newline="") as file:
        again = list(csv.DictReader(file))
    differ = {name for row, one in zip(rows, again, strict=True) for name in row if row[name] != one[name]}
    assert differ == {"report", "prior"}


def test_a_cohort_has_the_texts_as_they_were_written(folder, rows):
    site = SiteConfig(name="testing", data=hospital.data_config(folder))
    read = cohort.read(site, findings=("effusion",), size=32, base=folder)
    for texts, column in ((read.reports, "report"), (read.indications, "indication"), (read.priors, "prior")):
        assert texts == tuple(row[column] for row in rows)
    assert "\nImpression: " in read.reports[0]


def test_a_hospital_without_a_phantom_cannot_be_written(tmp_path):
    with pytest.raises(ConfigError, match="testing"):
        hospital.write(HospitalConfig(name="testing"), tmp_path, seed=1)


def test_an_unknown_key_or_a_missing_finding_is_refused():
    with pytest.raises(ConfigError, match="patents"):
        parse(RAW | {"phantom": RAW["phantom"] | {"patents": 3}}, HospitalConfig, origin="test")
    with pytest.raises(ConfigError, match="nodule"):
        parse(RAW | {"phantom": RAW["phantom"] | {"population": {"prevalence": {"effusion": 0.2}}}}, HospitalConfig, origin="test")


def test_six_hospitals_load_and_each_is_its_own():
    known = [read_toml(path, HospitalConfig) for path in TOMLS]
    known = [site for site in known if site.phantom]
    assert {"liverpool", "manchester"} < {site.name for site in known}
    assert len(known) >= 6
    assert [site.name for site in known] == [path.stem for path in TOMLS if read_toml(path, HospitalConfig).phantom]
    for part in ("population", "projection", "shift", "seed"):
        assert len({str(getattr(site.phantom, part)) for site in known}) == len(known)
    for site in known:
        assert all(0.06 <= p <= 0.6 for p in site.phantom.population.prevalence.values())
        assert all(p * site.phantom.test_patients >= 12 for p in site.phantom.population.prevalence.values())
    assert min(site.phantom.patients for site in known) == 150
