"""Measures of drafts: values worked out by hand, identity, and what a swapped negation or side does to them."""

from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.data.labeler import Labeler
from client.drafting.confidence import CLAIMED, is_wrong
from client.reporting.clinical import Errors, clinical, errors_of
from client.reporting.reading import Reading, reading
from client.reporting.wording import changed_words, cider_d, words
from rainhill.errors import DataError
from rainhill.recipe import EvaluationSection

LABELER = Labeler()
SECTION = EvaluationSection(bootstraps=200, min_positives=1)
REFERENCES = [
    "Small left pleural effusion. No pneumothorax. The heart is enlarged.",
    "The lungs are clear. No pleural effusion or pneumothorax. The heart is normal.",
    "Right basal consolidation, likely pneumonia. No effusion.",
    "Large right pneumothorax. No effusion. Heart size is normal.",
]
PATIENTS = np.arange(len(REFERENCES))


def read(*texts: str) -> list[Reading]:
    return [reading(LABELER, text) for text in texts]


def test_a_draft_that_is_its_reference_is_right_in_all() -> None:
    found = clinical(read(*REFERENCES), read(*REFERENCES), PATIENTS, section=SECTION, seed=(0,))
    right, none = (
        ("label_f1", "label_precision", "label_recall", "label_macro_f1"),
        ("wrong_sides", "contradictions", "comparisons", "silent", "errors"),
    )
    assert {name: one.value for name, one in found.means.items()} == dict.fromkeys(right, 1.0) | dict.fromkeys(none, 0.0)
    assert found.means["label_f1"].interval(0.95) == (1.0, 1.0) and found.errors.total == 0


def test_label_f1_by_hand() -> None:
    drafts = ["Small left pleural effusion.", "The lungs are clear.", "Consolidation. Small effusion.", "Large right pneumothorax."]
    found = clinical(read(*drafts), read(*REFERENCES), PATIENTS, section=SECTION, seed=(0,))
    # There: effusion, heart; -; consolidation, pneumonia; pneumothorax. Drafted: effusion; -; consolidation, effusion; pneumothorax.
    assert found.means["label_precision"].value == pytest.approx(3 / 4) and found.means["label_recall"].value == pytest.approx(3 / 5)
    assert found.means["label_f1"].value == pytest.approx(2 * 3 / (4 + 5))
    effusion = found.findings["pleural_effusion"]
    assert (effusion["precision"].value, effusion["recall"].value) == (0.5, 1.0)
    by_finding = {"pleural_effusion": 2 / 3, "cardiomegaly": 0.0, "consolidation": 1.0, "pneumonia": 0.0, "pneumothorax": 1.0}
    assert found.means["label_macro_f1"].value == pytest.approx(np.mean(list(by_finding.values())))
    assert {name: one["f1"].value for name, one in found.findings.items() if name != "no_finding"} == pytest.approx(by_finding)
    assert "fracture" in found.left_out and found.findings["no_finding"]["f1"].value == 1.0


def test_a_draft_that_says_nothing_is_no_normal_report() -> None:
    drafts = ["asdf qwer", "Normal chest.", "No acute abnormality.", ""]
    normal = ["No effusion. No pneumothorax."] * len(drafts)
    said, wanted = read(*drafts), read(*normal)
    # What is said of a subject says something, though neither word does so alone.
    assert not read("The heart is enlarged.")[0].silent
    assert [one.silent for one in said] == [True, False, False, True] and not any(one.silent for one in wanted)
    found = clinical(said, wanted, np.arange(len(drafts)), section=SECTION, seed=(0,))
    assert found.means["silent"].value == 0.5 and found.means["errors"].value == 0.0
    assert [one.labels["no_finding"] for one in said] == ["unmentioned", "positive", "positive", "unmentioned"]
    assert [is_wrong(one, other) for one, other in zip(said, wanted, strict=True)] == [True, False, False, True]
    # It makes no false claim; and where the report says nothing either, nothing was left out.
    assert not is_wrong(said[0], wanted[0], kinds=CLAIMED) and not is_wrong(said[0], read("Thank you.")[0])


