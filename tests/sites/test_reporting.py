"""A whole run of the task `report`, as a person runs it: without privacy and with, what it leaves, and its page in a browser's eyes."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.data.labeler import Labeler
from client.drafting.confidence import Threshold
from client.drafting.track_record import Named, TrackRecord
from client.models import digest
from client.privacy import accountant, budget
from client.privacy.ledger import Ledger
from client.reporting.reading import reading
from client.training.metrics import Drafted
from rainhill.adapter import Adapter
from sites import cli, results
from sites.report import write_report
from sites.side_by_side import beside, marked
from tests.client.vlm_families import SIZE, save

CXR = Path(__file__).parents[3] / "shared/data/cxr"
SAID = ("The heart is enlarged.", "Left pleural effusion.", "No pneumothorax. No pleural effusion.")
NAMES = ("aintree", "broadgreen")
LABELER = Labeler()


def write_hospital(folder: Path, name: str, *, patients: int, seed: int) -> None:
    """Films whose brightest third tells what their report says; a second film of a patient has the first one's report as its prior."""
    rng, rows = np.random.default_rng(seed), ["patient,image,report,indication,prior"]
    (folder / name).mkdir()
    for patient in range(patients):
        prior = ""
        for film in range(1 + patient % 2):
            kind = int(rng.integers(3))
            pixels = rng.normal(90, 12, (SIZE, SIZE))
            pixels[:, kind * SIZE // 3 : (kind + 1) * SIZE // 3] += 100
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name / f"{patient}-{film}.png")
            rows.append(f"P{patient},{patient}-{film}.png,{SAID[kind]},Cough.,{prior}")
            prior = SAID[kind]
    (folder / name / "manifest.csv").write_text("\n".join(rows) + "\n")
    columns = '[data.columns]\nreport = "report"\nindication = "indication"\nprior = "prior"\n'
    split = '[data.split]\nby = "patient"\nval = 0.2\ntest = 0.3\n'
    (folder / f"{name}.toml").write_text(
        f'name = "{name}"\ntitle = "{name.capitalize()} <General>"\n[data]\nmanifest = "{name}/manifest.csv"\n{columns}{split}'
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reporting")
    base = save("llava", folder / "llava")
    (folder / "sites").mkdir()
    for number, name in enumerate(NAMES):
        write_hospital(folder / "sites", name, patients=40, seed=number)
    (folder / "writing.toml").write_text(f"""
name = "writing"
title = "A small world that writes"
[task]
name = "report"
max_tokens = 24
val_drafts = 4
[base]
model = "vlm"
weights = "{base}"
sha256 = "{digest(base)}"
scope = "language+projector+vision"
[lora]
rank = 4
alpha = 8
modules = "(q_proj|v_proj|fc1|up_proj|linear_1)"
[strategy]
rule = "fedavg"
[rounds]
count = 2
steps = 60
patients_per_step = 8
learning_rate = 2e-2
[private]
steps = 40
patients_per_step = 8
learning_rate = 1e-2
rank = 2
[evaluation]
bootstraps = 100
min_positives = 2
""")
    return folder


@pytest.fixture(scope="module")
def run(simulate, world: Path) -> Path:
    done = simulate("writing.toml", "--sites", "sites", "--out", "run", cwd=world)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "label F1" in done.stdout and "AUROC" not in done.stdout
    return world / "run"


def test_label_f1_stands_where_auroc_stands_of_another_task(run: Path) -> None:
    found = json.loads((run / "results.json").read_text())
    assert (found["measure"], found["task"], found["source"]) == ("label_f1", "report", None)
    for name in NAMES:
        site = found["sites"][name]
        assert site["measure"] == "label_f1"
        for arm in ("base", "local", "shared", "private", "pooled"):
            level = site[arm]["label_f1"]
            assert 0 <= level["low"] <= level["value"] <= level["high"] <= 1
            assert {"label_precision", "label_recall", "errors", "wrong_sides", "corpus_bleu", "rouge_l", "meteor_nosyn"} <= site[
                arm
            ].keys()
            assert "label_f1" in site[arm]["findings"]["pleural_effusion"]
        # The films tell plainly what is to be written.
        assert site["base"]["label_f1"]["value"] < 0.5 < 0.8 < site["private"]["label_f1"]["value"]
        assert site["verdict"] == "better" and "drafts this site's reports at label F1" in site["verdict_text"]
        assert [point["round"] for point in site["curve"]["shared"]] == [1, 2, 3] and "label_f1" in site["curve"]["shared"][0]
        assert 0 < site["prevalence"]["pleural_effusion"] < 1
    assert set(found["cross_site"]) == {"rows", "columns", "label_f1"}
    assert found["consortium"]["private"] > found["consortium"]["base"]


def test_drafts_stand_beside_the_reports_that_were_signed(run: Path) -> None:
    for site in json.loads((run / "results.json").read_text())["sites"].values():
        assert 1 <= len(site["drafts"]) <= 6
        for case in site["drafts"]:
            assert case["reference"] in SAID and case["indication"] == "Cough." and case["prior"] in ("", *SAID)
            assert {"base", "private", "pooled"} <= case.keys()
        assert sum(case["private"] == case["reference"] for case in site["drafts"]) >= len(site["drafts"]) / 2


def test_how_many_drafts_a_sites_model_abstains_from_is_counted_on_validation_and_test_patients(run: Path) -> None:
    for site in json.loads((run / "results.json").read_text())["sites"].values():
        told, own = site["abstention"]["validation"], site["abstention"]["test"]
        assert told["drafts"] == site["patients"]["val"] and own["drafts"] == site["images"]["test"]
        # One draft per patient, of which those above the threshold are kept: four in five, and fewer where some are equally sure.
        assert 0 < told["kept"] <= 0.8 * told["drafts"] and 0 <= told["wrong"] <= told["kept"]
        assert told["wrong"] / told["kept"] < told["most_wrong"] <= 1
        assert own["kept"] <= own["drafts"] and own["kept_wrong"] <= min(own["kept"], own["wrong"])
        # The films tell plainly what is to be written, so that it sees all there is.
        assert site["abstention"]["blind"] == [] and (own["wrong_but_for_blind"], own["kept_wrong_but_for_blind"]) == (
            own["wrong"],
            own["kept_wrong"],
        )
        assert site["abstention"]["named"].keys() == {"cardiomegaly", "pleural_effusion"}
    page, sites = (run / "report.html").read_text(), json.loads((run / "results.json").read_text())["sites"].values()
    assert page.count("<strong>abstained</strong>") == sum(case["abstained"] for site in sites for case in site["drafts"])
    assert f"Of all {own['drafts']} test drafts of the adapted model {own['wrong']} have a false" in page


def test_a_finding_that_a_model_does_not_see_is_counted_apart() -> None:
    def draft(said: str, wanted: str, sure: float) -> Drafted:
        return Drafted(text=said, sure=sure, said=reading(LABELER, said), wanted=reading(LABELER, wanted))

    found = [
        draft("Left effusion.", "Left effusion. Pacemaker.", -0.1),
        draft("No effusion.", "Left effusion. Pacemaker.", -0.2),
        draft("Left effusion.", "Left effusion.", -0.3),
        draft("No effusion.", "Left effusion.", -9.0),
    ]
    record = TrackRecord(
        threshold=Threshold.calibrated([-0.1, -1.0, -2.0], [False, True, True], coverage=0.8),
        named={"pleural_effusion": Named(there=9, named=9), "support_devices": Named(there=9, named=1)},
    )
    told = results.abstention(record, found)
    assert told["blind"] == ["support_devices"] and told["named"]["support_devices"] == {"there": 9, "named": 1}
    assert told["test"] == {
        "drafts": 4,
        "wrong": 3,
        "wrong_but_for_blind": 2,
        "cut": 0,
        "kept": 3,
        "kept_wrong": 2,
        "kept_wrong_but_for_blind": 1,
    }


def test_the_page_says_what_to_look_for_oneself(run: Path, tmp_path: Path) -> None:
    def page() -> str:
        return " ".join(write_report(found, {}, tmp_path).read_text().split())

    found = json.loads((run / "results.json").read_text())
    assert "look yourself" not in page()
    one, other = (found["sites"][name]["abstention"] for name in NAMES)
    one |= {"blind": ["support_devices"], "named": {"support_devices": {"there": 9, "named": 1}}}
    # As it was before this was told.
    for name in ("blind", "named"):
        del other[name]
    assert page().count("look yourself") == page().count("But for support devices, ") == 1
    assert "<strong>Aintree &lt;General&gt;: look yourself for support devices (named in 1 of 9).</strong>" in page()
    one |= {"blind": ["lung_lesion", "support_devices"], "named": one["named"] | {"lung_lesion": {"there": 20, "named": 3}}}
    assert "for lung lesion (named in 3 of 20), support devices (named in 1 of 9)." in page()
    # Without a validation report there is none at all.
    del found["sites"][NAMES[0]]["abstention"]
    assert "look yourself" not in page() and "Of all" in page()


class Sections(HTMLParser):
    """Ids of headings, and the words within `ins` and `del`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.marked = {"ins": 0, "del": 0}
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.ids += [str(value) for name, value in attributes if name == "id"]
        if tag in self.marked:
            self.marked[tag] += 1


def test_the_page_shows_them_side_by_side_and_nothing_of_another_task(run: Path) -> None:
    page = (run / "report.html").read_text()
    seen = Sections(page)
    assert "drafts" in seen.ids and seen.marked["ins"] > 1 and seen.marked["del"] > 1
    assert "<General>" not in page and "Aintree &lt;General&gt;" in page
    assert "label F1" in page and "AUROC" not in page and "Brier" not in page
    found, told = json.loads((run / "results.json").read_text())["sites"], " ".join(page.split())
    for name in NAMES:
        (before, after), (silent, speaking) = (
            [found[name][arm][of]["value"] for arm in ("base", "private")] for of in ("wrong_sides", "silent")
        )
        # The base knows no word of a report.
        assert silent > 0.5 > speaking
        said = (
            f"{before:.2f} → {after:.2f} findings on a wrong side, and {100 * silent:.0f} % → {100 * speaking:.0f} % of drafts are silent"
        )
        assert f"{name.capitalize()} &lt;General&gt;: {said}" in told


def test_what_travels_is_adapters_and_no_word_of_a_report(run: Path) -> None:
    adapter = Adapter.from_bytes((run / "adapters" / "shared.safetensors").read_bytes())
    assert all(".lora_" in name for name in adapter)
    assert not any("embed" in name or "lm_head" in name for name in adapter)


def test_reports_are_learned_under_privacy_and_the_ledger_says_so(simulate, world: Path) -> None:
    text = (world / "writing.toml").read_text().replace("count = 2\nsteps = 60", "count = 2\nsteps = 6")
    (world / "private.toml").write_text(text.replace('"fedavg"', '"alternating"') + "[privacy]\nepsilon = 6\nmax_grad_norm = 0.1\n")
    done = simulate("private.toml", "--sites", "sites", "--out", "private", cwd=world)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in NAMES:
        ledger = Ledger.open(world / "private" / "checkpoints" / "memory" / "shared" / name, site=name)
        history = budget.run_history(ledger, "writing")
        assert sum(history.values()) == 12 and 5.5 < accountant.epsilon(history, 1e-5) <= 6.0


def test_words_are_marked_that_one_of_both_has() -> None:
    told = [(run.kind, run.words) for run in marked("Small left effusion, no PTX", "small right effusion. No PTX seen.")]
    assert told == [("same", "Small"), ("missing", "right"), ("more", "left"), ("same", "effusion, no PTX"), ("missing", "seen.")]
    assert [run.kind for run in marked("Clear.", "clear")] == ["same"]
    assert [(run.kind, run.words) for run in marked("", "Clear.")] == [("missing", "Clear.")]
    # Lines of a draft stay lines, and none comes of the reference's.
    lines = marked("No effusion. \nIMPRESSION:\nClear.", "No effusion.\nIMPRESSION:\nLungs clear.")
    assert [(run.kind, run.words) for run in lines] == [
        ("same", "No effusion. \n IMPRESSION:\n"),
        ("missing", "Lungs"),
        ("same", "Clear."),
    ]
    assert [run.words for run in marked("Clear.\r\n\r\nIMPRESSION\rClear.\n", "Clear. IMPRESSION Clear.")] == [
        "Clear.\n\n IMPRESSION\n Clear."
    ]
    case = {"film": 3, "indication": "", "prior": "", "reference": "Clear.", "base": "Clear.", "private": "Wet."}
    assert [draft.same for draft in beside(case).drafts] == [True, False]
    assert not any(draft.abstained for draft in beside(case).drafts)
    assert [draft.abstained for draft in beside(case | {"abstained": True}).drafts] == [False, True]


def test_a_recipe_that_ships_with_rainhill_brings_its_sites() -> None:
    assert cli._sites_of("reporting") == cli.HERE / "reporting" and cli._sites_of("cxr") == cli.HERE / "cxr"
    assert cli._sites_of("demo") == cli._sites_of(None) == cli._sites_of("sites/cxr.toml") == cli._sites_of("source") == cli.HERE


@pytest.mark.skipif(not (CXR / "metadata.csv").is_file(), reason="the real films and texts are not on this machine")
def test_real_texts_and_films_go_through_it_under_privacy(simulate, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = (cli.RECIPES / "teaching.toml").read_text()
    shorter = (
        ("max_tokens = 160", "max_tokens = 64"),
        ("count = 3", "count = 1"),
        ("steps = 10", "steps = 4"),
        ("steps = 30", "steps = 5"),
    )
    for long, short in shorter:
        assert long in text
        text = text.replace(long, short)
    (tmp_path / "short.toml").write_text(text + "[evaluation]\nbootstraps = 100\nmin_positives = 2\n")
    done = simulate("short.toml", "--sites", cli.HERE / "teaching", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "site radiopaedia: max_tokens = 64 cuts 45 of 58 reports" in caplog.messages
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found["rounds"][0]["answered"] == ["eurorad", "radiopaedia"] and found["privacy"]["epsilon"] == 8
    for site in found["sites"].values():
        assert site["patients"]["test"] >= 4 and len(site["drafts"]) >= 4
        assert site["base"]["label_f1"]["value"] is not None
