"""Training text loses its comparisons and nothing else: phantoms in every style, hard sentences, real reports, and laws over any text."""

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.data.labeler import Labeler
from client.drafting.scrub import scrub, ungraded
from client.reporting.reading import Reading, reading
from perf.labeler import hard_in, reports_in
from perf.scrub import scrubbed
from rainhill.errors import ConfigError
from rainhill.toml import read_toml
from sites import hospital, report_text
from sites.cases import Case
from sites.hospital import HospitalConfig

HARD = Path(__file__).parents[1] / "data"
REPORTS = Path(__file__).parents[4] / "shared/data/cxr/reports_iu/NLMCXR_reports.tgz"
LABELERS = {"en": Labeler(), "de": Labeler(language="de")}
ENGLISH = LABELERS["en"]
SENTENCES = {
    "en": [one.text for one in hard_in(HARD / "hard_sentences.txt")],
    "de": [one.text for one in hard_in(HARD / "german_sentences.txt")],
}


def cases() -> list[Case]:
    config = read_toml(Path(hospital.__file__).with_name("liverpool.toml"), HospitalConfig).phantom
    train, test = hospital.draw(config.model_copy(update={"patients": 60, "test_patients": 0}), seed=0)
    return [case for patient in (*train, *test) for case in patient.cases]


CASES = cases()
STYLES = st.sampled_from(get_args(report_text.Style))


def said(text: str, labeler: Labeler) -> tuple[object, ...]:
    of: Reading = reading(labeler, text)
    return of.labels, of.sides, of.severities


def check(text: str, language: str = "en") -> str:
    labeler = LABELERS[language]
    left = scrub(text, labeler, language=language)
    assert labeler.comparisons(left) == []
    assert said(left, labeler) == said(ungraded(text, labeler, language=language), labeler)
    assert labeler.labels(left) == labeler.labels(text)
    assert scrub(left, labeler, language=language) == left
    return left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Unchanged left effusion.", "Left effusion."),
        ("The effusion has resolved.", "No effusion."),
        ("There is a new right pneumothorax, small.", "There is a right pneumothorax, small."),
        ("Compared with the film of 3 May, there is a small left effusion.", "There is a small left effusion."),
        ("Compared with the film of 3 May 2021, the left effusion has increased.", "Left effusion."),
        ("No new consolidation.", "No consolidation."),
        ("No interval change in the left basal opacity.", "Left basal opacity."),
        ("Heart size is stable and normal.", "Heart size is normal."),
        ("The heart remains enlarged.", "The heart is enlarged."),
        ("There is an unchanged small nodule.", "There is a small nodule."),
        ("There is a new opacity.", "There is an opacity."),
        ("Effusion is smaller than before.", "Effusion."),
        ("The effusion has slightly increased.", "Effusion."),
        ("Interval removal of the chest tube, no pneumothorax.", "No chest tube, no pneumothorax."),
        ("Pneumonia has resolved with residual atelectasis.", "No pneumonia. Atelectasis."),
        ("The hilar contours are unchanged.", ""),
        ("Comparison: chest radiograph of 3/5/2021.\nHEART: normal.", "HEART: normal."),
        ("Small nodule.  Unchanged.\n\nNo effusion.", "Small nodule.\n\nNo effusion."),
        ("Near-complete resolution of left effusion.", "Left effusion."),
        ("The effusion has partially resolved.", "The effusion."),
        ("The effusion is larger today.", "Effusion."),
        ("ET tube has been withdrawn 2 cm.", "ET tube."),
        ("Slight decrease in right effusion.", "Right effusion."),
        ("There is a slight increase in the right effusion.", "Right effusion."),
        ("Effusion, now moderate, was small.", "Effusion, moderate."),
        ("No effusion as before\nNew cardiomegaly", "No effusion\nCardiomegaly"),
    ],
)
def test_a_sentence_loses_what_it_compares_with(text: str, left: str) -> None:
    assert check(text) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Unveränderte Kardiomegalie.", "Kardiomegalie."),
        ("Der Pleuraerguss links ist unverändert.", "Pleuraerguss links."),
        ("Im Vergleich zur Voraufnahme vom 3. Mai neu aufgetretener Pneumothorax rechts.", "Pneumothorax rechts."),
        ("Vollständige Rückbildung des Pleuraergusses rechts.", "Kein Pleuraerguss rechts."),
        ("Keine neuen Infiltrate.", "Keine Infiltrate."),
        ("Der Erguss ist nicht rückläufig.", "Erguss."),
        ("Erguss idem.", "Erguss."),
        ("Im Vgl. zur VA vom 03.05.2024 unveränderter Erguss links.", "Erguss links."),
        ("Erguss links i. Vgl. zur VA größer.", "Erguss links."),
        ("Leichte Zunahme des Ergusses rechts.", "Erguss rechts."),
        ("Nahezu vollständige Rückbildung des Pleuraergusses rechts.", "Pleuraerguss rechts."),
        ("Der Erguss hat sich weitgehend zurückgebildet.", "Der Erguss."),
        ("V.a. Pneumonie re. Kein Erguss, Herz idem.", "V.a. Pneumonie re. Kein Erguss."),
    ],
)
def test_a_german_sentence_does_too(text: str, left: str) -> None:
    assert check(text, "de") == left


