"""What the labeler reads in a report: hard sentences, phantoms in every style, real reports, and laws over any text."""

import random
import re
import textwrap
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.data import labeler
from client.data.clauses import OTHER
from client.data.elements import elements
from client.data.labeler import Labeler, labels_of
from client.data.vocabulary import FINDINGS
from client.reporting.reading import reading
from perf.labeler import STATES, Hard, agreements, hard_in, reads_as, reports_in
from rainhill.errors import ConfigError
from rainhill.toml import read_toml
from sites import hospital, report_text
from sites.cases import FINDINGS as DRAWN
from sites.hospital import HospitalConfig

HERE = Path(__file__).parent
REPORTS = Path(__file__).parents[4] / "shared/data/cxr/reports_iu/NLMCXR_reports.tgz"
ENGLISH, GERMAN = Labeler(), Labeler(language="de")
NAMED = {"effusion": "pleural_effusion", "oedema": "edema", "nodule": "lung_lesion", "device": "support_devices"}
"""Findings of phantoms that reports are labelled with under another name."""
SENTENCES = [one.text for one in hard_in(HERE / "hard_sentences.txt")]


def hard(kind: str, text: str, said: str) -> Hard:
    words = [one.split() for one in said.split(", ")] if said != "-" else []
    labels = {finding: STATES[state] for finding, state, *_ in words}
    return Hard(kind=kind, text=text, labels=labels, sides={one[0]: one[2] for one in words if len(one) > 2})


def told(text: str, labeler: Labeler = ENGLISH) -> dict[str, str]:
    return {finding: label for finding, label in labeler.labels(text).items() if label != "unmentioned" and finding != "no_finding"}


def test_of_two_hundred_hard_sentences_at_least_85_in_100_are_read_as_a_person_reads_them() -> None:
    hard = hard_in(HERE / "hard_sentences.txt")
    wrong = [one for one in hard if not reads_as(ENGLISH, one)]
    assert len(hard) >= 200 and len(wrong) <= 0.15 * len(hard), [one.text for one in wrong]
    kinds = Counter(one.kind for one in hard)
    assert all(sum(one.kind == kind for one in wrong) <= 0.2 * count for kind, count in kinds.items()), wrong


def test_german_is_read_too() -> None:
    assert [one.text for one in hard_in(HERE / "german_sentences.txt") if not reads_as(GERMAN, one)] == []


@pytest.mark.parametrize("style", get_args(report_text.Style))
def test_what_a_phantoms_report_says_in_any_style_is_what_was_drawn(style: report_text.Style) -> None:
    config = read_toml(Path(hospital.__file__).with_name("liverpool.toml"), HospitalConfig).phantom
    train, test = hospital.draw(config.model_copy(update={"patients": 400, "test_patients": 0}), seed=0)
    counts = {finding: Counter[tuple[bool, bool]]() for finding in DRAWN}
    for case in (case for patient in (*train, *test) for case in patient.cases):
        labels, drawn = ENGLISH.labels(report_text.write(case, style)), {finding.name for finding in case.findings}
        for finding in DRAWN:
            counts[finding][labels[NAMED.get(finding, finding)] in ("positive", "uncertain"), finding in drawn] += 1
    for finding, of in counts.items():
        f1 = 2 * of[True, True] / (2 * of[True, True] + of[True, False] + of[False, True])
        assert of[True, True] >= 10 and f1 >= 0.95, (finding, of)


@pytest.mark.skipif(not REPORTS.exists(), reason=f"the Indiana University reports are not at {REPORTS}")
def test_real_reports_are_called_normal_where_people_called_them_so() -> None:
    reports = list(reports_in(REPORTS))
    found = {one.name: one for one in agreements(reports, [ENGLISH.labels(one.text) for one in reports])}
    assert len(reports) == 3955 and found["normal"].headed == 1391
    assert found["normal"].f1 >= 0.90, found["normal"]
    assert all(found[finding].f1 >= 0.85 for finding in ("cardiomegaly", "atelectasis", "lung_lesion")), found


def by_line(text: str) -> str:
    """One statement a line, without full stops."""
    return re.sub(r"\.\s+(?=[A-ZÄÖÜ])", "\n", text).removesuffix(".")


def glued(text: str) -> str:
    return re.sub(r"\.\s+(?=[A-ZÄÖÜ])", ".", text)


