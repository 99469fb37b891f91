"""Sets of films with labels and no reports, and plain folders of images."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from client.data.importers import describe, from_options, names
from client.data.importers._films import plain_age, plain_sex
from client.data.importers._labels import CHEXPERT, chexpert_labels, snake, strongest
from client.data.importers._selection import Choice
from client.data.vocabulary import FINDINGS
from rainhill.errors import ConfigError, DataError, PluginError

NAN = float("nan")
NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],"
    "OriginalImagePixelSpacing[x,y],"
)


@pytest.fixture
def nih(disk):
    rows = (
        ("00000001_000.png", "Cardiomegaly|Mass", 0, 1, "058Y", "M", "PA"),
        ("00000002_000.png", "No Finding", 0, 2, 81, "F", "AP"),
        ("00000002_001.png", "Nodule|Effusion", 1, 2, "412", "F", "AP"),
        ("00000003_000.png", "Pleural_Thickening", 0, 3, "007M", "", "PA"),
    )
    disk.table("Data_Entry_2017.csv", NIH, *([*row, 2682, 2749, 0.143, 0.143, ""] for row in rows))
    disk.text("train_val_list.txt", "00000001_000.png\n00000002_000.png\n00000002_001.png\n")
    disk.text("test_list.txt", "00000003_000.png\n")
    disk.film("images_001/images/00000001_000.png", "images_001/images/00000002_000.png", "images_002/images/00000002_001.png")
    disk.film("images_002/images/00000003_000.png")
    return disk


def test_nih_gives_labels_patients_ages_and_parts(nih, imported):
    made = imported("nih_chestxray14")
    assert made.images[2] == "images_002/images/00000002_001.png"
    found = made.cohort("cardiomegaly", "lung_lesion", "mass", "pleural_effusion", "no_finding")
    assert found.labels.tolist() == [[1, 1, 1, 0, 0], [0, 0, 0, 0, 1], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert found.patients.tolist() == [0, 1, 1, 2]
    np.testing.assert_allclose(found.age, [58, 81, NAN, 7 / 12], rtol=1e-3)
    assert (found.sex.tolist(), found.view.tolist()) == (["M", "F", "F", ""], ["PA", "AP", "AP", "PA"])
    assert made.tally.impossible_ages == 1
    assert made.column("split")[3] == "test"
    assert set(made.column("split")[:3]) <= {"train", "val"}


def test_a_part_that_the_set_does_not_have_is_dealt_by_lots_of_patients(disk, imported):
    films = [f"{patient:08d}_{film:03d}.png" for patient in range(200) for film in range(2)]
    disk.table("Data_Entry_2017_v2020.csv", NIH, *([film, "No Finding", 0, int(film[:8]), 50, "M", "PA", 1, 1, 1, 1, ""] for film in films))
    disk.text("train_val_list.txt", "\n".join(films[:300]))
    disk.text("test_list.txt", "\n".join(films[300:]))
    for film in films:
        (disk.root / film).touch()
    made = imported("nih_chestxray14")
    parts = made.column("split")
    assert parts[::2] == parts[1::2]
    assert set(parts[300:]) == {"test"}
    # 150 lots of 0.15 each.
    assert 10 <= parts[:300:2].count("val") <= 36
    assert made.site.data.columns.split == "split"
    assert any("the set has no val" in note for note in made.notes)
    assert imported("nih_chestxray14").column("split") == parts


def test_images_are_found_through_links_each_once(nih, imported, tmp_path):
    (nih.root / "images_002").rename(tmp_path / "elsewhere")
    (nih.root / "images_002").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(nih.root)
    assert imported("nih_chestxray14").images[2:] == ["images_002/images/00000002_001.png", "images_002/images/00000003_000.png"]


def test_nih_refuses_a_label_that_it_does_not_know(nih, imported):
    nih.table("Data_Entry_2017.csv", NIH, ["a.png", "Infiltrate", 0, 1, 58, "M", "PA", 1, 1, 1, 1, ""])
    with pytest.raises(DataError, match="row 2: 'Infiltrate' is none of the set's labels"):
        imported("nih_chestxray14")


def test_a_film_in_no_part_is_left_out_and_counted(nih, imported):
    nih.text("test_list.txt", "")
    made = imported("nih_chestxray14")
    assert len(made.rows) == 3
    assert "1 film in no part of the set, left out" in made.notes


CHEX = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(CHEXPERT)


def chex_row(path, *, sex="Female", age=60, plane="Frontal", view="AP", **labels):
    return [f"CheXpert-v1.0-small/{path}", sex, age, plane, view, *(labels.get(finding, "") for finding in CHEXPERT.values())]


@pytest.fixture
def chex(disk):
    disk.table(
        "CheXpert-v1.0-small/train.csv",
        CHEX,
        chex_row("train/patient00001/study1/view1_frontal.jpg", cardiomegaly="1.0", edema="-1.0"),
        chex_row("train/patient00001/study1/view2_lateral.jpg", plane="Lateral", view="", cardiomegaly="1.0", edema="-1.0"),
        chex_row("train/patient00001/study2/view1_frontal.jpg", cardiomegaly="0.0"),
        chex_row("train/patient00002/study1/view1_frontal.jpg", sex="Unknown", age=0, no_finding="1.0", support_devices="1.0"),
    )
    disk.table(
        "CheXpert-v1.0-small/valid.csv", CHEX, chex_row("valid/patient64541/study1/view1_frontal.jpg", view="PA", cardiomegaly="0.0")
    )
    first = ("patient00001/study1/view1_frontal", "patient00001/study1/view2_lateral", "patient00001/study2/view1_frontal")
    disk.film(*(f"CheXpert-v1.0-small/train/{film}.jpg" for film in (*first, "patient00002/study1/view1_frontal")))
    disk.film("CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg")
    return disk


def test_chexpert_gives_labels_patients_and_parts(chex, imported):
    made = imported("chexpert")
    assert made.column("edema") == ["-1", "", "0", ""]
    found = made.cohort("cardiomegaly", "edema", "no_finding", "support_devices")
    np.testing.assert_array_equal(found.labels, [[1, NAN, NAN, NAN], [0, NAN, NAN, NAN], [0, 0, 1, 1], [0, NAN, NAN, NAN]])
    assert made.column("patient") == ["patient00001", "patient00001", "patient00002", "patient64541"]
    # There is no test part: by lot, the second patient is dealt into it.
    assert found.split.tolist() == ["train", "train", "test", "val"]
    assert (found.sex.tolist(), found.view.tolist()) == (["F", "F", "", "F"], ["AP", "AP", "AP", "PA"])


def test_chexpert_is_found_from_within_and_in_its_batches(disk, imported):
    row = chex_row("train/patient00001/study1/view1_frontal.jpg", cardiomegaly="1.0")
    disk.table("CheXpert-v1.0 batch 1 (validate & csv)/train.csv", CHEX, row)
    disk.film("CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg")
    assert imported("chexpert").images == ["CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg"]
    disk.root /= "CheXpert-v1.0 batch 1 (validate & csv)"
    disk.film("train/patient00001/study1/view1_frontal.jpg")
    assert imported("chexpert").images == ["train/patient00001/study1/view1_frontal.jpg"]


def test_chexpert_takes_the_test_films_where_they_are(chex, imported):
    header = "Path," + ",".join(CHEXPERT)
    film = "test/patient64741/study1/view1_frontal.jpg"
    chex.table("CheXpert-v1.0-small/test_labels.csv", header, [film, *["0.0"] * 14])
    chex.film(f"CheXpert-v1.0-small/{film}")
    made = imported("chexpert")
    assert (made.column("split")[4], made.column("view")[4], made.column("edema")[4]) == ("test", "FRONTAL", "0")


def test_chexpert_refuses_a_path_of_another_form(chex, imported):
    chex.table("CheXpert-v1.0-small/train.csv", CHEX, chex_row("somewhere/else.jpg"))
    with pytest.raises(DataError, match="row 2: .*somewhere/else.jpg.* is not the path of a film of CheXpert"):
        imported("chexpert")


VINDR = (
    "Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Clavicle fracture,Consolidation,Edema,Emphysema,Enlarged PA,ILD,Infiltration,"
    "Lung Opacity,Lung cavity,Lung cyst,Mediastinal shift,Nodule/Mass,Pleural effusion,Pleural thickening,Pneumothorax,Pulmonary fibrosis,"
    "Rib fracture,Other lesion,COPD,Lung tumor,Pneumonia,Tuberculosis,{other},No finding"
)


def vindr_row(*there, other="Other diseases"):
    return [int(column in there) for column in VINDR.format(other=other).split(",")]


@pytest.fixture
def vindr(disk):
    disk.table(
        "annotations/image_labels_train.csv",
        "image_id,rad_id," + VINDR.format(other="Other diseases"),
        ["aa", "R1", *vindr_row("Cardiomegaly", "Rib fracture")],
        ["bb", "R1", *vindr_row("No finding")],
        ["aa", "R2", *vindr_row("Cardiomegaly")],
        ["bb", "R2", *vindr_row("No finding")],
        ["aa", "R3", *vindr_row("Other diseases")],
        ["bb", "R3", *vindr_row("Lung tumor")],
    )
    disk.table(
        "annotations/image_labels_test.csv",
        "image_id," + VINDR.format(other="Other disease"),
        ["cc", *vindr_row("Nodule/Mass", "Other disease", other="Other disease")],
    )
    disk.dicom("train/aa.dicom", sex="M", age="047Y")
    disk.dicom("train/bb.dicom", sex="F", age="")
    disk.dicom("test/cc.dicom")
    return disk


def test_vindr_takes_what_most_readers_see(vindr, imported):
    made = imported("vindr")
    found = made.cohort("cardiomegaly", "fracture", "no_finding", "lung_lesion", "other_disease")
    assert found.labels.tolist() == [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert (found.sex.tolist(), found.view.tolist()) == (["M", "F", ""], ["PA"] * 3)
    np.testing.assert_array_equal(found.age, [47, NAN, NAN])
    assert found.patients.tolist() == [0, 1, 2]
    assert made.column("split")[2] == "test"
    assert "each counts as a patient of its own" in made.notes[0]


@pytest.mark.parametrize(("readers", "labels"), [(1, ["1", "0", "0"]), (2, ["0", "0", "0"])])
def test_vindr_readers_who_have_to_agree_can_be_fewer_or_more(vindr, imported, readers, labels):
    assert imported("vindr", readers=readers).column("fracture") == labels
    with pytest.raises(ConfigError, match="readers = '4'"):
        imported("vindr", readers=4)


@pytest.fixture
def rsna(disk):
    disk.table(
        "stage_2_train_labels.csv",
        "patientId,x,y,width,height,Target",
        ["a1", "264.0", "152.0", "213.0", "379.0", 1],
        ["a1", "562.0", "152.0", "256.0", "453.0", 1],
        ["b2", "", "", "", "", 0],
        ["c3", "", "", "", "", 0],
    )
    classes = (["a1", "Lung Opacity"], ["a1", "Lung Opacity"], ["b2", "Normal"], ["c3", "No Lung Opacity / Not Normal"])
    disk.table("stage_2_detailed_class_info.csv", "patientId,class", *classes)
    disk.dicom("stage_2_train_images/a1.dcm", sex="F", age="51", view="AP")
    disk.dicom("stage_2_train_images/b2.dcm", sex="M", age="48", view="PA")
    disk.dicom("stage_2_train_images/c3.dcm", sex="M", age="19", view="PA")
    return disk


def test_rsna_gives_one_row_a_film_whatever_its_boxes(rsna, imported):
    made = imported("rsna")
    found = made.cohort("pneumonia", "lung_opacity", "no_finding")
    assert found.labels.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert (found.sex.tolist(), found.age.tolist(), found.view.tolist()) == (["F", "M", "M"], [51, 48, 19], ["AP", "PA", "PA"])
    assert found.n_patients == 3
    assert "each counts as a patient of its own" in made.notes[0]


def test_rsna_patients_are_those_of_the_mapping_where_it_is_there(rsna, imported):
    mapping = [{"subset_img_id": one, "img_id": f"0000000{n}_00{n}.png"} for one, n in (("a1", 4), ("b2", 5), ("c3", 4), ("", 9))]
    rsna.text("pneumonia-challenge-dataset-mappings_2018.json", json.dumps(mapping))
    made = imported("rsna")
    assert dict(zip(made.images, made.column("patient"), strict=True)) == {
        "stage_2_train_images/a1.dcm": "00000004",
        "stage_2_train_images/b2.dcm": "00000005",
        "stage_2_train_images/c3.dcm": "00000004",
    }
    assert made.notes == ()
    rsna.text("pneumonia-challenge-dataset-mappings_2018.json", "[1]")
    with pytest.raises(DataError, match="is not the list of which film"):
        imported("rsna")


def test_rsna_refuses_a_target_of_another_kind(rsna, imported):
    rsna.table("stage_2_train_labels.csv", "patientId,x,y,width,height,Target", ["a1", 0, 0, 0, 0, "yes"])
    with pytest.raises(DataError, match="row 2: Target is 'yes', expected 0 or 1"):
        imported("rsna")


def test_a_folder_to_each_class_gives_one_label_to_each(disk, imported):
    disk.film("Melanoma/p1_a.png", "Melanoma/p1_b.jpg", "Basal cell/p2_a.tif")
    made = imported("image_folder", patient=r"/(p\d+)_")
    assert made.column("patient") == ["p2", "p1", "p1"]
    assert made.cohort("melanoma", "basal_cell").labels.tolist() == [[0, 1], [1, 0], [1, 0]]
    assert not any("of one person" in note for note in made.notes)
    loud = imported("image_folder")
    assert loud.column("patient") == loud.images
    assert any("each counts as a patient of its own" in note for note in loud.notes)


def test_folders_of_parts_are_parts(disk, imported):
    disk.film("train/a/1.png", "train/b/2.png", "valid/a/3.png", "test/b/4.png")
    found = imported("image_folder").cohort("a", "b")
    assert sorted(zip(found.split.tolist(), found.labels[:, 0].tolist(), strict=True)) == [
        ("test", 0),
        ("train", 0),
        ("train", 1),
        ("val", 1),
    ]


@pytest.mark.parametrize("films", [["1.png", "2.png"], ["a/1.png", "a/2.png"], ["a/1.png", "b/2.png", "3.png"], []])
def test_a_folder_without_classes_is_refused(disk, imported, films):
    disk.root.mkdir()
    disk.film(*films)
    with pytest.raises(DataError, match="with a folder to each class: its classes are"):
        imported("image_folder")


def test_a_table_beside_the_images_names_the_class_or_the_labels(disk, imported):
    disk.table(
        "metadata.csv",
        "lesion_id,image_id,dx,age,sex,bcc",
        ["L1", "ISIC_1", "mel", "55.0", "male", 1],
        ["L1", "ISIC_2", "nv", "", "male", 0],
        ["L2", "ISIC_3.jpg", "", "40", "female", ""],
    )
    disk.film("part_1/ISIC_1.jpg", "part_2/ISIC_2.jpg", "part_2/ISIC_3.jpg")
    named = {"image": "image_id", "patients": "lesion_id", "sex": "sex", "age": "age"}
    made = imported("image_folder", label="dx", **named)
    assert made.images == ["part_1/ISIC_1.jpg", "part_2/ISIC_2.jpg", "part_2/ISIC_3.jpg"]
    found = made.cohort("mel", "nv")
    np.testing.assert_array_equal(found.labels, [[1, 0], [0, 1], [NAN, NAN]])
    assert (found.patients.tolist(), found.sex.tolist()) == ([0, 0, 1], ["M", "M", "F"])
    assert imported("image_folder", labels="basal=bcc", **named).column("basal") == ["1", "0", ""]


def test_the_expression_of_the_documentation_finds_patients_in_the_names_of_images(disk, imported):
    text = (Path(__file__).parents[4] / "docs/importers.md").read_text(encoding="utf-8")
    (expression,) = re.findall(r"--set patient='([^']+)'", text)
    disk.film("train/mel_1/12_left.png", "train/mel_1/12_right.png", "test/nv_2/7_left_2.png")
    made = imported("image_folder", patient=expression)
    assert sorted(zip(made.images, made.column("patient"), strict=True)) == [
        ("test/nv_2/7_left_2.png", "7"),
        ("train/mel_1/12_left.png", "12"),
        ("train/mel_1/12_right.png", "12"),
    ]


def test_grades_are_named_after_their_column(disk, imported):
    disk.table("train.csv", "id_code,diagnosis", ["a", 0], ["b", 2], ["c", 0])
    disk.film("train_images/a.png", "train_images/b.png", "train_images/c.png")
    found = imported("image_folder", image="id_code", label="diagnosis").cohort("diagnosis_0", "diagnosis_2")
    assert found.labels.tolist() == [[1, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("options", "error", "problem"),
    [
        ({"patient": "("}, ConfigError, "is no regular expression"),
        ({"patient": "a", "patients": "b"}, ConfigError, "two sources of patients"),
        ({"patient": "nobody"}, DataError, "the patient's expression 'nobody' finds nothing"),
        ({"table": "t.csv"}, ConfigError, "either label=COLUMN"),
        ({"label": "dy"}, DataError, "has no column 'dy'"),
    ],
)
def test_a_folder_of_images_is_refused_by_name(disk, imported, options, error, problem):
    disk.table("t.csv", "image,dx", ["a/1", "x"])
    disk.film("a/1.png", "b/1.png")
    with pytest.raises(error, match=problem):
        imported("image_folder", **options)


def test_an_image_that_is_named_twice_is_refused(nih, imported):
    rows = [["00000001_000.png", "No Finding", 0, 1, 58, "M", "PA", 1, 1, 1, 1, ""]] * 2
    nih.table("Data_Entry_2017.csv", NIH, *rows)
    with pytest.raises(DataError, match="1 image that the tables name is named more than once: images_001/images/00000001_000.png"):
        imported("nih_chestxray14")


def test_an_empty_result_says_which_views_there_are(nih, imported):
    with pytest.raises(DataError, match="no film is left: of the views LL there is none, there are PA 2, AP 2"):
        imported("nih_chestxray14", choice=Choice(views=frozenset({"LL"})))


def test_a_limit_is_of_patients_and_findings_may_be_chosen(nih, imported):
    made = imported("nih_chestxray14", choice=Choice(patients=2, findings=("mass", "edema")))
    assert made.column("patient") == ["1", "2", "2"]
    assert list(made.site.data.labels) == ["mass", "edema"]
    assert "cardiomegaly" not in made.rows[0]
    with pytest.raises(ConfigError, match="--findings names 'masss', which the set does not have, did you mean 'mass'"):
        imported("nih_chestxray14", choice=Choice(findings=("masss",)))


def test_a_table_that_is_cut_short_or_lacks_a_column_is_refused(nih, imported):
    nih.text("Data_Entry_2017.csv", f"{NIH}\n00000001_000.png,Mass\n")
    with pytest.raises(DataError, match="row 2: 2 cells, expected 12 as in the header"):
        imported("nih_chestxray14")
    nih.text("Data_Entry_2017.csv", "Image Index,Patient ID\na,1\n")
    with pytest.raises(DataError, match="has no column 'Finding Labels', 'Patient Age', 'View Position'"):
        imported("nih_chestxray14")
    (nih.root / "Data_Entry_2017.csv").write_bytes(b"Image Index\n\xff\n")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        imported("nih_chestxray14")
    (nih.root / "Data_Entry_2017.csv").rename(nih.root / "Data_Entry_2017.csv.gz")
    with pytest.raises(DataError, match="cannot be read as a table"):
        imported("nih_chestxray14")


@pytest.mark.parametrize(
    ("layout", "missing"),
    [
        ("nih_chestxray14", "Data_Entry_2017"),
        ("chexpert", "train.csv"),
        ("vindr", "annotations/image_labels_train.csv"),
        ("rsna", "stage_2_train_labels.csv"),
    ],
)
def test_another_layout_is_refused_with_the_file_that_is_missing(tmp_path, layout, missing):
    with pytest.raises(DataError) as refusal:
        from_options(layout, {}).read(tmp_path)
    assert missing in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


def test_every_layout_says_what_it_is_and_an_unknown_one_is_refused():
    assert len(names()) == 10
    assert all(describe(name)[0] for name in names())
    assert describe("mimic_cxr") == ("MIMIC-CXR", ("reports",))
    for name in ("os.path", "_films", "mimic"):
        with pytest.raises(PluginError, match="no layout is called"):
            from_options(name, {})


def test_a_healthy_film_has_none_of_the_pathologies_and_may_have_a_device():
    found = dict(zip(FINDINGS, chexpert_labels({"No Finding": "1.0", "Fracture": "-1"}, "row"), strict=True))
    assert (found["no_finding"], found["edema"], found["fracture"], found["support_devices"]) == ("1", "0", "-1", "")
    assert set(chexpert_labels({}, "row")) == {""}


@pytest.mark.parametrize(
    ("text", "name"), [("Nodule/Mass", "nodule_mass"), (" Basal cell ", "basal_cell"), ("3", "class_3"), ("Zähne", "zähne")]
)
def test_a_label_becomes_a_name(text, name):
    assert snake(text) == name
    assert name.isidentifier()


def test_of_several_labels_the_strongest_counts():
    assert [strongest(of) for of in (["0", "-1", ""], ["0", "1", "-1"], ["", ""], ["", "0"], [])] == ["-1", "1", "", "0", ""]


@pytest.mark.parametrize(
    ("text", "years"), [("058Y", "58"), ("6M", "0.5"), ("81.0", "81"), ("", ""), ("nan", ""), ("412", None), ("old", None), ("-3", None)]
)
def test_an_age_is_years_or_impossible(text, years):
    assert plain_age(text) == years


def test_what_is_no_sex_says_nothing():
    assert [plain_sex(text) for text in ("Male", "f", " O", "Unknown", "", "nan")] == ["M", "F", "O", "", "", ""]
