"""`rainhill reports`: what is told on the terminal and to a script, and what is refused in one line."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from client.reporting._cli import reports
from rainhill.errors import ConfigError, DataError, RainhillError

COMMAND = str(Path(sys.executable).parent / "rainhill")
REFERENCES = [
    "Small left pleural effusion. No pneumothorax. The heart is enlarged.",
    "The lungs are clear. No pleural effusion or pneumothorax. The heart is normal.",
    "Right basal consolidation, likely pneumonia. No effusion.",
    "Large right pneumothorax. No effusion. Heart size is normal.",
]
TEXT = "Cannot exclude a small left\npleural effusion. No pneumothorax.\nHeart size unchanged. Right mass. No mass."


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Forty reports of twenty patients; `draft` is right, `other` swaps every second negation, and has a name to be careful with."""
    path = tmp_path / "drafts.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["who", "draft", "other [b]", "reference"])
        for number in range(40):
            text = REFERENCES[number % 4]
            rows.writerow([f"Q{number // 2}", text, text.replace("No ", "Small ") if number % 3 else text, text])
    return path


def typed(*arguments: object, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(reports, [str(argument) for argument in arguments], input=stdin, standalone_mode=False)


def told(*arguments: object, stdin: bytes = b"") -> str:
    done = typed(*arguments, stdin=stdin)
    assert done.exception is None, (done.output, done.exception)
    return done.stdout


def refused(*arguments: object, stdin: bytes = b"") -> str:
    error = typed(*arguments, stdin=stdin).exception
    assert isinstance(error, RainhillError | OSError | click.ClickException), error
    return error.format_message() if isinstance(error, click.ClickException) else str(error)


def score(table: Path, *arguments: object) -> str:
    return told("score", table, "--patient", "who", "--bootstraps", "100", *arguments)


def test_a_report_is_told_finding_by_finding_with_its_words(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_text(TEXT)
    text = told("label", path)
    assert text == told("label", "-", stdin=TEXT.encode("utf-8-sig"))
    rows = [line.split() for line in text.splitlines()]
    assert ["pleural_effusion", "uncertain", "left", "mild"] in [row[:4] for row in rows]
    assert "pleural effusion (Cannot exclude)" in " ".join(text.split())
    assert ["pneumothorax", "negative", "pneumothorax", "(No)"] in rows and ["lung_lesion", "positive", "right", "mass"] in rows
    assert "contradicts itself on: lung_lesion" in text and "compares: unchanged" in text and "no finding: negative" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_script_gets_labels_and_the_places_of_their_words() -> None:
    found = json.loads(told("label", "-", "--json", stdin=TEXT.encode()))
    assert len(found["labels"]) == 14 and found["labels"]["pleural_effusion"] == "uncertain" and found["contradicted"] == ["lung_lesion"]
    effusion = found["mentions"][0]
    assert TEXT[effusion["start"] : effusion["end"]] == effusion["words"] == "pleural effusion" and found["comparisons"] == ["unchanged"]


def test_another_language_and_words_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('language = "en"\n[findings.pleural_effusion]\nwords = ["meniscus sign"]\n')
    german = json.loads(told("label", "-", "--language", "de", "--json", stdin=b"Kein Pleuraerguss."))
    assert german["labels"]["pleural_effusion"] == "negative"
    ours = told("label", "-", "--phrases", own, "--json", stdin=b"Meniscus sign on the left.")
    assert json.loads(ours)["labels"]["pleural_effusion"] == "positive"
    assert "no phrases of language 'fr'" in refused("label", "-", "--language", "fr", stdin=b"x")
    assert "wanted are those of 'de'" in refused("label", "-", "--language", "de", "--phrases", own, stdin=b"x")


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_bytes("Erguß".encode("latin-1"))
    assert refused("label", path) == f"{path}: is not UTF-8 text (byte 5)"
    assert refused("label", "-", stdin=b" \n ") == "-: is empty, expected a report"
    assert isinstance(typed("label", tmp_path / "none.txt").exception, FileNotFoundError)
    assert "is a directory" in refused("label", tmp_path)


def test_what_drafts_say_comes_before_how_they_are_worded(table: Path) -> None:
    text = score(table, "--draft", "other [b]")
    assert "40 reports of 20 patients; 95 % intervals over patients, 100 draws" in text
    places = [
        text.index(f"\n{name} ")
        for name in ("label_f1", "wrong_sides", "errors", "corpus_bleu", "changed_words", "false_finding", "cardiomegaly")
    ]
    assert places == sorted(places) and "other [b]" in text and "difference" not in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "too few with or without: enlarged_cardiomediastinum" in text.replace("\n", " ")


def test_two_models_are_compared_in_pairs(table: Path) -> None:
    text = score(table, "--against", "other [b]")
    (line,) = [line for line in text.splitlines() if line.startswith("label_f1")]
    assert line.split()[1:4] == ["1.00", "[1.00,", "1.00]"] and line.rstrip().endswith("]*") and "+0." in line
    assert "* the 95 % interval of the difference excludes 0" in text and all(len(line) <= 80 for line in text.splitlines())


def test_a_single_patient_has_values_and_no_intervals(table: Path) -> None:
    table.write_text(re.sub(r"Q\d+", "Q0", table.read_text()))
    found = json.loads(score(table, "--against", "other [b]", "--json"))
    assert found["patients"] == 1 and 0 < found["drafts"]["other [b]"]["means"]["label_f1"]["value"] < 1
    intervals = [
        one
        for of in found["drafts"].values()
        for one in (*of["means"].values(), *of["wording"].values(), of["findings"]["cardiomegaly"]["f1"])
    ]
    assert len(intervals) > 20 and all(one["low"] is None and one["high"] is None for one in intervals)
    assert found["differences"]["label_f1"]["value"] > 0 and found["differences"]["label_f1"]["p"] is None
    text = score(table, "--against", "other [b]")
    assert (
        "40 reports of 1 patient; no intervals, for it is a single patient" in text
        and "[" not in text.replace("other [b]", "")
        and "* the" not in text
    )


def test_a_script_gets_values_intervals_and_differences(table: Path) -> None:
    found = json.loads(score(table, "--against", "other [b]", "--json", "--seed", "4"))
    first, second = found["drafts"].values()
    assert list(found["drafts"]) == ["draft", "other [b]"] and (found["reports"], found["patients"], found["seed"]) == (40, 20, 4)
    assert first["means"]["label_f1"] == {"value": 1.0, "low": 1.0, "high": 1.0} and first["wording"]["corpus_bleu"][
        "value"
    ] == pytest.approx(100)
    assert second["means"]["label_f1"]["low"] < second["means"]["label_f1"]["value"] < second["means"]["label_f1"]["high"] < 1
    assert second["errors"]["false_finding"] > 0 == sum(first["errors"].values())
    difference = found["differences"]["label_f1"]
    assert difference["value"] == pytest.approx(1 - second["means"]["label_f1"]["value"]) and difference["low"] > 0
    assert difference["p"] == pytest.approx(2 / 101)
    assert found["differences"]["pneumothorax.f1"]["value"] > 0 == found["differences"]["wrong_sides"]["value"]
    assert json.loads(score(table, "--against", "other [b]", "--json", "--seed", "4")) == found


def test_a_program_of_ones_own_is_one_more_measure(table: Path, tmp_path: Path) -> None:
    script = tmp_path / "my metric.py"
    script.write_text(
        "import json, sys\nasked = json.load(sys.stdin)\n"
        "same = [float(a == b) for a, b in zip(asked['drafts'], asked['references'])]\n"
        "print(json.dumps({'same': same, 'f1': {'value': 0.5}, 'green': {'not_measured': 'weights are not at [/w]'}}))\n"
    )
    command, gone = f"'{sys.executable}' '{script}'", str(tmp_path / "gone")
    found = json.loads(score(table, "--against", "other [b]", "--external", command, "--external", gone, "--json"))
    first, second = found["drafts"].values()
    assert first["external"]["same"]["value"] == 1.0 and first["external"]["f1"] == {"value": 0.5, "low": None, "high": None}
    assert first["not_measured"] == {"green": "weights are not at [/w]", "gone": f"{gone} cannot be started: No such file or directory"}
    assert 0 < second["external"]["same"]["low"] < second["external"]["same"]["high"] < 1 < 1 + found["differences"]["same"]["low"]
    assert found["differences"]["f1"] == {"value": 0.0, "low": None, "high": None, "p": None}
    text = score(table, "--external", command)
    assert "draft: green: not measured, weights are not at [/w]" in text and any(
        line.split() == ["f1", "0.50"] for line in text.splitlines()
    )
    with pytest.raises(DataError, match="two programs measure"):
        raise typed("score", table, "--patient", "who", "--external", command, "--external", command).exception  # type: ignore[misc]


def test_columns_that_are_not_there_are_told_with_the_nearest(table: Path) -> None:
    said = refused("score", table, "--draft", "drat")
    assert "column 'drat': no such column, did you mean 'draft'?; there are who, draft, other [b], reference" in said
    assert "column 'patient': no such column" in said and "2 problems" in said
    assert "are different columns" in refused("score", table, "--patient", "who", "--against", "draft")


def test_empty_cells_and_tables_are_told_by_row_and_no_report_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "drafts.csv"
    path.write_text("patient,draft,reference\n1,Secretword.,\n,,Secretword.\n3,Secretword\n")
    said = refused("score", path)
    assert "row 2, column 'reference': empty" in said and "row 3, column 'patient': empty" in said and "row 4: 2 cells, expected 3" in said
    assert "Secretword" not in said and "'draft'" not in said
    path.write_text("patient,draft,reference\n")
    assert refused("score", path) == f"{path}: has no rows, expected a draft and a reference in each"
    path.write_text("")
    assert "has no header row" in refused("score", path)
    path.write_bytes("patient,draft,reference\n1,Erguß,Erguß\n".encode("latin-1"))
    assert "is not UTF-8 text" in refused("score", path)
    assert "no such file" in refused("score", tmp_path / "none.csv")


def test_wrong_arguments_are_told(table: Path) -> None:
    for arguments, says in (
        (("--external", "'open"), "--external: No closing quotation"),
        (("--external", " "), "--external: names no program"),
        (("--external-timeout", "0"), "0"),
        (("--external-timeout", "nan"), "nan: expected a number of seconds"),
        (("--external-timeout", "inf"), "inf: expected a number of seconds"),
        (("--bootstraps", "7"), "7 is not in the range"),
        (("--min-positives", "0"), "0 is not in the range"),
        (("--language", "fr"), "no phrases of language 'fr'"),
    ):
        assert says in refused("score", table, "--patient", "who", *arguments)
    assert isinstance(typed("score", table, "--phrases", table.parent / "none.toml").exception, ConfigError)


def test_a_few_reports_are_scored_without_findings_that_count(tmp_path: Path) -> None:
    path = tmp_path / "drafts.csv"
    path.write_text("patient;draft;reference\n1;No effusion.;Effusion.\n")
    found = json.loads(told("score", path, "--json"))
    (only,) = found["drafts"].values()
    assert (
        only["findings"] == {} and len(only["left_out"]) == 14 and only["means"]["label_f1"]["value"] == 0.0 and found["differences"] == {}
    )
    assert "label_macro_f1" not in only["means"] and "F1" in told("score", path)


def test_the_installed_command_answers_and_a_short_question_loads_no_torch(tmp_path: Path) -> None:
    listed = subprocess.run([COMMAND, "reports", "--help"], capture_output=True, text=True, check=True).stdout
    assert "label" in listed and "score" in listed
    loads = "import sys; from rainhill.cli import main; sys.argv = ['rainhill', 'reports', 'label', '-', '--json']\ntry: main()\nfinally: print([name for name in ('torch', 'nltk', 'sacrebleu') if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", loads], input="No effusion.", capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["labels"]["pleural_effusion"] == "negative" and done.stderr.strip() == "[]"
    path = tmp_path / "none.txt"
    failed = subprocess.run([COMMAND, "reports", "label", str(path)], capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stderr) == (2, f"rainhill: {path}: No such file or directory\n")


def test_reports_that_read_as_another_language_are_told_of(tmp_path: Path) -> None:
    german = "Kein Pneumothorax. Kein Erguss."
    done = typed("label", "-", stdin=german.encode())
    rather = "rather as language 'de' than as 'en' (--language de): negations may go unseen\n"
    assert (done.exception, done.stderr) == (None, f"-: reads {rather}")
    for text, language in ((german, "de"), ("Left effusion. No pneumothorax.", "en"), ("Thank you.", "en"), ("Kein Pneumothorax.", "en")):
        assert typed("label", "-", "--language", language, stdin=text.encode()).stderr == ""
    # Wherever they stand in the table, and in whichever column.
    table = tmp_path / "drafts.csv"
    texts = [("No effusion.", "No effusion.")] * 350 + [("No effusion.", german)] * 30 + [(german, "No effusion.")] * 20 + [("", "Wet.")]
    table.write_text("patient,draft,reference\n" + "".join(f'{number},"{one}","{other}"\n' for number, (one, other) in enumerate(texts)))
    done = typed("score", table, "--bootstraps", "100", "--json")
    assert done.exception is None and json.loads(done.stdout)["reports"] == 401
    assert done.stderr == f"column reference: 30 of 401 reports read {rather}column draft: 20 of 401 reports read {rather}"
