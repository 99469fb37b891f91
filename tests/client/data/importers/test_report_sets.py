"""Sets of films with reports."""

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from client.data.importers import from_options
from client.data.importers._films import FRONTAL
from client.data.importers._selection import Choice
from client.data.importers.openi import MESH, _documents, study_of
from client.data.importers.padchest import labels_in
from client.data.vocabulary import FINDINGS
from rainhill.errors import ConfigError, DataError

NAN = float("nan")
MIMIC_METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)
MIMIC_LABELS = (
    "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,"
    "No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
FIRST = " FINAL REPORT\n INDICATION:  Cough.\n\n FINDINGS:  Large heart.\n\n IMPRESSION:  Cardiomegaly.\n"
SECOND = " FINAL REPORT\n HISTORY:  Follow-up.\n\n IMPRESSION:  Heart smaller.\n"
THIRD = " FINAL REPORT\n INDICATION:  Fall.\n\n FINDINGS:  Normal.\n"


def mimic_row(dicom, subject, study, view, date, time):
    return [dicom, subject, study, "CHEST (PA AND LAT)", view, 16, 16, date, time, "CHEST (PA AND LAT)", "postero-anterior", "Erect"]


@pytest.fixture
def mimic(disk):
    """Two patients: one of two studies, the later one named first, with a lateral film; one of one study."""
    disk.table(
        "mimic-cxr-2.0.0-metadata.csv.gz",
        MIMIC_METADATA,
        mimic_row("d2", 10000032, 50000002, "AP", 21800626, "165500.312"),
        mimic_row("d1", 10000032, 50000001, "PA", 21800506, "213014.531"),
        mimic_row("d1l", 10000032, 50000001, "LATERAL", 21800506, "213014.531"),
        mimic_row("d3", 11000011, 50000003, "PA", 21500101, "90000"),
    )
    blank = [""] * 14
    disk.table(
        "mimic-cxr-2.0.0-chexpert.csv.gz",
        MIMIC_LABELS,
        [10000032, 50000001, *blank[:1], "1.0", *blank[2:9], "-1.0", *blank[10:]],
        [10000032, 50000002, *blank[:1], "0.0", *blank[2:]],
        [11000011, 50000003, *blank[:8], "1.0", *blank[9:]],
    )
    disk.table(
        "mimic-cxr-2.0.0-split.csv.gz",
        "dicom_id,study_id,subject_id,split",
        ["d1", 50000001, 10000032, "train"],
        ["d1l", 50000001, 10000032, "train"],
        ["d2", 50000002, 10000032, "train"],
        ["d3", 50000003, 11000011, "validate"],
    )
    for patient, study, text in ((10000032, 50000001, FIRST), (10000032, 50000002, SECOND), (11000011, 50000003, THIRD)):
        disk.text(f"files/p{str(patient)[:2]}/p{patient}/s{study}.txt", text)
    disk.film(
        "files/p10/p10000032/s50000001/d1.jpg",
        "files/p10/p10000032/s50000001/d1l.jpg",
        "files/p10/p10000032/s50000002/d2.jpg",
        "files/p11/p11000011/s50000003/d3.jpg",
    )
    return disk


def test_mimic_gives_labels_patients_reports_indications_and_priors(mimic, imported):
    made = imported("mimic_cxr")
    assert made.images == [f"files/p10/p10000032/s5000000{n}/d{n}.jpg" for n in (2, 1)] + ["files/p11/p11000011/s50000003/d3.jpg"]
    assert made.column("prior") == ["FINDINGS: Large heart.\nIMPRESSION: Cardiomegaly.", "", ""]
    assert made.column("split") == ["train", "train", "val"]
    found = made.cohort("cardiomegaly", "pleural_effusion", "no_finding")
    np.testing.assert_array_equal(found.labels, [[0, NAN, NAN], [1, NAN, NAN], [0, 0, 1]])
    assert found.patients.tolist() == [0, 0, 1]
    assert found.reports == ("IMPRESSION: Heart smaller.", "FINDINGS: Large heart.\nIMPRESSION: Cardiomegaly.", "FINDINGS: Normal.")
    assert found.indications == ("Follow-up.", "Cough.", "Fall.")
    assert found.priors == ("FINDINGS: Large heart.\nIMPRESSION: Cardiomegaly.", "", "")
    assert found.view.tolist() == ["AP", "PA", "PA"]
    assert made.tally.other_views == {"LATERAL": 1}


def test_parts_without_a_patient_are_not_used_and_said(mimic, imported):
    made = imported("mimic_cxr")
    assert made.site.data.columns.split == ""
    assert "nobody is in test here" in made.notes[0]


def test_mimic_splits_are_kept_where_all_three_have_a_patient(mimic, imported):
    mimic.table(
        "mimic-cxr-2.0.0-metadata.csv.gz",
        MIMIC_METADATA,
        mimic_row("d1", 10000032, 50000001, "PA", 21800506, "213014.531"),
        mimic_row("d3", 11000011, 50000003, "PA", 21500101, "90000"),
        mimic_row("d4", 12000012, 50000004, "PA", 21500101, "90000"),
        mimic_row("d5", 12000013, 50000005, "PA", 21500101, "90000"),
    )
    mimic.table(
        "mimic-cxr-2.0.0-split.csv",
        "dicom_id,study_id,subject_id,split",
        *([f"d{n}", f"5000000{n}", "", part] for n, part in ((1, "train"), (3, "validate"), (4, "test"), (5, "train"))),
    )
    mimic.table(
        "mimic-cxr-2.0.0-chexpert.csv",
        MIMIC_LABELS,
        *(["", f"5000000{n}", "", heart, *[""] * 12] for n, heart in ((1, "1.0"), (3, "0.0"), (4, "1.0"), (5, "0.0"))),
    )
    mimic.film("files/p12/p12000012/s50000004/d4.jpg", "files/p12/p12000013/s50000005/d5.jpg")
    made = imported("mimic_cxr")
    found = made.cohort("cardiomegaly")
    assert found.split.tolist() == ["train", "val", "test", "train"]
    assert found.labels[:, 0].tolist() == [1, 0, 1, 0]
    assert made.notes == ()


def test_mimic_films_may_be_dicom_and_reports_in_their_zip(disk, mimic, imported, tmp_path):
    for path in sorted(disk.root.glob("files/**/*.*")):
        if path.suffix == ".jpg":
            disk.dicom(path.relative_to(disk.root).with_suffix(".dcm"), view="PA")
        path.unlink()
    with zipfile.ZipFile(tmp_path / "reports.zip", "w") as archive:
        archive.writestr("files/p10/p10000032/s50000001.txt", FIRST)
        archive.writestr("files/p11/p11000011/s50000003.txt", THIRD)
    made = imported("mimic_cxr", reports=tmp_path / "reports.zip")
    assert all(image.endswith(".dcm") for image in made.images)
    found = made.cohort("cardiomegaly")
    assert found.reports == ("", "FINDINGS: Large heart.\nIMPRESSION: Cardiomegaly.", "FINDINGS: Normal.")


def test_mimic_without_reports_says_where_they_are(disk, mimic, imported):
    for path in disk.root.glob("files/**/*.txt"):
        path.unlink()
    made = imported("mimic_cxr")
    assert any("mimic-cxr-reports.zip" in note for note in made.notes)
    assert made.site.data.columns.report == ""


def test_mimic_takes_sex_and_age_of_the_patients_of_mimic_iv(mimic, imported):
    mimic.table(
        "hosp/patients.csv.gz",
        "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
        [10000032, "F", 52, 2178, "2014 - 2016", ""],
    )
    found = imported("mimic_cxr").cohort("cardiomegaly")
    assert found.sex.tolist() == ["F", "F", ""]
    np.testing.assert_array_equal(found.age, [54, 54, NAN])


def test_a_prior_may_be_of_a_study_of_which_no_film_is_taken(mimic, imported):
    made = imported("mimic_cxr", choice=Choice(views=frozenset({"AP"})))
    assert made.column("view") == ["AP"]
    assert made.column("prior") == ["FINDINGS: Large heart.\nIMPRESSION: Cardiomegaly."]


def test_all_views_are_taken_on_request(mimic, imported):
    made = imported("mimic_cxr", choice=Choice(views=None))
    assert made.column("view") == ["AP", "PA", "LATERAL", "PA"]
    assert made.column("report")[1] == made.column("report")[2]


def test_mimic_refuses_a_part_and_a_label_that_it_does_not_know(mimic, imported):
    mimic.table("mimic-cxr-2.0.0-split.csv", "dicom_id,study_id,subject_id,split", ["d1", 1, 1, "dev"])
    with pytest.raises(DataError, match="split is 'dev', expected train, validate, test"):
        imported("mimic_cxr")
    mimic.table("mimic-cxr-2.0.0-chexpert.csv", MIMIC_LABELS, ["1", "7", "2.0", *[""] * 13])
    with pytest.raises(DataError, match=r"chexpert.csv: study 7: column 'Atelectasis' is '2.0', expected 1, 0, -1"):
        imported("mimic_cxr")


OPENI = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><meta type="rr"/><uId id="CXR{n}"/>
 <MedlineCitation Owner="Indiana University" Status="supplied by publisher"><Article PubModel="Electronic"><Abstract>
  <AbstractText Label="COMPARISON">None.</AbstractText>
  <AbstractText Label="INDICATION">{indication}</AbstractText>
  <AbstractText Label="FINDINGS">{findings}</AbstractText>
  <AbstractText Label="IMPRESSION">{impression}</AbstractText>
 </Abstract></Article></MedlineCitation>
 <MeSH>{major}<automatic>heart</automatic></MeSH>{images}
</eCitation>"""


def openi_xml(n, *, major, films, indication="Cough", findings="", impression="As seen."):
    return OPENI.format(
        n=n,
        indication=indication,
        findings=findings,
        impression=impression,
        major="".join(f"<major>{one}</major>" for one in major),
        images="".join(f'<parentImage id="{one}"><figureId>F1</figureId></parentImage>' for one in films),
    )


OPENI_REPORTS = {
    "1": openi_xml(1, major=["normal"], films=["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"], findings="Clear &amp; quiet."),
    "1000": openi_xml(1000, major=["Cardiomegaly/mild", "Pleural Effusion/left"], films=["CXR1000_IM-0003-1001"], indication=""),
    "1001": openi_xml(1001, major=["No Indexing"], films=["CXR1001_IM-0004-1001"]),
    "1002": openi_xml(1002, major=["normal"], films=[]),
}


@pytest.fixture
def openi(disk):
    for number, xml in OPENI_REPORTS.items():
        disk.text(f"ecgen-radiology/{number}.xml", xml)
    disk.film(
        *(
            f"NLMCXR_png/{name}.png"
            for name in ("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001", "CXR1000_IM-0003-1001", "CXR1001_IM-0004-1001")
        )
    )
    return disk


def test_openi_reads_reports_headings_and_all_films_where_no_view_is_told(openi, imported):
    made = imported("openi")
    assert made.images[0] == "NLMCXR_png/CXR1_1_IM-0001-3001.png"
    found = made.cohort("no_finding", "cardiomegaly", "pleural_effusion")
    np.testing.assert_array_equal(found.labels, [[1, 0, 0], [1, 0, 0], [0, 1, 1], [NAN, NAN, NAN]])
    assert made.column("patient") == ["CXR1", "CXR1", "CXR1000", "CXR1001"]
    assert found.reports[0] == "FINDINGS: Clear & quiet.\nIMPRESSION: As seen."
    assert found.reports[2] == "IMPRESSION: As seen."
    assert found.indications == ("Cough", "Cough", "", "Cough")
    assert set(made.column("prior")) == {""}
    assert any("does not say which view" in note for note in made.notes)


def test_openi_takes_views_from_the_table_of_projections(openi, imported):
    openi.table(
        "indiana_projections.csv",
        "uid,filename,projection",
        [1, "1_IM-0001-3001.dcm.png", "Lateral"],
        [1, "1_IM-0001-4001.dcm.png", "Frontal"],
        [1000, "1000_IM-0003-1001.dcm.png", "Frontal"],
    )
    made = imported("openi")
    assert made.column("view") == ["FRONTAL", "FRONTAL"]
    assert made.tally.other_views == {"LATERAL": 1, "": 1}


def test_openi_reads_its_reports_from_the_archive_too(openi, imported):
    for path in openi.root.glob("ecgen-radiology/*.xml"):
        path.unlink()
    with tarfile.open(openi.root / "NLMCXR_reports.tgz", "w:gz") as archive:
        for number, xml in OPENI_REPORTS.items():
            member = tarfile.TarInfo(f"ecgen-radiology/{number}.xml")
            member.size = len(xml.encode())
            archive.addfile(member, io.BytesIO(xml.encode()))
    assert len(imported("openi").rows) == 4


@pytest.mark.parametrize(
    ("xml", "problem"),
    [("<eCitation>", "is no XML"), ("<eCitation/>", "no uId"), ('<!DOCTYPE a [<!ENTITY b "c">]><eCitation/>', "declares a document type")],
)
def test_openi_refuses_what_is_no_report_of_it(openi, imported, xml, problem):
    openi.text("ecgen-radiology/2.xml", xml)
    with pytest.raises(DataError, match=f"2.xml: .*{problem}"):
        imported("openi")


def test_openi_reads_the_real_reports():
    place = Path(os.environ.get("RAINHILL_IU_REPORTS", Path(__file__).parents[5] / "shared/data/cxr/reports_iu/NLMCXR_reports.tgz"))
    if not place.is_file():
        pytest.skip(f"the reports of Indiana University are not part of the project, and not at {place}")
    studies = [study_of(xml, name, {}, {}) for name, xml in _documents(place)]
    assert len(studies) == len({study.patient for study in studies}) == 3955
    assert sum(len(study.pictures) for study in studies) == 7470
    assert len({picture.image for study in studies for picture in study.pictures}) == 7470
    normal = [study.labels[0] for study in studies]
    assert (normal.count("1"), normal.count("")) == (1391, 95)
    assert sum(bool(study.report) for study in studies) > 3900
    assert all(study.report.startswith(("FINDINGS: ", "IMPRESSION: ")) for study in studies if study.report)
    heart = [study.labels[tuple(MESH).index("cardiomegaly")] for study in studies]
    assert heart.count("1") == 375


PADCHEST = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,MethodProjection,Pediatric,"
    "Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,"
    "LabelsLocalizationsBySentence,labelCUIS,LocalizationsCUIS"
)


def padchest_row(n, image, date, study, patient, birth, view, report, labels):
    return [
        n, image, 0, date, study, patient, birth, "F", "", view, "Manual review of DICOM fields", "No", "CR", "ImagingDynamicsCompanyLtd",
        "MONOCHROME2", 4765777, report, "Physician", labels, "['loc heart']", "[['cardiomegaly', ['loc heart']]]", "['C0018800']", "[]",
    ]  # fmt: skip


@pytest.fixture
def padchest(disk):
    disk.table(
        "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",
        PADCHEST,
        padchest_row(
            0, "a1.png", "20140915", "s1", "p1", "1949.0", "PA", "silueta cardiac aument .", "['cardiomegaly', 'pleural effusion ', nan]"
        ),
        padchest_row(
            1, "a2.png", "20140915", "s1", "p1", "1949.0", "L", "silueta cardiac aument .", "['cardiomegaly', 'pleural effusion ', nan]"
        ),
        padchest_row(2, "b.png", "20150301", "s2", "p1", "1949.0", "AP_horizontal", "sin cambi .", "['unchanged']"),
        padchest_row(3, "c.png", "20120101", "s3", "p2", "", "PA", "sin hallazg .", "['normal']"),
        padchest_row(4, "d.png", "20120101", "s4", "p3", "1700.0", "PA", "exclu .", "['exclude']"),
    )
    disk.film("0/a1.png", "0/a2.png", "1/b.png", "1/c.png", "1/d.png")
    return disk


def test_padchest_gives_labels_patients_reports_and_priors(padchest, imported):
    made = imported("padchest")
    assert made.images == ["0/a1.png", "1/b.png", "1/c.png", "1/d.png"]
    found = made.cohort("cardiomegaly", "pleural_effusion", "no_finding")
    np.testing.assert_array_equal(found.labels, [[1, 1, 0], [NAN] * 3, [0, 0, 1], [NAN] * 3])
    assert found.view.tolist() == ["PA", "AP", "PA", "PA"]
    assert found.reports[:2] == ("silueta cardiac aument .", "sin cambi .")
    assert found.priors == ("", "silueta cardiac aument .", "", "")
    np.testing.assert_array_equal(found.age, [65, 66, NAN, NAN])
    assert made.tally.impossible_ages == 1
    assert made.site.data.columns.split == made.site.data.columns.indication == ""


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("['pleural effusion', ' Nodule ']", {"pleural effusion", "nodule"}),
        ("[\"chilaiditi's sign\", nan, 'normal']", {"chilaiditi's sign", "normal"}),
        ("['exclude', 'unchanged', '']", set()),
        ("[]", set()),
        ("", set()),
        ("__import__('os').getcwd()", {"os"}),
    ],
)
def test_a_list_of_labels_is_read_and_not_run(text, labels):
    assert labels_in(text) == labels


PLUS = (
    "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,patient_report_date_order,report,section_narrative,section_clinical_history,"
    "section_history,section_comparison,section_technique,section_procedure_comments,section_findings,section_impression,"
    "section_end_of_impression,section_summary,section_accession_number,age,sex,race,ethnicity,interpreter_needed,insurance_type,recent_bmi,"
    "deceased,split"
)


def plus_row(film, plane, view, order, *, findings="", impression="", history="", report="", split="train", age="61.0"):
    patient = film.split("/")[1]
    return [
        f"{film}.jpg", f"{film}.dcm", plane, view, patient, order, report, "", history, "", "", "", "", findings, impression, "", "", "", age,
        "Female", "White", "", "", "", "", "No", split,
    ]  # fmt: skip


@pytest.fixture
def plus(disk):
    first, second = "train/patient00001/study1", "train/patient00001/study2"
    third = "valid/patient64541/study1"
    disk.table(
        "df_chexpert_plus_240401.csv",
        PLUS,
        plus_row(f"{second}/view1_frontal", "Frontal", "AP", 2, impression="1. Smaller heart.\n2. No more."),
        plus_row(f"{first}/view1_frontal", "Frontal", "PA", 1, findings="Large heart.", impression="Cardiomegaly.", history="Cough."),
        plus_row(f"{first}/view2_lateral", "Lateral", "", 1, findings="Large heart.", impression="Cardiomegaly.", history="Cough."),
        plus_row(f"{third}/view1_frontal", "Frontal", "", 1, report="HISTORY: Fall.\nIMPRESSION: Normal.", split="valid"),
    )
    empty = dict.fromkeys(
        ["Enlarged Cardiomediastinum", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax",
         "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices", "No Finding", "Cardiomegaly"]
    )  # fmt: skip
    said = [
        {"path_to_image": f"{second}/view1_frontal.jpg", **empty, "Cardiomegaly": 0.0},
        {"path_to_image": f"{first}/view1_frontal.jpg", **empty, "Cardiomegaly": 1.0, "Edema": -1.0},
        {"path_to_image": f"{third}/view1_frontal.jpg", **empty, "No Finding": 1.0},
    ]
    disk.text("chexbert_labels/impression_fixed.json", "".join(json.dumps(one) + "\n" for one in said))
    disk.film(
        f"PNG/{second}/view1_frontal.png",
        f"PNG/{first}/view1_frontal.png",
        f"PNG/{first}/view2_lateral.png",
        f"PNG/{third}/view1_frontal.png",
    )
    return disk


def test_chexpert_plus_gives_labels_patients_reports_indications_and_priors(plus, imported):
    made = imported("chexpert_plus")
    assert made.images[0] == "PNG/train/patient00001/study2/view1_frontal.png"
    found = made.cohort("cardiomegaly", "edema", "no_finding")
    np.testing.assert_array_equal(found.labels, [[0, NAN, NAN], [1, NAN, NAN], [0, 0, 1]])
    assert made.column("edema") == ["", "-1", "0"]
    assert found.reports == (
        "IMPRESSION: 1. Smaller heart.\n2. No more.",
        "FINDINGS: Large heart.\nIMPRESSION: Cardiomegaly.",
        "IMPRESSION: Normal.",
    )
    assert found.indications == ("", "Cough.", "Fall.")
    assert found.priors == ("FINDINGS: Large heart.\nIMPRESSION: Cardiomegaly.", "", "")
    assert found.patients.tolist() == [0, 0, 1]
    assert found.view.tolist() == ["AP", "PA", "FRONTAL"]
    assert (found.sex.tolist(), found.age.tolist()) == (["F"] * 3, [61.0] * 3)


def test_chexpert_plus_without_its_labels_says_so(plus, imported):
    made = imported("chexpert_plus", labels="report")
    assert made.tally.labels == {}
    assert any("chexbert_labels.zip" in note for note in made.notes)
    with pytest.raises(ConfigError, match="--findings names 'edema', which the set does not have, it has no labels"):
        imported("chexpert_plus", labels="report", choice=Choice(findings=("edema",)))


def test_chexpert_plus_names_the_line_of_labels_that_it_cannot_read(plus, imported):
    plus.text("chexbert_labels/impression_fixed.json", '{"path_to_image": "a", "Edema": 1}\n{"Edema": 1}\n')
    with pytest.raises(DataError, match=r"impression_fixed.json: line 2: is not the labels of a film"):
        imported("chexpert_plus")


@pytest.fixture
def export(disk):
    disk.table(
        "export.csv",
        "image,PseudoID,date,report,Pneu,Pleural Effusion,sex,age,view",
        [
            "films\\2.png",
            "P1",
            "03.02.2024",
            "Clinical history: fever.\nFindings: No consolidation. Impression: Better.",
            "0",
            "1",
            "M",
            "64",
            "pa",
        ],
        ["films/1.png", "P1", "28.01.2024", "Consolidation on the left.", "yes", "", "M", "64", "pa"],
        ["films/3.png", "P2", "", "", "-1", "0", "F", "900", "LL"],
    )
    disk.film("films/1.png", "films/2.png", "films/3.png")
    return disk


def test_a_table_of_reports_needs_only_the_columns_that_are_named_otherwise(export, imported):
    made = imported(
        "csv_reports", patient="PseudoID", labels="pneumonia = Pneu, pleural_effusion=Pleural Effusion", choice=Choice(views=None)
    )
    assert made.images == ["films/2.png", "films/1.png", "films/3.png"]
    found = made.cohort("pneumonia", "pleural_effusion")
    np.testing.assert_array_equal(found.labels, [[0, 1], [1, NAN], [NAN, 0]])
    assert found.reports == ("FINDINGS: No consolidation.\nIMPRESSION: Better.", "Consolidation on the left.", "")
    assert found.indications == ("fever.", "", "")
    assert found.priors == ("Consolidation on the left.", "", "")
    assert made.tally.impossible_ages == 1


def test_a_table_of_reports_may_be_parquet_and_be_labelled_by_the_labeler(export, imported):
    import pyarrow.csv
    import pyarrow.parquet

    pyarrow.parquet.write_table(
        pyarrow.csv.read_csv(export.root / "export.csv", parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)),
        export.root / "export.parquet",
    )
    (export.root / "export.csv").unlink()
    made = imported("csv_reports", patient="PseudoID", labeler="en", choice=Choice(views=None))
    assert made.column("consolidation") == ["0", "1", ""]
    assert set(FINDINGS) <= set(made.rows[0])
    assert made.column("prior")[0] == "Consolidation on the left."


@pytest.mark.parametrize(
    ("options", "error", "problem"),
    [
        ({}, DataError, "has no column 'patient'"),
        ({"patient": "PseudoID", "split": "part"}, DataError, "has no column 'part'"),
        ({"patient": "PseudoID", "labels": "pneumonia=Pne"}, DataError, "has no column 'Pne'"),
        ({"patient": "PseudoID", "labels": "a=Pneu,A=age"}, ConfigError, "names 'A' twice"),
        ({"patient": "PseudoID", "labels": "pneumonia=age"}, DataError, "row 2: column 'age' is '64', expected 1, 0, -1"),
        ({"patient": "PseudoID", "date": "report"}, DataError, "row 2: date is"),
        ({"patient": "PseudoID", "split": "sex"}, DataError, "row 2: split is 'M'"),
        ({"patient": "PseudoID", "labels": "view=Pneu"}, DataError, "a label is called 'view'"),
        ({"patient": "date"}, DataError, "has no patient"),
        ({"patient": "PseudoID", "labels": "pneumonia=Pneu", "labeler": "en"}, ConfigError, "two sources"),
        ({"patient": "PseudoID", "labeler": "fr"}, ConfigError, "no phrases of language 'fr'"),
        ({"table": "other.csv"}, DataError, "there is no other.csv in it"),
        ({"table": "*.csv"}, DataError, r"there is no \*.csv in it"),
        ({"table": "/etc/export.csv"}, ConfigError, "table = '/etc/export.csv' leaves the folder .*, expected a name in it"),
        ({"table": "films/../../export.csv"}, ConfigError, "table = 'films/../../export.csv' leaves the folder"),
        ({"tabel": "x"}, ConfigError, "tabel: unknown key, did you mean 'table'"),
    ],
)
def test_a_table_of_reports_is_refused_by_name(export, imported, options, error, problem):
    with pytest.raises(error, match=problem):
        imported("csv_reports", choice=Choice(views=None), **options)


def test_a_table_in_a_folder_of_the_set_may_be_named(export, imported):
    (export.root / "tables").mkdir()
    (export.root / "export.csv").rename(export.root / "tables/of [2024].csv")
    assert len(imported("csv_reports", table="tables/of [2024].csv", patient="PseudoID").rows) == 2


def test_a_column_that_is_there_twice_is_refused_and_columns_without_a_name_are_not(disk, imported):
    disk.film("1.png")
    disk.table("t.csv", "image,patient,report, report", ["1.png", "P1", "Clear.", "Effusion."])
    with pytest.raises(DataError, match=r"t.csv: column 'report' is there more than once"):
        imported("csv_reports")
    disk.table("t.csv", ",image,patient,report,", [0, "1.png", "P1", "Clear.", ""])
    assert imported("csv_reports").column("report") == ["Clear."]


def test_a_parquet_column_that_is_there_twice_is_refused(disk, imported):
    import pyarrow
    import pyarrow.parquet

    disk.film("1.png")
    table = pyarrow.table([["1.png"], ["P1"], ["Clear."], ["Effusion."]], names=["image", "patient", "report", "report"])
    pyarrow.parquet.write_table(table, disk.root / "t.parquet")
    with pytest.raises(DataError, match=r"t.parquet: column 'report' is there more than once"):
        imported("csv_reports")


@pytest.mark.parametrize("layout", ["csv_reports", "image_folder"])
def test_a_table_without_rows_says_so(disk, imported, layout):
    disk.table("t.csv", "image,patient,report")
    with pytest.raises(DataError, match=r"t.csv: has no rows$"):
        imported(layout, table="t.csv", labels="pneumonia")
    disk.text("t.csv", "")
    with pytest.raises(DataError, match=r"t.csv: is empty, expected a header and rows|t.csv: has no rows"):
        imported(layout, table="t.csv", labels="pneumonia")


def test_a_study_and_a_report_that_are_named_in_a_refusal_move_no_cursor(disk, mimic, imported):
    mimic.table("mimic-cxr-2.0.0-chexpert.csv", MIMIC_LABELS, ["1", "\x1b[2J", "2.0", *[""] * 13])
    with pytest.raises(DataError, match=r"study '\\x1b\[2J': column"):
        imported("mimic_cxr")
    disk.text("ecgen-radiology/\x1b[2J.xml", "<a>")
    with pytest.raises(DataError, match=r"ecgen-radiology: '\\x1b\[2J.xml': is no XML"):
        imported("openi")


def test_one_image_in_two_spellings_is_one_image(disk, imported):
    disk.film("img/0.png", "img/1.png")
    disk.table("t.csv", "image,patient,report", ["img/0.png", "P1", ""], [r".\img\0.png", "P2", ""])
    with pytest.raises(DataError, match="1 image that the tables name is named more than once: img/0.png"):
        imported("csv_reports")
    disk.table("t.csv", "image,patient,report", ["./img/0.png", "P1", ""], ["img//1.png", "P2", ""])
    assert imported("csv_reports").images == ["img/0.png", "img/1.png"]


def test_what_a_table_says_moves_no_cursor(disk, imported):
    disk.film("1.png")
    disk.table("t.csv", "image,patient,report,view", ["\x1b[2Jgone.png", "P1", "", "PA"])
    with pytest.raises(DataError, match=r"not there: '\\x1b\[2Jgone.png'"):
        imported("csv_reports")
    disk.table("t.csv", "image,patient,report,view", ["1.png", "P1", "", "\x1b[2J"])
    with pytest.raises(DataError, match=r"there are '\\x1b\[2J' 1"):
        imported("csv_reports")


def test_a_patient_in_two_parts_is_refused(disk, imported):
    disk.table("t.csv", "image,patient,report,split", ["1.png", "P", "a", "train"], ["2.png", "P", "b", "test"])
    disk.film("1.png", "2.png")
    with pytest.raises(DataError, match="'2.png' is in test, '1.png' of the same patient in train"):
        imported("csv_reports")


def test_a_date_in_every_form_sorts_and_others_are_refused():
    from client.data.importers.csv_reports import when_of

    assert when_of("2024-01-31") == when_of("31.01.2024") < when_of("2024-01-31T10:00") < when_of("1.2.2024 07:30")
    assert (when_of(""), when_of("3")) == ((), (3.0,))
    with pytest.raises(ValueError, match="date is '01/02/2024'"):
        when_of("01/02/2024")


@pytest.mark.parametrize(
    ("layout", "missing"),
    [
        ("mimic_cxr", "mimic-cxr-*-metadata.csv"),
        ("openi", "ecgen-radiology/*.xml"),
        ("padchest", "PADCHEST_chest_x_ray_images_labels_160K"),
        ("chexpert_plus", "df_chexpert_plus_"),
        ("csv_reports", "*.csv"),
    ],
)
def test_another_layout_is_refused_with_the_file_that_is_missing(tmp_path, layout, missing):
    with pytest.raises(DataError) as refusal:
        from_options(layout, {}).read(tmp_path)
    assert missing in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)
    with pytest.raises(DataError, match="no such folder, expected"):
        from_options(layout, {}).read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("fixture", "layout"), [("mimic", "mimic_cxr"), ("openi", "openi"), ("padchest", "padchest"), ("plus", "chexpert_plus")]
)
def test_an_image_that_is_not_there_is_named_and_may_be_left_out(request, disk, imported, fixture, layout):
    request.getfixturevalue(fixture)
    there = imported(layout).images
    (disk.root / there[-1]).unlink()
    name = Path(there[-1]).stem
    with pytest.raises(DataError, match=f"1 image that the tables name is not there: .*{name}.*--skip-missing"):
        imported(layout)
    made = imported(layout, choice=Choice(skip_missing=True))
    assert made.images == there[:-1]
    assert "1 image not there, left out" in made.notes


def test_frontal_films_are_the_default():
    assert Choice().views == frozenset(FRONTAL) == {"PA", "AP", "FRONTAL"}
