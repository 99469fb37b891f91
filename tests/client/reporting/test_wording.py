"""Measures of wording: published and hand-made values, identity, and replicates that are what the libraries would say of the drawn reports."""

import re
import socket

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from client.data.labeler import Labeler
from client.reporting.clinical import clinical
from client.reporting.reading import reading
from client.reporting.wording import WORDINGS, _corpus_bleu, measured, scores
from client.training.metrics import patient_draws
from rainhill.errors import DataError
from rainhill.recipe import EvaluationSection
from sites.cases import FINDINGS
from sites.population import PopulationConfig, draw_patients
from sites.report_text import Style, write

SECTION = EvaluationSection(bootstraps=100, min_positives=1)
REPORTS = ["Small left pleural effusion.", "The heart is enlarged.", "No pneumothorax is seen today.", "Clear lungs, normal heart size."]
some_words = st.lists(st.sampled_from(["no", "small", "left", "effusion", "heart", "normal.", "The"]), max_size=9).map(" ".join)


def one(draft: str, reference: str) -> dict[str, float]:
    return {name: float(values[0]) for name, values in scores([draft], [reference]).items()}


@pytest.mark.parametrize(
    ("draft", "reference", "value"),
    [
        # sacrebleu's own tests.
        (
            "Producția de zahăr primă va fi exprimată în ceea ce privește zahărul alb;",
            "producţia de zahăr brut se exprimă în zahăr alb;",
            8.493,
        ),
        ("this is a cat", "okay thanks", 0.0),
        # Of 4, 3, 2, 1 n-grams 3, 2, 1, 0 agree, and the last counts a half.
        ("this is a fest", "this is a test", 100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)),
        # Two words have no longer n-grams; one of three is missing.
        ("a little", "a little test", 100 * np.exp(1 - 3 / 2)),
    ],
)
def test_bleu_is_as_sacrebleu_publishes_it(draft: str, reference: str, value: float) -> None:
    assert one(draft, reference)["bleu"] == pytest.approx(value, abs=1e-3)


def test_corpus_bleu_is_as_sacrebleu_publishes_it() -> None:
    # The example of its README, by the counts that it prints: 82.4/50.0/45.5/37.5, hyp_len = 17, ref_len = 18.
    assert _corpus_bleu([17, 18, 14, 7, 5, 3, 17, 14, 11, 8]) == pytest.approx(48.530827)
    assert _corpus_bleu([11, 11, 9, 7, 5, 3, 10, 8, 6, 4]) == pytest.approx(83.75922397)


def test_chrf_is_as_sacrebleu_publishes_it() -> None:
    assert one("aa", "ab")["chrf"] == pytest.approx(25.0) and one("a b c", "abc")["chrf"] == pytest.approx(100.0)


def test_rouge_l_by_hand() -> None:
    # "heart is" is the longest that both have in this order: 2 of 4 words and 2 of 5.
    assert one("heart is mildly enlarging", "the heart is not enlarged")["rouge_l"] == pytest.approx(2 * 2 / (4 + 5))
    # Umlauts are letters, and a case is none.
    assert one("Pleuraerguß rechts", "pleuraerguß links")["rouge_l"] == pytest.approx(0.5)


def test_meteor_without_synonyms_by_hand() -> None:
    # heart, is, and by its stem enlarg: 3 of 4 words each way, in two chunks.
    assert one("heart is mildly enlarging", "the heart is enlarged")["meteor_nosyn"] == pytest.approx(3 / 4 * (1 - 0.5 * (2 / 3) ** 3))
    # 2 of 2 words and 2 of 4: recall weighs nine times as much as precision.
    assert one("left effusion", "small left effusion today")["meteor_nosyn"] == pytest.approx(
        (1 * 0.5) / (0.9 * 1 + 0.1 * 0.5) * (1 - 0.5 * (1 / 2) ** 3)
    )


def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a metric asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    assert one("heart", "lung")["meteor_nosyn"] == 0.0


def test_a_draft_that_is_its_reference_has_the_full_score() -> None:
    found = scores(REPORTS, REPORTS)
    assert tuple(found) == WORDINGS and all(values.shape == (4,) for values in found.values())
    full = {"bleu": 100, "chrf": 100, "rouge_l": 1, "cider_d": 10, "changed_words": 0}
    for name, value in full.items():
        assert found[name] == pytest.approx(np.full(4, value)), name
    # METEOR takes off half a chunk for the one chunk that everything is in.
    lengths = np.array([4, 4, 5, 5])
    assert found["meteor_nosyn"] == pytest.approx(1 - 0.5 / lengths**3)
    together = measured(REPORTS, REPORTS, np.arange(4), section=SECTION, seed=(0,))
    assert together["corpus_bleu"].interval(0.95) == pytest.approx((100.0, 100.0))