def test_intervals_are_over_patients_with_all_of_their_reports() -> None:
    drafts = read(*["No effusion." if number % 2 else "Effusion." for number in range(40)])
    references = read(*["Effusion."] * 40)
    apart = clinical(drafts, references, np.arange(40), section=SECTION, seed=(0,)).means["label_recall"]
    # Of twenty patients with one right and one wrong each, any draw gives a half.
    together = clinical(drafts, references, np.arange(40) // 2, section=SECTION, seed=(0,)).means["label_recall"]
    assert apart.value == together.value == 0.5 and together.interval(0.95) == (0.5, 0.5)
    low, high = apart.interval(0.95)
    assert low < 0.4 and high > 0.6
    again = clinical(drafts, references, np.arange(40), section=SECTION, seed=(0,)).means["label_recall"]
    assert apart.minus(again).interval(0.95) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("draft", "reference", "wrong"),
    [
        ("Effusion.", "No effusion.", {"false_finding": 1}),
        ("No effusion.", "Effusion.", {"missed_finding": 1}),
        ("Right effusion.", "Left effusion.", {"wrong_location": 1}),
        ("Effusion.", "Left effusion.", {"wrong_location": 1}),
        ("Left effusion.", "Effusion.", {}),
        ("Bilateral effusions.", "Left and right effusions.", {}),
        ("Large left effusion.", "Small left effusion.", {"wrong_severity": 1}),
        ("Large right effusion.", "Small left effusion.", {"wrong_location": 1}),
        ("Unchanged effusion.", "Effusion.", {"hallucinated_comparison": 1}),
        ("Effusion.", "New effusion.", {"missed_comparison": 1}),
        ("Possible effusion.", "Effusion.", {}),
        ("Right effusion. Mass.", "Left effusion. Rib fracture.", {"wrong_location": 1, "false_finding": 1, "missed_finding": 1}),
    ],
)
def test_each_of_the_six_errors(draft: str, reference: str, wrong: dict[str, int]) -> None:
    none = dict.fromkeys(Errors.__dataclass_fields__, 0)
    assert errors_of(*read(draft, reference)) == Errors(**(none | wrong))


@pytest.mark.parametrize(
    ("text", "contradicted"),
    [
        ("No effusion. Small left effusion.", ("pleural_effusion",)),
        ("No effusion on the right. Small left effusion.", ()),
        ("No effusion on the right. Bilateral effusions.", ("pleural_effusion",)),
        ("Possible effusion. No effusion.", ()),
        ("The heart is normal. Cardiomegaly.", ("cardiomegaly",)),
    ],
)
def test_a_report_that_contradicts_itself_is_told(text: str, contradicted: tuple[str, ...]) -> None:
    assert read(text)[0].contradicted == contradicted


def test_a_swapped_negation_drops_label_f1_while_wording_hardly_moves() -> None:
    swapped = [text.replace("No ", "Small ") for text in REFERENCES]
    found = clinical(read(*swapped), read(*REFERENCES), PATIENTS, section=SECTION, seed=(0,))
    assert found.means["label_f1"].value < 0.8
    assert np.mean([changed_words(draft, one) / len(words(one)) for draft, one in zip(swapped, REFERENCES, strict=True)]) < 0.15
    assert cider_d(swapped, REFERENCES).mean() > 6


def test_cider_d_by_hand() -> None:
    # Two references of which "the" is in both, and everything else in one.
    drafts, references = ["the heart", "a lung"], ["the heart", "the lung"]
    first, second = cider_d(drafts, references)
    # One word of weight log 2 and one of 0; one bigram; no longer ones: two of the four sizes agree in full.
    assert first == pytest.approx(10 * 2 / 4)
    # "lung" agrees and "a" is in no reference, which weighs log 2 too; "a lung" agrees with nothing.
    assert second == pytest.approx(10 * (log(2) ** 2 / (sqrt(2) * log(2) * log(2))) / 4)
    (shorter, _) = cider_d(["heart", "a lung"], references)
    assert shorter == pytest.approx(10 * exp(-1 / 72) * 1 / 4)


def test_changed_words_by_hand() -> None:
    assert changed_words("The heart is normal.", "the heart is not normal") == 1
    assert changed_words("", "two words") == 2 and changed_words("one two three", "two three four") == 2


@given(st.lists(st.sampled_from(["no", "small", "left", "effusion", "heart", "normal"]), max_size=12), st.text(max_size=40))
def test_wording_is_symmetric_where_it_should_be_and_nothing_breaks_it(said: list[str], text: str) -> None:
    draft = " ".join(said)
    assert changed_words(draft, text) == changed_words(text, draft) <= max(len(words(draft)), len(words(text)))
    assert changed_words(draft, draft) == 0
    scores = cider_d([draft, text, "heart"], [text, draft, "lung"])
    assert np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 10 + 1e-9).all()


def test_drafts_without_a_reference_are_refused_with_both_numbers() -> None:
    with pytest.raises(DataError, match="2 drafts of 1 references"):
        cider_d(["a", "b"], ["a"])
    with pytest.raises(DataError, match="1 drafts of 1 references and 2 patients"):
        clinical(read("a"), read("a"), np.arange(2), section=SECTION, seed=(0,))
    with pytest.raises(DataError, match="0 drafts"):
        clinical([], [], np.arange(0), section=SECTION, seed=(0,))


def test_where_nobody_says_that_anything_is_there_nothing_was_measured() -> None:
    quiet = [reading(LABELER, text) for text in ("No pneumothorax.", "Clear.")]
    found = clinical(quiet, quiet, np.arange(2), section=SECTION, seed=(0,))
    assert all(np.isnan(found.means[name].value) for name in ("label_f1", "label_precision", "label_recall"))
    assert np.isnan(found.means["label_f1"].interval(0.95)).all()
    assert found.means["errors"].value == 0
