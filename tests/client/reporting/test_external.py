"""Programs that measure with weights: real processes that answer, stay away, hang, or answer with something else than was agreed."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.data.labeler import Labeler
from client.reporting.clinical import clinical
from client.reporting.external import OURS, Answer, ask
from client.reporting.reading import reading
from client.reporting.wording import measured
from rainhill.errors import DataError
from rainhill.recipe import EvaluationSection

DRAFTS, REFERENCES = ["No effusion.", "Große Verschattung.", "Secretword."], ["Effusion.", "Kleine Verschattung.", "Heart."]
SECTION = EvaluationSection(bootstraps=100, min_positives=1)
Program = Callable[[str], list[str]]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """A command that runs these lines with what it was asked as `asked`."""

    def written(lines: str) -> list[str]:
        path = tmp_path / "metric.py"
        path.write_text(f"import json, os, sys, time\nasked = json.load(sys.stdin)\n{lines}\n")
        return [sys.executable, str(path)]

    return written


def told(command: list[str], timeout_s: float = 20) -> Answer:
    return ask(command, DRAFTS, REFERENCES, timeout_s=timeout_s)


def test_a_program_answers_with_scores_values_and_reasons(program: Program) -> None:
    lengths = "[len(draft) - len(reference) for draft, reference in zip(asked['drafts'], asked['references'])]"
    found = told(
        program(
            f"json.dump({{'radgraph': {lengths}, 'chexbert_f1': {{'value': 0.5}}, 'green': {{'not_measured': 'no weights\\nat /w'}}}}, sys.stdout)"
        )
    )
    assert found.scores["radgraph"].tolist() == [3, -1, 5] and found.values == {"chexbert_f1": 0.5}
    assert found.not_measured == {"green": "no weights at /w"}


def test_its_scores_get_intervals_on_the_draws_of_all_others() -> None:
    patients = np.arange(12) // 2
    drafts, references = ["Effusion." if number % 3 else "Mass." for number in range(12)], ["Effusion."] * 12
    words = measured(drafts, references, patients, section=SECTION, seed=(2,))["changed_words"]
    answer = Answer(scores={"green": np.array([float(number % 3 == 0) for number in range(12)])}, values={"f1": 0.25})
    found = answer.measured(patients, section=SECTION, seed=(2,))
    assert found["green"].minus(words).interval(0.95) == pytest.approx((0.0, 0.0)) and found["green"].value == words.value
    assert found["f1"].value == 0.25 and np.isnan(found["f1"].interval(0.95)).all()


def test_it_is_told_to_stay_offline_and_gets_no_proxy_and_no_path_of_ours(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "http_proxy", "All_Proxy", "PYTHONPATH", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "/of/ours")
    monkeypatch.setenv("KEPT", "1")
    asked = ("offline", "proxy", "kept", "pythonpath", "virtual_env")
    lines = f"seen = [name for name in os.environ if name.lower().endswith({asked})]"
    seen = told(program(f"{lines}\nprint(json.dumps({{'seen': {{'not_measured': ' '.join(seen)}}}}))")).not_measured["seen"].split()
    assert {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "KEPT"} <= set(seen)
    assert not {name for name in seen if name.lower().endswith("proxy")} | ({"PYTHONPATH", "VIRTUAL_ENV"} & set(seen))


def test_reports_are_not_on_its_command_line_and_what_it_leaves_behind_is_gone(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = """
open("results.csv", "w").write(str(asked))
line = open("/proc/self/cmdline").read() + open("/proc/self/environ").read()
print(json.dumps({"place": {"not_measured": os.getcwd()}, "seen": {"value": line.count("Secretword")}}))
"""
    found = told(program(lines))
    assert found.values["seen"] == 0
    assert not Path(found.not_measured["place"]).exists() and sorted(path.name for path in tmp_path.iterdir()) == ["metric.py"]


def test_a_path_to_the_program_is_meant_from_where_one_stands(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, script = program('print(\'{"f1": {"value": 1}}\')')
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    assert told(["./python", script]).values == {"f1": 1.0}


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    gone = str(tmp_path / "radeval" / "bin" / "python")
    assert told([gone, "-m", "x"]).not_measured == {"python": f"{gone} cannot be started: No such file or directory"}
    assert "no-such-program-here" in told(["no-such-program-here"]).not_measured
    (tmp_path / "data.txt").write_text("text")
    assert "Permission denied" in told([str(tmp_path / "data.txt")]).not_measured["data.txt"]


def test_a_program_that_hangs_is_ended_with_all_that_it_started(program: Program, tmp_path: Path) -> None:
    lines = f"""
