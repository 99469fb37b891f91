import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client.data import manifest
from rainhill.config import DataConfig
from rainhill.errors import DataError

HEADER = "image,patient,pneumonia,split,sex,age,view,report"
LONG = "long" * 100
COLUMNS = {name: name for name in ("split", "sex", "age", "view", "report")}


@pytest.fixture
def folder(tmp_path):
    """A folder of ten images. That they are images is asked later, when they are opened."""
    for number in range(10):
        (tmp_path / f"{number}.png").touch()
    return tmp_path


def write(folder, *lines, header=HEADER):
    (folder / "films.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


def read(folder, *, findings=("pneumonia",), name="films.csv", **data):
    config = DataConfig.model_validate({"manifest": name, "columns": COLUMNS} | data)
    return manifest.read(config, findings=findings, base=folder)


def problems(folder, **data):
    with pytest.raises(DataError) as refusal:
        read(folder, **data)
    first, *rest = str(refusal.value).splitlines()
    count = len(rest)
    assert first == f"{folder / 'films.csv'}: {count} problem{'s' if count > 1 else ''}"
    return [line.strip() for line in rest]


def test_a_row_holds_what_the_manifest_says(folder):
    write(folder, '1.png,P1,1,train,f,64,pa,"Clear lungs,\nno effusion."', "2.png,P2,0,test,,,,")
    first, second = read(folder)
    assert (first.number, first.image, first.patient, first.labels) == (2, folder / "1.png", "P1", (1.0,))
    assert (first.split, first.sex, first.age, first.view, first.report) == ("train", "F", 64.0, "PA", "Clear lungs,\nno effusion.")
    assert (second.number, second.sex, second.view, second.report) == (3, "", "", "")
    assert math.isnan(second.age)
    assert repr(first) == "Row(number=2)"


def test_an_indication_and_a_prior_are_read_where_their_columns_are_named(folder):
    header = "image,patient,asked,before"
    write(folder, '1.png,P1,"Cough, fever?","Clear.\nIMP: NAD."', "2.png,P2,,", header=header)
    first, second = read(folder, findings=(), columns={"indication": "asked", "prior": "before"})
    assert (first.indication, first.prior) == ("Cough, fever?", "Clear.\nIMP: NAD.")
    assert (second.indication, second.prior) == ("", "")
    assert repr(first) == "Row(number=2)"
    assert read(folder, findings=(), columns={})[0].indication == read(folder, findings=(), columns={})[0].prior == ""
    assert problems(folder, findings=(), columns={"prior": "befor"}) == ["row 1, column 'befor': no such column, did you mean 'before'?"]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        *((word, 1.0) for word in ("1", "1.0", " 1 ", "true", "TRUE", "Yes")),
        *((word, 0.0) for word in ("0", "0.0", "False", "no")),
        *((word, math.nan) for word in ("", "NaN", "nan", "None", "-1", "-1.0")),
    ],
)
def test_a_label_is_0_1_or_not_known(folder, text, label):
    write(folder, f"1.png,P1,{text},train,,,,")
    np.testing.assert_equal(read(folder)[0].labels, (label,))


@pytest.mark.parametrize(("text", "years"), [("0", 0), ("64", 64), ("2.5", 2.5), ("064Y", 64), ("018M", 1.5), ("", math.nan)])
def test_an_age_is_in_years_or_a_dicom_age_string(folder, text, years):
    write(folder, f"1.png,P1,1,train,,{text},,")
    np.testing.assert_allclose(read(folder)[0].age, years)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("gone.png,P1,1,train,,,,", "row 2, column 'image': 'gone.png': no such file in the images folder"),
        (",P1,1,train,,,,", "row 2, column 'image': empty, expected the path of an image"),
        ("../films/1.png,P1,1,train,,,,", "row 2, column 'image': '../films/1.png' leaves the images folder"),
        ("..\\1.png,P1,1,train,,,,", "row 2, column 'image': '..\\\\1.png' leaves the images folder"),
        ("/etc/hostname,P1,1,train,,,,", "row 2, column 'image': '/etc/hostname' leaves the images folder"),
        (
            f"{LONG}.png,P1,1,train,,,,",
            f"row 2, column 'image': '{LONG[:30]}...{LONG[-20:]}.png': no such file in the images folder",
        ),
        ("1.png,,1,train,,,,", "row 2, column 'patient': empty, expected the patient's number or pseudonym"),
        ("1.png,nan,1,train,,,,", "row 2, column 'patient': empty, expected the patient's number or pseudonym"),
        ("1.png,P1,2,train,,,,", "row 2, column 'pneumonia': '2', expected 0, 1, -1 (uncertain) or empty"),
        ("1.png,P1,maybe,train,,,,", "row 2, column 'pneumonia': 'maybe', expected 0, 1, -1 (uncertain) or empty"),
        ("1.png,P1,1,dev,,,,", "row 2, column 'split': 'dev', expected train, val or test"),
        ("1.png,P1,1,,,,,", "row 2, column 'split': '', expected train, val or test"),
        ("1.png,P1,1,train,X,,,", "row 2, column 'sex': 'X', expected M, F, O or empty"),
        ("1.png,P1,1,train,,old,,", "row 2, column 'age': 'old' is not a number, expected years, or empty"),
        ("1.png,P1,1,train,,411,,", "row 2, column 'age': '411', expected 0 to 130 years, or empty"),
        ("1.png,P1,1,train,,,", "row 2: 7 cells, expected 8 as in the header"),
    ],
)
def test_a_problem_names_row_column_value_and_what_is_expected(folder, line, problem):
    write(folder, line)
    assert problems(folder) == [problem]


