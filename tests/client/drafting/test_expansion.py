"""Reports are written from labels in a site's style, and the labeler finds exactly those labels in them."""

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.data.labeler import Label, Labeler
from client.drafting._language import language_of
from client.drafting.expansion import Expander
from client.reporting.reading import CLASSES, reading
from rainhill.errors import DataError
from rainhill.toml import read_toml
from sites import hospital, report_text
from sites.hospital import HospitalConfig

LABELER, GERMAN = Labeler(), Labeler(language="de")
LABELS = st.fixed_dictionaries({finding: st.sampled_from(get_args(Label)) for finding in CLASSES})


def of_style(style: report_text.Style) -> Expander:
    config = read_toml(Path(hospital.__file__).with_name("liverpool.toml"), HospitalConfig).phantom
    train, test = hospital.draw(config.model_copy(update={"patients": 60, "test_patients": 0}), seed=0)
    numbered = [(number, case) for number, patient in enumerate((*train, *test)) for case in patient.cases]
    reports = [report_text.write(case, style) for _, case in numbered]
    return Expander.of(reports, LABELER, patients=[number for number, _ in numbered])


SITES = {style: of_style(style) for style in get_args(report_text.Style)}


@given(st.sampled_from(list(SITES)), LABELS, st.integers(0, 5))
def test_what_is_written_is_read_as_the_labels_it_was_written_from(style: report_text.Style, labels: dict[str, Label], seed: int) -> None:
    text = SITES[style].write(labels, seed=seed)
    read = LABELER.labels(text)
    assert {finding: read[finding] for finding in CLASSES} == labels
    there = [finding for finding in CLASSES if labels[finding] in ("positive", "uncertain") and finding != "support_devices"]
    assert read["no_finding"] == ("negative" if there else "positive")
    # Labels say nothing of sides, sizes and earlier films.
    said = reading(LABELER, text)
    assert not any(said.sides.values()) and not any(said.severities.values()) and not said.comparisons


@settings(max_examples=30)
@given(LABELS, st.integers(0, 5))
def test_a_site_without_reports_has_the_sentences_of_its_language(labels: dict[str, Label], seed: int) -> None:
    text = Expander.of([], GERMAN, patients=[], language="de").write(labels, seed=seed)
    read = GERMAN.labels(text)
    assert {finding: read[finding] for finding in CLASSES} == labels


@pytest.mark.parametrize("language", ["en", "de"])
def test_each_sentence_of_a_language_says_its_finding_in_its_state_and_nothing_else(language: str) -> None:
    of, labeler = language_of(language), Labeler(language=language)
    assert set(of.sentences) == set(CLASSES)
    for finding, states in of.sentences.items():
        assert set(states) == {"positive", "negative", "uncertain"}
        for state, sentences in states.items():
            for sentence in sentences:
                assert {(one.finding, one.state, one.side) for one in labeler.mentions(sentence)} == {(finding, state, "")}, sentence
                assert labeler.comparisons(sentence) == []
    assert labeler.mentions(f"{of.plain.opening} {of.plain.normal}") == []


def test_a_report_has_the_sites_words_its_opening_its_order_and_its_conclusion() -> None:
    labels: dict[str, Label] = {"pleural_effusion": "positive", "consolidation": "negative", "cardiomegaly": "positive"}
    texts = {SITES["telegraphic"].write(labels, seed=seed) for seed in range(30)}
    assert texts == {
        f"CXR. No focal consolidation. Effusion. {heart}\nIMP: effusion, cardiomegaly." for heart in ("Cardiomegaly.", "CTR increased.")
    }
    assert SITES["paediatric"].write({}, seed=0) == "Chest.\nOpinion: Normal for age."


def test_the_same_seed_writes_the_same() -> None:
    labels: dict[str, Label] = {"pleural_effusion": "positive", "atelectasis": "positive", "cardiomegaly": "positive"}
    written = [SITES["prose"].write(labels, seed=[3, seed]) for seed in range(20)]
    assert written == [SITES["prose"].write(labels, seed=[3, seed]) for seed in range(20)] and len(set(written)) > 3