@pytest.mark.skipif(not REPORTS.exists(), reason=f"the Indiana University reports are not at {REPORTS}")
def test_real_reports_say_the_same_however_their_lines_break() -> None:
    texts = [" ".join(one.text.split()) for one in list(reports_in(REPORTS))[::10]]
    for written in (partial(textwrap.fill, width=60), partial(textwrap.fill, width=80), by_line, glued):
        for form in (str, str.upper):
            assert [text for text in texts if ENGLISH.labels(text) != ENGLISH.labels(form(written(text)))] == []


@pytest.mark.parametrize("written", [partial(textwrap.fill, width=50), partial(textwrap.fill, width=72), by_line, glued])
def test_german_reports_do_too(written: Callable[[str], str]) -> None:
    drawn, sentences = random.Random(0), [one.text for one in hard_in(HERE / "german_sentences.txt")]
    texts = [" ".join(drawn.sample(sentences, drawn.randint(2, 8))) for _ in range(200)]
    assert [text for text in texts if GERMAN.labels(text) != GERMAN.labels(written(text))] == []


def test_uncertainty_with_a_negation_in_it_comes_before_negation_and_that_before_other_uncertainty() -> None:
    assert told("Cannot exclude effusion.") == {"pleural_effusion": "uncertain"}
    assert told("No suspected effusion.") == {"pleural_effusion": "negative"}
    assert told("Suspected effusion.") == {"pleural_effusion": "uncertain"}
    assert told("No mass, possible effusion.") == {"lung_lesion": "negative", "pleural_effusion": "uncertain"}


def test_a_report_says_of_a_finding_what_it_says_most_strongly() -> None:
    text = "No effusion.\n\nPossible effusion.\n\n"
    assert told(text) == {"pleural_effusion": "uncertain"}
    assert told(text + "IMPRESSION: small left effusion.") == {"pleural_effusion": "positive"}


def test_a_report_is_normal_where_no_class_and_no_other_abnormality_is_found() -> None:
    assert ENGLISH.labels("The heart is normal. Right PICC line.")["no_finding"] == "positive"
    assert ENGLISH.labels("")["no_finding"] == "positive"
    for said in ("Possible pneumonia.", "Scoliosis.", "Small effusion."):
        assert ENGLISH.labels(said)["no_finding"] == "negative"
    assert ENGLISH.labels("No scoliosis. No effusion.")["no_finding"] == "positive"


def test_a_mention_tells_its_words_and_what_decided() -> None:
    text = "The heart is\nmildly enlarged. Cannot exclude a small left pleural effusion; no evidence of pneumothorax."
    heart, effusion, pneumothorax = ENGLISH.mentions(text)
    assert (heart.words, heart.cue, heart.state, heart.severity) == ("heart is\nmildly enlarged", "", "positive", "mild")
    assert (effusion.words, effusion.cue, effusion.side, effusion.severity) == ("pleural effusion", "Cannot exclude", "left", "mild")
    assert (pneumothorax.words, pneumothorax.cue, pneumothorax.state) == ("pneumothorax", "no evidence of", "negative")


def test_lines_that_are_full_go_on_and_lists_and_headings_begin_anew() -> None:
    assert told("No consolidation\nor effusion.") == {"consolidation": "negative", "pleural_effusion": "negative"}
    assert told("- no consolidation\n- effusion") == {"consolidation": "negative", "pleural_effusion": "positive"}
    assert told("LUNGS: no consolidation\nPLEURA: effusion") == {"consolidation": "negative", "pleural_effusion": "positive"}