def test_an_image_may_be_there_once_only(folder):
    write(folder, "1.png,P1,1,train,,,,", "2.png,P1,1,train,,,,", "./1.png,P1,0,train,,,,")
    assert problems(folder) == ["row 4, column 'image': the same image as row 2"]


def test_a_patient_in_two_splits_is_found_without_being_named(folder):
    write(folder, "1.png,P1,1,train,,,,", "2.png,P2,1,val,,,,", "3.png,P1,0,test,,,,")
    assert problems(folder) == ["row 4, column 'split': 'test', but the same patient is 'train' in row 2"]


def test_all_problems_are_listed_in_the_order_of_the_rows(folder):
    write(folder, "gone.png,,maybe,dev,,,,", "1.png,P1,1,train,,,,", "1.png,P1,2,val,,,,")
    assert [line.split(":")[0] for line in problems(folder)] == [
        "row 2, column 'image'",
        "row 2, column 'patient'",
        "row 2, column 'pneumonia'",
        "row 2, column 'split'",
        "row 4, column 'pneumonia'",
        "row 4, column 'image'",
        "row 4, column 'split'",
    ]


def test_after_twenty_problems_the_rest_is_counted(folder):
    write(folder, *(f"{n}.png,,maybe,train,,,," for n in range(10)), *(f"none{n}.png,P,1,train,,,," for n in range(5)))
    with pytest.raises(DataError) as refusal:
        read(folder)
    lines = str(refusal.value).splitlines()
    assert lines[0].endswith("films.csv: 25 problems")
    assert len(lines) == 22
    assert lines[-1] == "  ... and 5 more"


def test_a_missing_column_is_named_with_the_nearest(folder):
    write(folder, "1.png,P1,1", header="image,patient_id,pneumonia")
    assert problems(folder, columns={"age": "years"}, where={"hospital": "a"}, labels={"pneumonia": "pnuemonia"}) == [
        "row 1, column 'patient': no such column, did you mean 'patient_id'?",
        "row 1, column 'years': no such column, the manifest has image, patient_id, pneumonia",
        "row 1, column 'pnuemonia': no such column, did you mean 'pneumonia'?",
        "row 1, column 'hospital': no such column, the manifest has image, patient_id, pneumonia",
    ]


def test_a_finding_has_its_own_column_or_the_one_named_or_none(folder):
    write(folder, "1.png,P1,1,0", header="image,patient,Pleural Effusion,nodule")
    row = read(folder, findings=("effusion", "nodule", "fracture"), columns={}, labels={"effusion": "Pleural Effusion"})[0]
    np.testing.assert_equal(row.labels, (1.0, 0.0, math.nan))


def test_only_the_rows_of_the_site_are_read_and_checked(folder):
    write(folder, "gone.png,,x,a,1", "1.png,P1,1,b,1.0", "2.png,P2,1,b,", header="image,patient,pneumonia,site,matched")
    rows = read(folder, columns={}, where={"site": "b", "matched": "1"})
    assert [row.number for row in rows] == [3]


