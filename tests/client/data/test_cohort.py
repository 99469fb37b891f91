import logging
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.data import pixels, store
from client.data.cohort import Cohort, concatenate, read, resplit
from rainhill.config import SiteConfig, SplitConfig
from rainhill.errors import ConfigError, DataError
from rainhill.toml import read_toml

PROJECT = Path(__file__).parents[3]
CXR = PROJECT.parent / "shared/data/cxr"

needs_cxr = pytest.mark.skipif(not (CXR / "metadata.csv").is_file(), reason="the real chest films are not on this machine")


def hospital(folder, *, patients=12, header="image,patient,pneumonia,split,sex,age,view,report", row=None):
    """Two films of each patient; every second patient has pneumonia."""
    rng = np.random.default_rng(5)
    lines = [header]
    for n in range(2 * patients):
        Image.fromarray(rng.integers(0, 256, (24, 24), dtype=np.uint8)).save(folder / f"{n}.png")
        part = ("train", "train", "val", "test")[n // 2 % 4]
        lines.append(row(n) if row else f"{n}.png,ward-{n // 2},{n // 2 // 4 % 2},{part},F,{20 + n},PA,Film {n}.")
    (folder / "films.csv").write_text("\n".join(lines) + "\n")


def site(**data):
    columns = {"sex": "sex", "age": "age", "view": "view", "report": "report"}
    return SiteConfig.model_validate({"name": "ward", "data": {"manifest": "films.csv", "columns": columns} | data})


def load(folder, *, findings=("pneumonia",), cache=None, **data):
    return read(site(**data), findings=findings, size=16, base=folder, cache=cache)


@pytest.fixture
def ward(tmp_path):
    hospital(tmp_path)
    return tmp_path


def test_a_cohort_is_arrays_with_patients_as_the_unit(ward):
    cohort = load(ward)
    assert cohort.images.shape == (24, 1, 16, 16)
    assert cohort.images.dtype == np.float32
    assert cohort.labels.shape == (24, 1)
    assert cohort.labels.dtype == np.float32
    assert cohort.patients.tolist() == [n // 2 for n in range(24)]
    assert cohort.n_patients == 12
    assert cohort.sex[0] == "F"
    assert cohort.age.dtype == np.float32
    assert cohort.view[0] == "PA"
    assert cohort.reports[3] == "Film 3."
    for patient in range(12):
        assert len(set(cohort.split[cohort.patients == patient].tolist())) == 1


def test_no_identifier_and_no_report_is_in_what_a_cohort_shows(ward, caplog):
    caplog.set_level(logging.DEBUG)
    cohort = load(ward)
    assert repr(cohort) == "Cohort(site='ward', 24 images of 12 patients, findings=('pneumonia',))"
    assert "site ward: 24 images of 12 patients" in caplog.text
    assert "ward-" not in caplog.text
    assert "Film" not in caplog.text
    assert ".png" not in caplog.text


def test_a_part_numbers_its_patients_anew(ward):
    cohort = load(ward)
    parts = [cohort.part(name) for name in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(cohort)
    for part in parts:
        assert set(part.patients.tolist()) == set(range(part.n_patients))
        assert len(part.reports) == len(part)
    with pytest.raises(ValueError, match="'dev' is not one of train, val, test"):
        cohort.part("dev")


def test_an_empty_part_is_a_cohort_too(ward):
    nothing = load(ward, split={"test": 0.0}).part("test")
    assert (len(nothing), nothing.n_patients, nothing.images.shape) == (0, 0, (0, 1, 16, 16))


def test_the_manifest_s_own_split_is_used_as_it_is(ward):
    cohort = load(ward, columns={"split": "split"})
    assert cohort.split.tolist() == [("train", "train", "val", "test")[n // 2 % 4] for n in range(24)]


def test_dealing_again_needs_no_file_and_changes_only_the_parts(ward):
    cohort = load(ward)
    tested = []
    for fold in range(3):
        again = resplit(cohort, SplitConfig(folds=3, fold=fold))
        assert again.images is cohort.images
        tested += np.flatnonzero(again.split == "test").tolist()
    assert sorted(tested) == list(range(24))
    assert (resplit(cohort, SplitConfig()).split == cohort.split).all()


def test_a_fingerprint_is_of_the_data_and_of_nothing_else(ward):
    cohort = load(ward)
    assert cohort.fingerprint() == load(ward).fingerprint()
    assert cohort.fingerprint() == concatenate([cohort], site="another_name").fingerprint()
    assert len(cohort.fingerprint()) == 64
    assert cohort.fingerprint() != resplit(cohort, SplitConfig(seed=1)).fingerprint()
    assert cohort.fingerprint() != cohort.part("train").fingerprint()


def test_pooled_patients_stay_distinct(ward):
    cohort = load(ward)
    pooled = concatenate([cohort, cohort, cohort.part("train")], site="pooled")
    assert pooled.site == "pooled"
    assert pooled.n_patients == 24 + cohort.part("train").n_patients
    assert pooled.part("test").n_patients == 2 * cohort.part("test").n_patients
    assert pooled.reports[24:48] == cohort.reports


def asked(folder, *, indication="Cough {n}.", prior="Film before {n}."):
    """With texts of every third film, in columns that are read."""
    lines = (folder / "films.csv").read_text().splitlines()
    texts = [[text.format(n=n) if n % 3 == 0 else "" for text in (indication, prior)] for n in range(24)]
    longer = [f"{line},{','.join(text)}" for line, text in zip(lines, [["indication", "prior"], *texts], strict=True)]
    (folder / "films.csv").write_text("\n".join(longer) + "\n")
    return load(folder, columns={"report": "report", "indication": "indication", "prior": "prior"})


def test_indications_and_priors_are_read_and_stay_with_their_images(ward):
    cohort = asked(ward)
    assert cohort.indications[:4] == ("Cough 0.", "", "", "Cough 3.")
    assert cohort.priors[:4] == ("Film before 0.", "", "", "Film before 3.")
    for part in [*map(cohort.part, ("train", "val", "test")), concatenate([cohort, cohort.part("val")], site="pooled")]:
        for report, indication, prior in zip(part.reports, part.indications, part.priors, strict=True):
            number = int(report.removeprefix("Film ").removesuffix("."))
            there = number % 3 == 0
            assert (indication, prior) == ((f"Cough {number}.", f"Film before {number}.") if there else ("", ""))


def test_indications_and_priors_are_empty_where_there_is_no_such_column(ward):
    cohort = load(ward)
    assert cohort.indications == cohort.priors == ("",) * 24


@pytest.mark.parametrize("column", ["indication", "prior"])
def test_another_indication_or_prior_gives_another_fingerprint_and_empty_ones_none(tmp_path, column):
    seen = []
    for number, texts in enumerate(({}, {column: ""}, {column: "One."}, {column: "Other."})):
        folder = tmp_path / str(number)
        folder.mkdir()
        hospital(folder)
        cohort = asked(folder, **{"indication": "", "prior": ""} | texts) if texts else load(folder, columns={"report": "report"})
        seen.append(cohort.fingerprint())
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


def test_an_indication_is_not_taken_for_a_prior(tmp_path):
    seen = set()
    for name, texts in (("a", ("Text.", "")), ("b", ("", "Text."))):
        (tmp_path / name).mkdir()
        hospital(tmp_path / name)
        seen.add(asked(tmp_path / name, indication=texts[0], prior=texts[1]).fingerprint())
    assert len(seen) == 2


def test_what_does_not_fit_is_not_pooled(ward):
    cohort = load(ward)
    with pytest.raises(DataError, match=r"site ward: findings \('nodule', 'pneumonia'\) are not \('pneumonia',\) of site ward"):
        concatenate([cohort, load(ward, findings=("nodule", "pneumonia"))], site="pooled")
    larger = read(site(), findings=("pneumonia",), size=20, base=ward)
    with pytest.raises(DataError, match=r"images \(1, 20, 20\) are not \(1, 16, 16\)"):
        concatenate([cohort, larger], site="pooled")


def test_arrays_of_different_length_are_no_cohort(ward):
    cohort = load(ward)
    columns = {name: getattr(cohort, name) for name in Cohort.__dataclass_fields__}
    with pytest.raises(ValueError, match=r"age: shape \(23,\) is not \(24,\)"):
        Cohort(**columns | {"age": cohort.age[1:]})
    with pytest.raises(ValueError, match=r"priors: shape \(23,\) is not \(24,\)"):
        Cohort(**columns | {"priors": cohort.priors[1:]})


def test_unreadable_images_are_listed_by_row(ward):
    (ward / "3.png").write_bytes(b"no image")
    Image.fromarray(np.full((24, 24), 7, np.uint8)).save(ward / "5.png")
    with pytest.raises(DataError) as refusal:
        load(ward)
    assert str(refusal.value).splitlines() == [
        f"{ward / 'films.csv'}: 2 problems",
        "  row 5: unreadable image: not a DICOM, PNG, JPEG or TIFF file",
        "  row 7: unreadable image: has a single value",
    ]


def refused(folder, **data):
    with pytest.raises(DataError) as refusal:
        load(folder, **data)
    return str(refusal.value)


def test_an_empty_site_is_refused(ward):
    message = refused(ward, where={"sex": "M", "view": "PA"})
    assert message == f"site ward: is empty, no row of {ward / 'films.csv'} matches sex = 'M' and view = 'PA'"
    (ward / "films.csv").write_text("image,patient,pneumonia\n")
    assert refused(ward, columns={}) == f"site ward: is empty, no row of {ward / 'films.csv'} is left"


def test_a_site_with_one_class_is_refused(tmp_path):
    hospital(tmp_path, header="image,patient,pneumonia,nodule", row=lambda n: f"{n}.png,{n},1,0")
    assert refused(tmp_path, columns={}) == ("site ward: every labelled training image has pneumonia = 1: one class cannot be learned")
    assert refused(tmp_path, columns={}, findings=("pneumonia", "nodule", "fracture")) == (
        "site ward: every labelled training image has pneumonia = 1, nodule = 0: one class cannot be learned"
    )
    assert refused(tmp_path, columns={}, findings=("fracture", "mass")) == "site ward: no training image is labelled for fracture, mass"


def test_one_class_of_one_finding_is_allowed_where_another_has_both(tmp_path):
    hospital(tmp_path, header="image,patient,pneumonia,nodule", row=lambda n: f"{n}.png,{n},1,{n % 2}")
    assert load(tmp_path, columns={}, findings=("pneumonia", "nodule")).labels.shape == (24, 2)


def test_fewer_patients_than_the_split_needs_are_refused(tmp_path):
    hospital(tmp_path, patients=3)
    assert refused(tmp_path, split={"folds": 5}) == "site ward: needs at least 5 patients for 5 folds, has 3"


def test_a_split_without_training_images_is_refused(tmp_path):
    hospital(tmp_path, header="image,patient,pneumonia,split", row=lambda n: f"{n}.png,{n},{n % 2},test")
    assert refused(tmp_path, columns={"split": "split"}) == "site ward: none of 24 images is in train"


def test_dealing_again_refuses_what_cannot_be_learned(tmp_path):
    hospital(tmp_path)
    with pytest.raises(DataError, match=r"^site ward: needs at least 20 patients for 20 folds, has 12$"):
        resplit(load(tmp_path), SplitConfig(folds=20))


def test_a_site_without_data_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"site ward: has no \[data\]"):
        read(SiteConfig(name="ward"), findings=("pneumonia",), size=16, base=tmp_path)


def test_a_copy_under_another_patient_is_counted_in_the_log(ward, caplog):
    (ward / "9.png").write_bytes((ward / "2.png").read_bytes())
    load(ward)
    assert "site ward: 1 images are copies of another patient's" in caplog.text


@pytest.fixture
def decoded(monkeypatch):
    """The paths that were decoded, one by one."""
    paths = []

    def counted(path, size, read_image=pixels.read_image):
        paths.append(path)
        return read_image(path, size)

    monkeypatch.setattr(pixels, "read_image", counted)
    return paths


def test_a_cached_cohort_is_the_same_and_decodes_nothing(ward, tmp_path, decoded):
    first = load(ward, cache=tmp_path / "cache")
    assert len(decoded) == 24
    second = load(ward, cache=tmp_path / "cache", split={"folds": 4})  # the cache is of pixels: another split is no other pixel
    assert len(decoded) == 24
    np.testing.assert_array_equal(first.images, second.images)
    kept = list((tmp_path / "cache").iterdir())
    # One of pixels, one of what they were made from, and a mark for each of the two cohorts.
    assert sorted(file.suffix for file in kept) == [".cohort", ".cohort", ".json", ".npy"]
    assert all(file.stat().st_mode & 0o077 == 0 for file in kept)


def test_a_changed_image_or_size_is_decoded_again(ward, tmp_path, decoded):
    load(ward, cache=tmp_path / "cache")
    os.utime(ward / "3.png", ns=(0, 0))
    load(ward, cache=tmp_path / "cache")
    assert len(decoded) == 48
    read(site(), findings=("pneumonia",), size=8, base=ward, cache=tmp_path / "cache")
    assert len(decoded) == 72


def test_a_cached_cohort_is_the_same_as_one_in_memory(ward, tmp_path):
    in_memory, cached = load(ward), load(ward, cache=tmp_path / "cache")
    np.testing.assert_array_equal(in_memory.images, cached.images)
    assert in_memory.fingerprint() == cached.fingerprint()
    assert in_memory.part("val").fingerprint() == cached.part("val").fingerprint()
    assert not in_memory.images.files
    assert concatenate([cached.part("val"), cached], site="pooled").images.files == cached.images.files


def test_fingerprints_are_those_of_earlier_versions(ward):
    """Approvals and ledgers name cohorts by them."""
    assert load(ward).fingerprint() == "f4050b8f8373d8f20af37688121a9a5900ccfb41267e1444a7e46d8732624815"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "another shape", "no description"])
def test_a_damaged_cache_is_rebuilt(ward, tmp_path, decoded, damage, caplog):
    # A copy in memory: what is mapped must not be cut short under its reader.
    first = np.array(load(ward, cache=tmp_path / "cache").images)
    (cached,) = (tmp_path / "cache").glob("*.npy")
    content = bytearray(cached.read_bytes())
    if damage == "another shape":
        np.save(cached, first[:3])
    elif damage == "no description":
        cached.with_suffix(".json").write_text("{")
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        cached.write_bytes(content)
    else:
        cached.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    again = load(ward, cache=tmp_path / "cache")
    np.testing.assert_array_equal(first, again.images)
    assert len(decoded) == 48
    assert "decoding again" in caplog.text
    load(ward, cache=tmp_path / "cache")
    assert len(decoded) == 48


def test_a_cache_that_cannot_be_written_costs_only_time(ward, tmp_path, caplog):
    allowed, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most))
    try:
        cohort = load(ward, cache=tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, most))
    np.testing.assert_array_equal(cohort.images, load(ward).images)
    assert f"image cache not written: File too large ({tmp_path / 'cache'}: 0.0 MB needed, " in caplog.text
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_wiped_cohort_leaves_no_pixels_and_another_keeps_its_own(ward, tmp_path, decoded):
    other_ward = tmp_path / "other"
    other_ward.mkdir()
    hospital(other_ward, patients=10)
    gone, kept = load(ward, cache=tmp_path / "cache"), load(other_ward, cache=tmp_path / "cache")
    assert store.wipe(tmp_path / "cache", gone.fingerprint()) == list(gone.images.files)
    assert {file.name.partition(".")[0] for file in (tmp_path / "cache").iterdir()} == {kept.images.files[0].stem}
    # What is mapped stays readable until the last reader lets go.
    assert gone.fingerprint() == load(ward).fingerprint()
    decoded.clear()
    load(other_ward, cache=tmp_path / "cache")
    assert not decoded


def test_every_real_site_has_a_file_of_its_own_name():
    files = sorted((PROJECT / "sites/cxr").glob("*.toml"))
    assert {path.stem for path in files} >= {"guangzhou", "nih_ap", "nih_matched", "nih_pa"}
    for path in files:
        assert read_toml(path, SiteConfig).name == path.stem


@needs_cxr
@pytest.mark.parametrize(
    ("name", "images", "patients"), [("guangzhou", 480, 480), ("nih_matched", 165, 163), ("nih_ap", 123, 122), ("nih_pa", 39, 39)]
)
def test_the_real_films_are_read(name, images, patients, tmp_path_factory):
    folder = PROJECT / "sites/cxr"
    config = read_toml(folder / f"{name}.toml", SiteConfig)
    cohort = read(config, findings=("pneumonia",), size=32, base=folder)
    assert (len(cohort), cohort.n_patients) == (images, patients)
    assert not np.isnan(cohort.labels).any()
    assert 0.4 < cohort.labels.mean() < 0.6
    for fold in range(5):
        dealt = resplit(cohort, config.data.split.model_copy(update={"fold": fold}))
        for part in ("train", "val", "test"):
            assert set(dealt.part(part).labels.ravel().tolist()) == {0.0, 1.0}