def test_a_sentence_of_fewer_patients_than_asked_for_is_not_taken() -> None:
    reports = ["Chest film. Lungs free of consolidation."] * 6
    key = ("consolidation", "negative")
    assert "Lungs free of consolidation." in dict(Expander.of(reports, LABELER, patients=[1, 1, 2, 2, 3, 3]).sentences[key])
    assert "Lungs free of consolidation." not in dict(Expander.of(reports, LABELER, patients=[1, 1, 1, 2, 2, 2]).sentences[key])
    assert "Lungs free of consolidation." in dict(Expander.of(reports, LABELER, patients=[1, 1, 1, 2, 2, 2], min_patients=2).sentences[key])


@pytest.mark.parametrize(
    "secret",
    [
        "Mrs Entwistle has no pneumothorax.",
        "No pneumothorax, discussed with dr patel.",
        "No pneumothorax on 3 May.",
        "No pneumothorax, bed 12.",
        "ENTWISTLE: no pneumothorax.",
    ],
)
def test_a_sentence_with_a_name_a_date_or_a_number_is_not_taken_however_often_it_is_said(secret: str) -> None:
    expander = Expander.of([secret] * 20, LABELER, patients=list(range(20)))
    for seed in range(10):
        text = expander.write({"pneumothorax": "negative"}, seed=seed)
        assert text in ("No pneumothorax.", "There is no pneumothorax.")


def test_names_are_in_no_opening_and_no_conclusion_either() -> None:
    reports = ["Entwistle ward.\nNo effusion.\nEntwistle: nothing abnormal."] * 10
    learned = Expander.of(reports, LABELER, patients=list(range(10))).learned
    assert (learned.openings, learned.heading, learned.nouns, learned.closings) == ((), "", {}, ())


def test_a_word_that_the_site_vouches_for_is_no_name() -> None:
    reports = ["Sulci crisp: no effusion."] * 5
    for known, taken in (((), False), (("sulci", "crisp"), True)):
        expander = Expander.of(reports, LABELER, patients=list(range(5)), known=known)
        assert ("Sulci crisp: no effusion." in dict(expander.sentences["pleural_effusion", "negative"])) is taken


def test_sentences_that_compare_or_say_two_things_are_not_taken() -> None:
    reports = ["Unchanged effusion. No effusion or pneumothorax. Effusion with scoliosis."] * 5
    expander = Expander.of(reports, LABELER, patients=list(range(5)))
    assert all(count == 1 for ways in expander.sentences.values() for _, count in ways)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"effusion": "positive"}, "effusion is no finding that reports are labelled with"),
        ({"edema": "present"}, "edema = 'present', expected one of positive, negative, uncertain, unmentioned"),
        ({"edema": "positive", "no_finding": "positive"}, "no_finding is positive, but of the other labels there are edema"),
        ({"edema": "negative", "no_finding": "negative"}, "no_finding is negative, but of the other labels there are none"),
    ],
)
def test_labels_that_are_none_or_contradict_each_other_are_refused(labels: dict[str, Label], said: str) -> None:
    with pytest.raises(DataError, match=said):
        SITES["prose"].write(labels, seed=0)


def test_what_a_sites_own_phrases_make_unsayable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('language = "en"\nwithout = ["fracture"]\n')
    own = [tmp_path / "own.toml"]
    expander = Expander.of([], Labeler(own=own), patients=[], own=own)
    with pytest.raises(DataError, match="no sentences say fracture positive together"):
        expander.write({"fracture": "positive"}, seed=0)


def test_reports_of_unnumbered_patients_and_a_minimum_of_one_are_refused() -> None:
    with pytest.raises(DataError, match="2 reports of 1 patients"):
        Expander.of(["a", "b"], LABELER, patients=[1])
    with pytest.raises(DataError, match="min_patients = 1"):
        Expander.of(["a"], LABELER, patients=[1], min_patients=1)