def test_an_unnamed_column_is_not_taken_for_one_that_the_manifest_does_not_have(folder):
    write(folder, "0,1.png,P1,1", header=",image,patient,pneumonia")
    assert read(folder, columns={})[0].sex == ""


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_csv_may_come_from_any_spreadsheet(folder, delimiter):
    text = delimiter.join(["image", "patient", "pneumonia"]) + "\r\n" + delimiter.join(["1.png", "Müller", "1"]) + "\r\n\r\n"
    (folder / "films.csv").write_text(text, encoding="utf-8-sig", newline="")
    assert read(folder, columns={})[0].patient == "Müller"


def test_parquet_and_csv_are_read_alike(folder):
    write(folder, "1.png,7,1,train,M,64,PA,Clear.", "2.png,8,0,val,F,,AP,", "3.png,9,,test,,50,,")
    table = pa.table(
        {
            "image": ["1.png", "2.png", "3.png"],
            "patient": [7, 8, 9],
            "pneumonia": pa.array([True, False, None]),
            "split": pa.array(["train", "val", "test"]).dictionary_encode(),
            "sex": ["M", "F", None],
            "age": [64.0, math.nan, 50.0],
            "view": ["PA", "AP", ""],
            "report": ["Clear.", None, None],
        }
    )
    pq.write_table(table, folder / "films.parquet")
    np.testing.assert_equal([vars(row) for row in read(folder, name="films.parquet")], [vars(row) for row in read(folder)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no header row"),
        (b"\n1,2\n", "has no header row"),
        (b"PK\x03\x04....", "is a spreadsheet or zip file, expected CSV or Parquet: save it as 'CSV UTF-8'"),
        ("image,patient\n1.png,Müller\n".encode("cp1252"), "is not UTF-8 text: save it as 'CSV UTF-8'"),
        (b"PAR1 and no more", "cannot be read as a manifest"),
        (b"image,patient,image\n", "row 1: column 'image' is there more than once"),
        (b'image,patient\n1.png,"' + b"x" * 16_000_001, "row 2: a cell of more than 16,000,000 characters: is a quotation mark"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(folder, content, message):
    (folder / "films.csv").write_bytes(content)
    with pytest.raises(DataError) as refusal:
        read(folder)
    assert str(refusal.value).startswith(f"{folder / 'films.csv'}: {message}")
    assert "\n" not in str(refusal.value)


def test_a_control_character_is_refused_where_it_stands(folder):
    write(folder, "1.png,P1,1,train,f,64,pa,Ke\0in Pneumothorax", "2.png,P2,0,test,,,,Lines\tand\ftabs")
    assert problems(folder) == ["row 2, column 'report': control character U+0000 at character 3: take it out"]
    pq.write_table(pa.table({"image": ["1.png"], "patient": ["P\x1b1"]}), folder / "films.csv")
    assert problems(folder, columns={}, findings=()) == ["row 2, column 'patient': control character U+001B at character 2: take it out"]


def test_a_long_cell_is_read_and_one_that_no_report_is_as_long_as_is_refused(folder):
    write(folder, f"1.png,P1,1,train,f,64,pa,{'clear ' * 100_000}")
    assert len(read(folder)[0].report) == 599_999
    write(folder, f"1.png,P1,1,train,f,64,pa,{'x' * 4_000_001}")
    assert problems(folder) == ["row 2, column 'report': 4,000,001 characters, expected at most 4,000,000"]
    write(folder, "1.png,P1,1,train,f,64,pa,clear", f"2.png,P2,1,train,f,64,pa,{'x' * 16_000_001}")
    with pytest.raises(DataError, match=r"films\.csv: row 3: a cell of more than 16,000,000 characters: is a quotation mark not closed\?"):
        read(folder)


def test_a_manifest_or_folder_that_is_not_there_is_named(folder):
    with pytest.raises(DataError, match=r"films\.csv: no such file$"):
        read(folder)
    write(folder)
    with pytest.raises(DataError, match=r"elsewhere: no such folder, expected the images of .*films\.csv$"):
        read(folder, images="elsewhere")


def test_images_may_lie_in_a_folder_of_their_own(folder, monkeypatch):
    (folder / "films").mkdir()
    (folder / "0.png").rename(folder / "films/0.png")
    write(folder, "0.png,P1,1,train,,,,")
    assert read(folder, images="films")[0].image == folder / "films/0.png"
    monkeypatch.setenv("HOME", str(folder))
    assert manifest.resolve(Path("~/films.csv"), Path("/elsewhere")) == folder / "films.csv"
    assert read(Path("/elsewhere"), name="~/films.csv", images="~/films")[0].image == folder / "films/0.png"