@given(st.sampled_from(CASES), st.sampled_from(CASES), STYLES, st.booleans())
def test_a_phantoms_report_says_of_its_findings_what_it_said(case: Case, other: Case, style: report_text.Style, lost: bool) -> None:
    text = report_text.write(case, style, lost=True) if lost else report_text.write(case, style, before=other)
    left = check(text)
    assert said(left, ENGLISH) == said(text, ENGLISH)


@given(st.sampled_from(CASES), STYLES)
def test_a_report_that_compares_with_nothing_comes_back_to_the_letter(case: Case, style: report_text.Style) -> None:
    text = report_text.write(case, style)
    assert ENGLISH.comparisons(text) == [] and scrub(text, ENGLISH) == text


@settings(max_examples=60)
@given(st.sampled_from(["en", "de"]).flatmap(lambda name: st.tuples(st.just(name), st.lists(st.sampled_from(SENTENCES[name]), max_size=5))))
def test_hard_sentences_keep_labels_sides_and_severities(of: tuple[str, list[str]]) -> None:
    language, sentences = of
    check("\n\n".join(sentences), language)


@pytest.mark.parametrize("language", ["en", "de"])
def test_each_hard_sentence_does_alone(language: str) -> None:
    for sentence in SENTENCES[language]:
        check(sentence, language)


WORDS = [*" .,;:?!\n-()", *" ".join(SENTENCES["en"]).split(), "3", "May", "1.5", "LUNGS:", "since", "prior", "study", "interval", "new"]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join) | st.text())
def test_no_text_compares_afterwards_and_what_does_not_compare_is_untouched(text: str) -> None:
    left = scrub(text, ENGLISH)
    assert ENGLISH.comparisons(left) == [] and scrub(left, ENGLISH) == left
    assert left == text or ENGLISH.comparisons(text)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join))
def test_nothing_that_was_denied_is_found_afterwards(text: str) -> None:
    before, after = ENGLISH.labels(text), ENGLISH.labels(scrub(text, ENGLISH))
    assert not [finding for finding, label in before.items() if label == "negative" and after[finding] in ("positive", "uncertain")]


def test_a_long_text_of_nothing_but_comparisons_takes_no_time() -> None:
    for text in (
        "the " * 2000 + "prior",
        "chest ct " * 1000 + "prior",
        "the prior " * 1000,
        " " * 5000 + "is unchanged",
        "in " * 3000 + "new",
    ):
        assert ENGLISH.comparisons(scrub(text, ENGLISH)) == []


def test_a_language_without_sentences_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="no sentences of language 'fr'; there are those of de, en"):
        scrub("Unchanged.", ENGLISH, language="fr")


@pytest.mark.skipif(not REPORTS.exists(), reason=f"the Indiana University reports are not at {REPORTS}")
def test_real_reports_lose_their_comparisons_and_keep_their_labels() -> None:
    # Every tenth: perf.scrub does all of them.
    of = scrubbed([one.text for one in reports_in(REPORTS)][::10], ENGLISH)
    assert of.comparing >= 0.25 * of.reports
    assert (of.compare_still, of.labels_changed, of.emptied) == (0, 0, 0)
    assert of.places_changed <= 1 and of.words_kept >= 0.88