WRAPPED = """The lungs are well expanded, and there is no evidence of a pleural effusion or of focal
consolidation. The heart is normal in size, and the mediastinum is not widened. There is no
PICC line. No pneumothorax in this view
Cardiomegaly"""
UMBROCHEN = """Regelrechte Lage des ZVK. Herz nicht vergrößert, kein Nachweis einer venösen
Stauung, kein Infiltrat. Im Seitbild beidseits kein Hinweis auf einen Pleura-
Erguss, und wie schon in der letzten Aufnahme kein Anhalt für apikale Luft, kein
Pneumothorax
Rippenfraktur links"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("No effusion\nCardiomegaly present", "pleural_effusion -, cardiomegaly +"),
        ("No effusion\nLeft pneumothorax", "pleural_effusion -, pneumothorax + left"),
        ("No effusion\r\nLeft pneumothorax", "pleural_effusion -, pneumothorax + left"),
        (
            "No effusion, heart is normal in size and shape\nPneumothorax on the left",
            "pleural_effusion -, cardiomegaly -, pneumothorax + left",
        ),
        ("NO EFFUSION\nLEFT PNEUMOTHORAX", "pleural_effusion -, pneumothorax + left"),
        ("NO FOCAL CONSOLIDATION. NO PLEURAL EFFUSION, NO\nFRACTURE.", "consolidation -, pleural_effusion -, fracture -"),
        ("THE HEART IS NORMAL. BOTH LUNGS ARE\nCLEAR. NO FRACTURE", "cardiomegaly -, lung_opacity -, consolidation -, fracture -"),
        ("NO ACUTE\nFRACTURE OR\nEFFUSION", "fracture -, pleural_effusion -"),
        ("No evidence of\nKerley B lines", "edema -"),
        ("Lungs:\nClear\nPleura:\nNo effusion", "lung_opacity -, consolidation -, pleural_effusion -"),
        ("No effusion.Left pneumothorax present.", "pleural_effusion -, pneumothorax + left"),
        ("No effusion;pneumothorax", "pleural_effusion -, pneumothorax +"),
        ("No effusion!Pneumothorax", "pleural_effusion -, pneumothorax +"),
        ("1) No effusion 2) left pneumothorax", "pleural_effusion -, pneumothorax + left"),
        ("a) No effusion b) left pneumothorax", "pleural_effusion -, pneumothorax + left"),
        ("No effusion • left pneumothorax", "pleural_effusion -, pneumothorax + left"),
        ("No effusion\n(Left pneumothorax)", "pleural_effusion -, pneumothorax + left"),
        ("Increase in right and decrease in left basilar atelectasis", "atelectasis + both"),
        ("Effusion (see 2) on the left", "pleural_effusion + left"),
        ("No mass of 5.3 cm as on 3.5.2024, e.g. consolidation", "lung_lesion -, consolidation -"),
        ("Rt. pleural effusion.", "pleural_effusion + right"),
        ("Small effusion, rt. No pneumothorax.", "pleural_effusion + right, pneumothorax -"),
        (WRAPPED, "pleural_effusion -, consolidation -, cardiomegaly +, support_devices -, pneumothorax -, enlarged_cardiomediastinum -"),
    ],
)
def test_a_line_that_begins_a_statement_begins_a_sentence(text: str, said: str) -> None:
    assert reads_as(ENGLISH, hard("line", text, said)), ENGLISH.mentions(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Kein Erguss\nKardiomegalie", "pleural_effusion -, cardiomegaly +"),
        ("Kein Erguss li.\nPneumothorax re.", "pleural_effusion - left, pneumothorax + right"),
        ("Kein Erguss li. Pneumothorax re.", "pleural_effusion - left, pneumothorax + right"),
        ("Kein\nErguss", "pleural_effusion -"),
        ("Kein Nachweis\neines Pneumothorax", "pneumothorax -"),
        ("Kein Hinweis auf\nPneumothorax", "pneumothorax -"),
        ("Kein frischer pleuraler\nErguss", "pleural_effusion -"),
        (UMBROCHEN, "support_devices +, cardiomegaly -, edema -, lung_opacity -, pleural_effusion -, pneumothorax -, fracture + left"),
        ("V.a. Pneumonie.", "pneumonia ?"),
        ("V. a. Pneumonie.", "pneumonia ?"),
        ("Va. Pneumonie", "pneumonia ?"),
        ("Kein V.a. Pneumonie.", "pneumonia -"),
        ("Erguss re. und li.", "pleural_effusion + both"),
        ("Kleiner re. Erguss.", "pleural_effusion + right"),
        ("Winkelerguss re. < li.", "pleural_effusion + both"),
        ("Im re. Unterfeld Infiltrat.", "lung_opacity + right"),
        ("Erguss bds. Kein Pneumothorax.", "pleural_effusion + both, pneumothorax -"),
        ("Erguss, ca. 3 cm, li. basal.", "pleural_effusion + left"),
        ("Kein Erguss bzw. Pneumothorax.", "pleural_effusion -, pneumothorax -"),
        ("Z.n. Rippenfraktur links", "-"),
        ("Z. n. Pneumonie, Erguss links.", "pleural_effusion + left"),
        ("St.p. Rippenfraktur.", "-"),
        ("Keine frische Fraktur, alte Rippenfraktur links.", "fracture + left"),
        ("Herz o. B. Lunge o.B.", "cardiomegaly -, lung_opacity -, consolidation -"),
        ("Im Vgl. zur VA Erguss rechts.", "pleural_effusion + right"),
        ("Eine Stauung liegt nicht vor.", "edema -"),
        ("Ein Pneumothorax besteht nicht.", "pneumothorax -"),
        ("Kein Erguss links, rechts geringer Erguss", "pleural_effusion + right"),
        ("Zwerchfellwinkel frei.", "pleural_effusion -"),
        ("Sinus phrenicocostales frei.", "pleural_effusion -"),
        ("Pneumonie nicht sicher auszuschließen.", "pneumonia ?"),
        ("Kein Hinweis, dass der Erguss zurückgebildet ist.", "pleural_effusion +"),
        ("Lungen frei bis auf ein Infiltrat links.", "consolidation -, lung_opacity + left"),
    ],
)
def test_german_lines_and_abbreviations_end_sentences_where_a_reader_ends_them(text: str, said: str) -> None:
    read = hard("line", text, said)
    told_sides = {(one.finding, one.side) for one in GERMAN.mentions(text) if one.side}
    assert told(text, GERMAN) == read.labels and told_sides >= set(read.sides.items()), GERMAN.mentions(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A small apical pneumothorax cannot be entirely excluded", "pneumothorax ?"),
        ("Pneumothorax cannot be definitely ruled out", "pneumothorax ?"),
        ("Pneumonia can't be excluded", "pneumonia ?"),
        ("Pneumonia can\N{RIGHT SINGLE QUOTATION MARK}t be excluded", "pneumonia ?"),
        ("Effusion isn't seen", "pleural_effusion -"),
        ("There isn\N{RIGHT SINGLE QUOTATION MARK}t any effusion", "pleural_effusion -"),
        ("Left pleural effusion has increased and right has resolved", "pleural_effusion + left"),
        ("There is no evidence that the effusion has resolved", "pleural_effusion +"),
        ("There is no evidence that there is an effusion", "pleural_effusion -"),
        ("It is not unlikely that this represents pneumonia", "pneumonia ?"),
        ("Nothing to suggest pneumonia", "pneumonia -"),
        ("Effusion cannot be seen", "pleural_effusion -"),
        ("Pneumothorax has not recurred", "pneumothorax -"),
        ("Near-complete resolution of the effusion", "pleural_effusion +"),
        ("Lungs are clear apart from a small left consolidation", "lung_opacity -, consolidation + left"),
        ("Ke\0yed film. N\0o effu\N{SOFT HYPHEN}sion", "pleural_effusion -"),
    ],
)
def test_negations_of_many_forms_are_read(text: str, said: str) -> None:
    assert reads_as(ENGLISH, hard("phrase", text, said)), ENGLISH.mentions(text)


def test_a_report_does_not_contradict_what_it_denies_a_kind_of_or_excepts() -> None:
    for text in ("Old healed rib fractures, no acute fracture.", "The lungs are clear apart from a small left consolidation."):
        assert reading(ENGLISH, text).contradicted == ()
    assert [one.state for one in ENGLISH.mentions("No acute fracture.")] == ["negative"]
    assert reading(ENGLISH, "No fracture. Old rib fractures.").contradicted == ("fracture",)


def test_a_site_has_abbreviations_and_choices_of_its_own(tmp_path: Path) -> None:
    own = tmp_path / "bury.toml"
    own.write_text(
        'language = "en"\n[ends]\nabbreviations = ["p. eff."]\n[findings.pleural_effusion]\nwords = ["{p eff|pl eff} [left] base"]\n',
        encoding="utf-8",
    )
    assert told("Small p. eff. left base.", Labeler(own=[own])) == {"pleural_effusion": "positive"}
    assert told("Small pl eff base.", Labeler(own=[own])) == {"pleural_effusion": "positive"}
    assert told("Small p. eff. left base.") == {}


@given(st.text() | st.lists(st.sampled_from([*" .,;:?!\n", *" ".join(SENTENCES).split()]), max_size=60).map(" ".join))
def test_any_text_is_read_and_each_mention_lies_in_it(text: str) -> None:
    mentions = ENGLISH.mentions(text)
    assert set(labels_of(mentions)) == set(FINDINGS)
    for one in mentions:
        assert text[one.start : one.end] == one.words and one.words and one.cue in text
        assert one.finding in FINDINGS or one.finding == OTHER


@given(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_what_a_report_says_does_not_depend_on_the_order_of_its_sentences(sentences: list[str], drawn: random.Random) -> None:
    shuffled = drawn.sample(sentences, len(sentences))
    assert ENGLISH.labels("\n\n".join(sentences)) == ENGLISH.labels("\n\n".join(shuffled))


def test_a_site_adds_words_of_its_own_and_takes_others_away(tmp_path: Path) -> None:
    own = tmp_path / "bury.toml"
    own.write_text(
        'language = "en"\nwithout = ["line"]\n[findings.pleural_effusion]\nwords = ["meniscus sign"]\n[cues]\nnegated_before = ["nae"]\n'
    )
    labeler = Labeler(own=[own])
    assert told("Meniscus sign left. Fluid line.", labeler) == {"pleural_effusion": "positive"}
    assert told("Nae effusion.", labeler) == {"pleural_effusion": "negative"}
    assert told("Meniscus sign left. Fluid line.") == {"support_devices": "positive"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('language = "en"\n[findings.effusions]\nwords = ["x"]\n', "effusions is no finding that reports are labelled with"),
        ('language = "en"\n[findings.no_finding]\nwords = ["x"]\n', "no_finding is no finding that reports are labelled with"),
        ('language = "en"\n[findings.edema]\nwords = ["..."]\n', "has no word"),
        ('language = "en"\n[findings.edema]\nword = ["x"]\n', "unknown key"),
        ('language = "de"\n', "its phrases are of language 'de', wanted are those of 'en'"),
    ],
)
def test_a_phrase_file_that_is_none_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"own\.toml") as refused:
        Labeler(own=[tmp_path / "own.toml"])
    assert said in str(refused.value)


def test_a_language_that_there_is_no_file_of_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="no phrases of language 'fr'; there are those of de, en"):
        Labeler(language="fr")


def test_elements_tell_what_is_absent_from_what_is_unspecified() -> None:
    mentions = ENGLISH.mentions("Small left effusion. Large right effusion. No pneumothorax. Possible pneumonia.")
    found = {one["finding"]: one for one in elements(mentions)}
    assert list(found) == list(FINDINGS)
    effusion = found["pleural_effusion"]
    assert (effusion["presence"], effusion["side"], effusion["severity"]) == ("present", "both", "severe")
    assert effusion["words"] == ["effusion", "effusion"]
    assert (found["pneumothorax"]["presence"], found["pneumothorax"]["words"]) == ("absent", ["No pneumothorax"])
    assert found["pneumonia"]["presence"] == "uncertain" and found["pneumonia"]["side"] == "unspecified"
    assert found["fracture"] == {
        "finding": "fracture",
        "presence": "unspecified",
        "side": "unspecified",
        "severity": "unspecified",
        "words": [],
    }


def test_a_sentence_without_an_end_is_read_in_pieces() -> None:
    """Each word is held against all before it: ten times the words may not take a hundred times as long."""
    text = "effusion " * 20_000
    assert len(ENGLISH.mentions(text)) == 20_000
    assert told("No " + "large " * 150 + "effusion.") == {"pleural_effusion": "negative"}


def test_a_long_sentence_says_what_it_does_where_each_mention_is_held_against_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = random.Random(0)
    words = " ".join(SENTENCES).replace(".", "").split()
    texts = [" ".join(drawn.choice([drawn.choice(SENTENCES)[:-1], *drawn.choices(words, k=3)]) for _ in range(20)) for _ in range(300)]
    monkeypatch.setattr(labeler, "_MANY", 3)
    near = [ENGLISH.mentions(text) for text in texts]
    monkeypatch.setattr(labeler, "_MANY", labeler.LONGEST)
    assert near == [ENGLISH.mentions(text) for text in texts]