child = os.fork()
open({str(tmp_path)!r} + ("/child" if child == 0 else "/parent"), "w").write(str(os.getpid()))
time.sleep(60)
"""
    begun = time.monotonic()
    found = told(program(lines), timeout_s=2)
    assert found.not_measured == {Path(sys.executable).name: "no answer within 2 s"} and time.monotonic() - begun < 10
    for name in ("child", "parent"):
        status = Path("/proc") / (tmp_path / name).read_text() / "stat"
        # A zombie may wait for whoever inherits it.
        deadline = time.monotonic() + 5
        while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("sys.exit('Secretword')", "ended with exit code 1"),
        ("os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("print('{}')", "named no metric"),
    ],
)
def test_a_program_that_fails_is_told_without_what_it_said(
    program: Program, lines: str, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (reason,) = told(program(lines)).not_measured.values()
    assert why in reason and "Secretword" not in reason + "".join(capfd.readouterr())


def test_a_program_that_does_not_read_may_answer(tmp_path: Path) -> None:
    big = ["effusion " * 20_000] * 3
    found = ask([sys.executable, "-c", 'print(\'{"f1": {"value": 0}}\')'], big, big, timeout_s=20)
    assert found.values == {"f1": 0.0}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ('{"green": [1, NaN, 1]}', "green: report 2 is nan, expected a finite number"),
        ('{"green": [1, -Infinity, 1]}', "green: report 2 is -inf"),
        ('{"green": {"value": 1' + "0" * 400 + "}}", "green is inf"),
        ('{"green": [1, 2]}', "green: 2 numbers, expected one of each of 3 reports"),
        ('{"green": [1, 2, 3, 4]}', "green: 4 numbers"),
        ('{"green": [1, "Secretword", 3]}', "green: report 2 is text, expected a number"),
        ('{"green": [1, true, 3]}', "report 2 is true or false"),
        ('{"green": [1, null, 3]}', "report 2 is null"),
        ('{"green": 0.5}', "green is a number, expected 3 numbers"),
        ('{"green": {"value": 1, "more": 2}}', "green is an object"),
        ('{"green": {"not_measured": 3}}', "green is an object"),
        ('{"bleu": [1, 2, 3]}', "a metric is named bleu, which is measured here"),
        ('{"label_f1": {"value": 1}}', "a metric is named label_f1"),
        ('{"Sec ret": {"value": 1}}', "a metric is named 'Sec ret', expected small letters"),
        ('{"a": {"value": 1}, "a": {"value": 2}}', "not a JSON object"),
        ("[1, 2, 3]", "its answer is a list"),
        ("Secretword", "10 bytes of its answer are not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ("", "0 bytes of its answer"),
    ],
)
def test_what_was_not_agreed_is_refused_and_never_quoted(program: Program, tmp_path: Path, answer: str, says: str) -> None:
    (tmp_path / "answer").write_text(answer)
    with pytest.raises(DataError) as caught:
        told(program(f"sys.stdout.write(open({str(tmp_path / 'answer')!r}).read())"))
    assert says in str(caught.value) and "Secretword" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(program: Program) -> None:
    with pytest.raises(DataError, match="not a JSON object"):
        told(program("sys.stdout.buffer.write(b'\\xff\\xfe{')"))


def test_all_names_of_ours_are_kept_for_ours() -> None:
    read = [reading(Labeler(), text) for text in REFERENCES]
    names = clinical(read, read, np.arange(3), section=SECTION, seed=(0,)).means.keys()
    assert names | measured(DRAFTS, REFERENCES, np.arange(3), section=SECTION, seed=(0,)).keys() == OURS


def test_one_draft_of_each_reference_is_asked_about() -> None:
    with pytest.raises(DataError, match="1 drafts of 2 references"):
        ask(["true"], ["a"], ["a", "b"], timeout_s=1)


RUNNER = Path(__file__).parents[3] / "client" / "reporting" / "radeval_runner.py"
RADEVAL = """
class RadEval:
    def __init__(self, metrics, per_sample, show_progress):
        print("noise of a library")
        (self.name,), self.per_sample = metrics, per_sample
        if self.name == "green":
            raise OSError("cannot find the model")

    def __call__(self, refs, hyps):
        from RadEval.inner import number
        if self.name == "ratescore":
            raise ValueError(hyps[0])
        if self.name == "radcliq":
            return {"radcliq_v1": [None] + [number] * (len(refs) - 1)}
        return {f"{self.name}_micro": [number] * len(refs) if self.per_sample else number}
