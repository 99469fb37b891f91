"""Sentences of a report against what is known of its film: planted swaps are found, by a classifier, by a draft, and by a model's words."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from client.data.labeler import Labeler
from client.drafting.quality import (
    Evidence,
    House,
    Likelihood,
    Limit,
    Ratios,
    Witness,
    check,
    contradictions,
    likelihood_of,
    log_likelihoods,
    ratios_of,
    swapped,
)
from client.models.vlm import Vlm, VlmNet
from client.reporting.reading import reading
from rainhill.errors import ConfigError, DataError
from sites.report_words import NEGATIVES, WORDS, Style
from tests.client.vlm_families import save

LABELER = Labeler()
REPORT = "There is a mild left pleural effusion. There is no pneumothorax. The heart is not enlarged.\nImpression: left pleural effusion."
SCORES = {"pleural_effusion": 0.97, "pneumothorax": 0.02, "cardiomegaly": 0.05}
PHANTOM = [
    sentence.format(grade="mild", side="left", Side="Left", zone="lower", device="pacemaker", Device="Pacemaker")
    for style in get_args(Style)
    for ways in WORDS[style].values()
    for sentence in ways
]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> VlmNet:
    found = Vlm().load(save("llava", tmp_path_factory.mktemp("llava")), outputs={}, last_blocks=None).eval()
    assert isinstance(found, VlmNet)
    return found


@pytest.fixture(scope="module")
def hidden(net: VlmNet) -> torch.Tensor:
    with torch.no_grad():
        return net.prefix(torch.rand((3, 1, 32, 32), generator=torch.Generator().manual_seed(0)) * 2 - 1)


def _marks(report: str, evidence: Evidence) -> list[str]:
    return [one.mark for one in check(report, evidence=evidence, labeler=LABELER).sentences]


def _believes(*true: str) -> Likelihood:
    """A model that holds these sentences for likely, and any other for unlikely, wherever they stand."""

    def likelihood(begun: str, ways: Sequence[str]) -> NDArray[np.float64]:
        return np.array([np.log(0.4) if way in true else np.log(0.001) for way in ways])

    return likelihood


# Swaps


@pytest.mark.parametrize(
    ("sentence", "kind", "findings", "text"),
    [
        ("There is a mild left pleural effusion.", "side", ("pleural_effusion",), "There is a mild right pleural effusion."),
        ("Right effusion, left consolidation.", "side", ("pleural_effusion",), "Left effusion, left consolidation."),
        ("There is no pneumothorax.", "present", ("pneumothorax",), "There is a pneumothorax."),
        (
            "There is airspace consolidation at the left base.",
            "absent",
            ("consolidation",),
            "There is no airspace consolidation at the left base.",
        ),
        ("A left pleural effusion is seen.", "absent", ("pleural_effusion",), "No left pleural effusion is seen."),
        ("The heart is mildly enlarged.", "absent", ("cardiomegaly",), "The heart is not enlarged."),
        ("The lungs are clear of consolidation.", "present", ("consolidation",), "There is consolidation."),
        ("PLEURA: no effusion.", "present", ("pleural_effusion",), "PLEURA: effusion."),
    ],
)
def test_a_swap_by_hand(sentence: str, kind: str, findings: tuple[str, ...], text: str) -> None:
    assert (kind, findings, text) in [(one.kind, one.findings, one.text) for one in swapped(sentence, LABELER)]


def test_german_is_swapped_too() -> None:
    german = Labeler(language="de")
    texts = [one.text for one in swapped("Kleiner linksseitiger Pleuraerguss.", german, language="de")]
    assert "Kleiner rechtsseitiger Pleuraerguss." in texts
    assert "Das Herz ist vergrößert." in [one.text for one in swapped("Das Herz ist nicht vergrößert.", german, language="de")]


def test_a_language_without_rules_is_refused() -> None:
    with pytest.raises(ConfigError, match="of language 'fr'"):
        swapped("Pas de pneumothorax.", LABELER, language="fr")


@given(st.sampled_from(PHANTOM + [text for style in get_args(Style) for text in NEGATIVES[style].values()]))
@settings(deadline=None)
def test_the_labeler_reads_exactly_the_swap(sentence: str) -> None:
    before = LABELER.labels(sentence)
    for one in swapped(sentence, LABELER):
        after = LABELER.labels(one.text)
        changed = {name for name in before if before[name] != after[name]} - {"no_finding"}
        if one.kind == "side":
            assert not changed
            assert reading(LABELER, one.text).sides != reading(LABELER, sentence).sides
        else:
            assert changed == set(one.findings)
            assert {after[name] for name in changed} == {"negative" if one.kind == "absent" else "positive"}


def test_of_a_sentence_without_findings_nothing_is_swapped() -> None:
    assert swapped("Chest radiograph, left lateral projection.", LABELER) == ()


# What a classifier and a draft say


def test_each_sentence_gets_its_mark_with_words_and_reason() -> None:
    found = check(f"Chest radiograph. {REPORT} Possible fracture. No nodule.", evidence=Evidence(scores=SCORES), labeler=LABELER)
    assert [one.mark for one in found.sentences] == [
        "unchecked", "supported", "supported", "supported", "supported", "unchecked", "unsupported",
    ]  # fmt: skip
    assert found.sentences[1].words == ("pleural effusion",)
    assert found.sentences[1].reasons == ("a classifier gives pleural effusion 0.97",)
    assert found.sentences[0].reasons == ("says nothing that can be checked",)
    assert not found.flagged


@pytest.mark.parametrize(
    ("true", "planted"),
    [
        ("There is a mild left pleural effusion.", "There is no pleural effusion."),
        ("There is no pneumothorax.", "There is a pneumothorax."),
    ],
)
def test_a_planted_negation_is_contradicted_by_a_classifier(true: str, planted: str) -> None:
    assert not check(REPORT, evidence=Evidence(scores=SCORES), labeler=LABELER).flagged
    found = check(REPORT.replace(true, planted), evidence=Evidence(scores=SCORES), labeler=LABELER)
    assert planted in [one.text for one in found.marked("contradicted")]


def test_a_planted_side_is_contradicted_by_a_classifier_that_can_tell() -> None:
    evidence = Evidence(scores=SCORES, sides={("pleural_effusion", "left"): 0.95, ("pleural_effusion", "right"): 0.04})
    assert _marks("Left pleural effusion.", evidence) == ["supported"]
    found = check("Right pleural effusion.", evidence=evidence, labeler=LABELER).sentences[0]
    assert found.mark == "contradicted"
    assert found.reasons == ("a classifier gives pleural effusion 0.04 on the right and 0.95 on the left",)


def test_a_score_that_says_little_says_nothing() -> None:
    assert _marks("Left pleural effusion.", Evidence(scores={"pleural_effusion": 0.5})) == ["unsupported"]


def test_the_models_own_draft_is_evidence() -> None:
    draft = Evidence(draft=reading(LABELER, REPORT))
    assert set(_marks(REPORT, draft)) == {"supported"}
    assert _marks("Right pleural effusion.", draft) == ["contradicted"]
    assert _marks("No pleural effusion.", draft) == ["contradicted"]
    assert _marks("Fracture of the left third rib.", draft) == ["unsupported"]


def test_a_report_that_contradicts_itself_is_contradicted_without_any_evidence() -> None:
    assert _marks("No pleural effusion. Left pleural effusion.", Evidence()) == ["contradicted", "contradicted"]


def test_a_conclusion_on_another_side_is_contradicted_without_any_evidence() -> None:
    assert _marks("Left pleural effusion.\nImpression: right pleural effusion.", Evidence()) == ["unsupported", "contradicted"]
    assert _marks("Left pleural effusion. Right pleural effusion.\nImpression: right pleural effusion.", Evidence()) == 3 * ["unsupported"]
    assert _marks("Left pleural effusion. Small right pleural effusion.", Evidence()) == 2 * ["unsupported"]


def test_contradictions_of_a_draft_and_a_classifier() -> None:
    found = contradictions(reading(LABELER, REPORT), {"pleural_effusion": 0.03, "pneumothorax": 0.99, "cardiomegaly": 0.5, "edema": 0.99})
    assert [str(one) for one in found] == [
        "pneumothorax is said to be absent, and a classifier gives it 0.99",
        "pleural effusion is said to be there, and a classifier gives it 0.03",
    ]


@pytest.mark.parametrize("evidence", [{"scores": {"edema": 1.2}}, {"sides": {("edema", "left"): float("nan")}}, {"low": 0.8, "high": 0.2}])
def test_evidence_that_is_none_is_refused(evidence: dict[str, object]) -> None:
    with pytest.raises(DataError):
        Evidence(**evidence)  # type: ignore[arg-type]


# What a model that sees the film holds for likely


LIMIT = Limit(at=-1.0, most_false=0.1, of=20, certainty=0.95)


@pytest.mark.parametrize(
    ("planted", "true"),
    [
        ("There is a mild right pleural effusion.", "There is a mild left pleural effusion."),
        ("There is no pneumothorax.", "There is a pneumothorax."),
        ("A left pleural effusion is seen.", "No left pleural effusion is seen."),
    ],
)
def test_a_planted_swap_is_contradicted_by_a_model_that_holds_the_other_for_likelier(planted: str, true: str) -> None:
    witness = Witness(likelihood=_believes(true), limit=LIMIT)
    assert _marks(planted, Evidence(witness=witness)) == ["contradicted"]
    assert _marks(true, Evidence(witness=witness)) == ["supported"]


def test_without_a_limit_a_model_flags_nothing() -> None:
    found = check(
        "There is no pneumothorax.", evidence=Evidence(witness=Witness(likelihood=_believes("There is a pneumothorax."))), labeler=LABELER
    )
    assert not found.flagged
    assert found.sentences[0].ratios["present"] < 0


def test_the_sites_own_ways_to_say_it_are_counted_together() -> None:
    house = House(
        sentences={("pneumothorax", "positive"): ("Left pneumothorax.", "Right pneumothorax."), ("pneumothorax", "negative"): ("No PTX.",)}
    )

    def likelihood(begun: str, ways: Sequence[str]) -> NDArray[np.float64]:
        known = {"Left pneumothorax.": 0.3, "Right pneumothorax.": 0.3, "No PTX.": 0.2, "There is no pneumothorax.": 0.1}
        return np.log([known.get(way, 1e-9) for way in ways])

    ratio = Witness(likelihood=likelihood, house=house).ratios("", "There is no pneumothorax.", LABELER)
    assert ratio["present"] == pytest.approx(np.log(0.3 / 0.6))


def test_of_what_a_site_never_denies_silence_is_the_contrary() -> None:
    house = House(sentences={("atelectasis", "positive"): ("Linear atelectasis.",)})
    ratio = Witness(likelihood=lambda _, ways: np.log(np.full(len(ways), 0.2)), house=house).ratios("", "Linear atelectasis.", LABELER)
    assert ratio["absent"] == pytest.approx(np.log(0.2 / 0.8))


def test_what_was_said_before_is_no_evidence_that_it_is_there() -> None:
    ratios = ratios_of(REPORT, Witness(likelihood=_believes()), LABELER)
    assert [set(one) for one in ratios] == [{"side", "absent"}, {"present"}, {"present"}, {"side"}]


def test_a_house_is_of_sentences_that_several_patients_share() -> None:
    reports = ["Left effusion. Mr Smith has no pneumothorax."] + 3 * [
        "Left effusion. No pneumothorax. Effusion and fracture. No new nodule."
    ]
    house = House.of(reports, LABELER, patients=[0, 1, 2, 3])
    assert house.sentences == {("pleural_effusion", "positive"): ("Left effusion.",), ("pneumothorax", "negative"): ("No pneumothorax.",)}
    assert House.of(reports, LABELER, patients=[0, 1, 1, 1]).sentences == {}


# The limit


def _ratios(rng: np.random.Generator) -> list[Ratios]:
    return [{"side": float(rng.normal()), "absent": float(rng.normal())}, {"present": float(rng.normal())}]


def test_no_more_true_reports_are_flagged_than_promised_in_as_many_draws_as_is_claimed() -> None:
    rng, flagged = np.random.default_rng(0), []
    for _ in range(300):
        limit = Limit.calibrated([_ratios(rng) for _ in range(80)], most_false=0.2, certainty=0.9)
        flagged.append(1 - norm.sf(limit.at) ** 3)
    assert np.mean(np.array(flagged) > 0.2) < 0.1 + 3 * np.sqrt(0.1 * 0.9 / 300)
    assert np.mean(flagged) > 0.1


def test_what_a_model_holds_for_likelier_than_its_contrary_is_never_contradicted() -> None:
    assert Limit.calibrated([[{"side": 5.0}]] * 20, most_false=0.5).at == 0.0
    assert Limit.calibrated([[{}]] * 20, most_false=0.5).at == 0.0


def test_too_few_reports_for_the_promise_are_refused() -> None:
    assert Limit.calibrated([[{"side": -1.0}]] * 29).of == 29
    with pytest.raises(DataError, match="28 reports: too few to flag at most 10% of true ones with 95% certainty"):
        Limit.calibrated([[{"side": -1.0}]] * 28)
    with pytest.raises(DataError, match="most_false = 1.0"):
        Limit.calibrated([[{"side": -1.0}]] * 28, most_false=1.0)


# Likelihoods


def test_a_texts_likelihood_is_that_of_its_tokens_as_they_were_written(net: VlmNet, hidden: torch.Tensor) -> None:
    prompt, text = "Indication: cough.\nReport:", "The heart is enlarged. No pneumothorax."
    tokens, begin = net.encode(prompt, text, limit=999)
    ids = torch.tensor([tokens])
    with torch.no_grad():
        logits = net.model(**net._given(hidden[:1], ids, torch.zeros_like(ids, dtype=torch.bool)), use_cache=False).logits[0]
    each = logits.log_softmax(-1)[range(begin - 1, len(tokens) - 2), tokens[begin:-1]]
    assert log_likelihoods(net, hidden[:1], prompt, [text])[0] == pytest.approx(float(each.sum()), abs=1e-4)


def test_films_and_texts_are_paired_or_one_stands_for_all(net: VlmNet, hidden: torch.Tensor) -> None:
    texts = ["No pneumothorax.", "The heart is enlarged.", "Lungs are clear. No pleural effusion."]
    paired = log_likelihoods(net, hidden, "Report:", texts)
    np.testing.assert_allclose([log_likelihoods(net, hidden[row : row + 1], "Report:", texts)[row] for row in range(3)], paired, atol=1e-3)
    np.testing.assert_allclose(log_likelihoods(net, hidden, "Report:", texts[:1])[0], paired[0], atol=1e-3)


def test_a_ways_likelihood_is_what_it_adds(net: VlmNet, hidden: torch.Tensor) -> None:
    likelihood, begun = likelihood_of(net, hidden[:1], "Report:"), "Lungs are clear."
    one, two = log_likelihoods(net, hidden[:1], "Report:", [begun, f"{begun} No pneumothorax."])
    assert likelihood(begun, ["No pneumothorax."])[0] == pytest.approx(two - one, abs=1e-3)
    assert likelihood(begun + " ", ["No pneumothorax."])[0] == pytest.approx(likelihood(begun, ["No pneumothorax."])[0], abs=1e-3)