def test_drafts_of_nothing_are_worth_nothing() -> None:
    for draft, reference in (("", "No effusion."), ("", ""), ("...", "!")):
        found = one(draft, reference)
        assert {name: value for name, value in found.items() if name not in ("changed_words", "chrf")} == dict.fromkeys(
            WORDINGS[:1] + WORDINGS[2:5], 0.0
        )


@settings(max_examples=30)
@given(st.lists(st.tuples(some_words, some_words), min_size=1, max_size=6), st.integers(0, 99))
def test_a_replicate_is_what_the_library_says_of_the_reports_drawn(pairs: list[tuple[str, str]], number: int) -> None:
    drafts, references = ([pair[side] for pair in pairs] for side in (0, 1))
    patients = np.arange(len(pairs)) // 2
    found = measured(drafts, references, patients, section=SECTION, seed=(3,))
    assert found["corpus_bleu"].value == pytest.approx(sacrebleu.corpus_bleu(drafts, [references]).score)
    times = patient_draws(patients, SECTION.bootstraps, (3,))[number].astype(int)
    drawn = [place for place, count in enumerate(times) for _ in range(count)]
    again = [drafts[place] for place in drawn], [[references[place] for place in drawn]]
    # No draw is empty: it has as many patients as there are.
    assert found["corpus_bleu"].replicates[number] == pytest.approx(sacrebleu.corpus_bleu(*again).score)
    each = scores(drafts, references)
    for name in WORDINGS:
        assert found[name].value == pytest.approx(each[name].mean())
        assert found[name].replicates[number] == pytest.approx(each[name][drawn].mean())


def test_wording_and_labels_are_measured_on_the_same_draws() -> None:
    """A report's words to change are 1 where its one label is wrong, and so are the two figures in every replicate."""
    drafts, references = ["Effusion." if number % 3 else "Pneumothorax." for number in range(30)], ["Effusion."] * 30
    read = [[reading(Labeler(), text) for text in texts] for texts in (drafts, references)]
    said = clinical(read[0], read[1], np.arange(30) // 2, section=SECTION, seed=(5,)).means["label_recall"]
    worded = measured(drafts, references, np.arange(30) // 2, section=SECTION, seed=(5,))["changed_words"]
    assert said.replicates == pytest.approx(1 - worded.replicates) and len(set(worded.replicates)) > 5


@pytest.mark.parametrize("style", ["prose", "telegraphic", "structured", "bedside", "paediatric"])
def test_one_swapped_negation_drops_label_f1_while_wording_hardly_moves(style: Style) -> None:
    patients = draw_patients(PopulationConfig(prevalence=dict.fromkeys(FINDINGS, 0.25)), 60, 7)
    references = [write(patient.cases[0], style) for patient in patients]
    swapped = [re.sub(r"\b[Nn]o\b", "small", text, count=1) for text in references]
    labeler, number = Labeler(), np.arange(60)
    read = [[reading(labeler, text) for text in texts] for texts in (swapped, references)]
    said = clinical(read[0], read[1], number, section=SECTION, seed=(0,)).means
    worded = measured(swapped, references, number, section=SECTION, seed=(0,))
    lost_meaning, lost_bleu = 1 - said["label_f1"].value, 1 - worded["corpus_bleu"].value / 100
    assert lost_bleu < 0.1 < lost_meaning and lost_meaning > 1.5 * lost_bleu
    assert worded["rouge_l"].value > 0.94 and worded["meteor_nosyn"].value > 0.94
    assert said["errors"].value > 0.5 and worded["changed_words"].value <= 1


def test_one_of_each_is_wanted() -> None:
    with pytest.raises(DataError, match="2 drafts of 1 references"):
        scores(["a", "b"], ["a"])
    with pytest.raises(DataError, match="1 drafts of 1 references and 2 patients"):
        measured(["a"], ["a"], np.arange(2), section=SECTION, seed=(0,))
    with pytest.raises(DataError, match="0 drafts"):
        measured([], [], np.arange(0), section=SECTION, seed=(0,))