"""


@pytest.fixture
def runner(tmp_path: Path) -> Callable[..., list[str]]:
    """The runner in an environment whose radeval is these few lines, with a folder of weights in which these files are."""

    def made(*arguments: str, weights: tuple[str, ...] = ()) -> list[str]:
        package = tmp_path / "site" / "radeval"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(RADEVAL)
        (package / "inner.py").write_text("number = 0.25\n")
        for name in weights:
            (tmp_path / "weights" / name).mkdir(parents=True)
        start = f"import runpy, sys; sys.path.append({str(package.parent)!r}); sys.argv = sys.argv[1:]; sys.path.insert(0, ''); runpy.run_path(sys.argv[0], run_name='__main__')"
        return [sys.executable, "-I", "-c", start, str(RUNNER), "--weights", str(tmp_path / "weights"), *arguments]

    return made


HUB = "huggingface/hub/models--{}/snapshots/1"
EVERYTHING = (
    "radgraph/0.1.18/radgraph-xl/weights.th",
    "radgraph/0.1.18/radgraph/weights.th",
    "chexbert/models--StanfordAIMI--RRG_scorers/snapshots/1/chexbert.pth",
    *(
        HUB.format(name)
        for name in (
            "bert-base-uncased",
            "distilroberta-base",
            "distilbert-base-uncased",
            "StanfordAIMI--GREEN-radllama2-7b",
            "Angelakeke--RaTE-NER-Deberta",
            "FremyCompany--BioLORD-2023-C",
        )
    ),
)


def test_the_runner_says_which_weights_are_missing(runner: Callable[..., list[str]], tmp_path: Path) -> None:
    found = told(runner("--metric", "radgraph", "--metric", "bertscore", weights=(HUB.format("distilbert-base-uncased"),)))
    assert found.not_measured == {"radgraph": f"weights are not at {tmp_path}/weights/radgraph/0.1.18/radgraph-xl/weights.th"}
    assert found.scores["bertscore_micro"].tolist() == [0.25] * 3


def test_the_runner_measures_what_there_is_and_tells_the_rest(runner: Callable[..., list[str]]) -> None:
    found = told(runner(weights=EVERYTHING))
    assert sorted(found.scores) == ["bertscore_micro", "radgraph_micro"] and found.values == {"f1chexbert_micro": 0.25}
    assert found.not_measured == {
        "green": "cannot be loaded: OSError: cannot find the model",
        # It raised a draft's words.
        "ratescore": "failed with ValueError",
        "radcliq_v1": "1 of 3 reports have no score",
    }


def test_the_runner_needs_no_rainhill_and_says_that_radeval_is_not_there(tmp_path: Path) -> None:
    for name in EVERYTHING:
        (tmp_path / name).mkdir(parents=True)
    # Isolated, and without site-packages: nothing but the standard library.
    found = told([sys.executable, "-I", "-S", str(RUNNER), "--weights", str(tmp_path), "--metric", "green"])
    assert found.not_measured == {"green": "cannot be loaded: ModuleNotFoundError: No module named 'radeval'"}


def test_a_metric_that_the_runner_does_not_know_is_refused(tmp_path: Path) -> None:
    found = told([sys.executable, str(RUNNER), "--weights", str(tmp_path), "--metric", "meteor"])
    assert "exit code 2" in found.not_measured[Path(sys.executable).name]
