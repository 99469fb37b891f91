"""A draft is kept or abstained by how likely its words were, at a threshold whose promise holds over draws of validation patients."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from client.data.labeler import Labeler
from client.drafting.confidence import GRAVE, Threshold, confidence_of, is_wrong, of_claims, risk_coverage, upper_bound
from client.models import Written
from client.reporting.reading import reading
from rainhill.errors import DataError

LABELER = Labeler()
drafts = st.lists(st.tuples(st.floats(-9, 0), st.booleans()), min_size=1, max_size=40)


def test_confidence_is_the_mean_over_the_tokens() -> None:
    found = confidence_of(Written(text="Clear.", logprobs=(-0.1, -2.0, -0.3), ended=True))
    assert found.least == -2.0
    assert found.value == found.mean == pytest.approx(-0.8)


def test_a_draft_that_was_cut_is_trusted_at_no_threshold() -> None:
    cut = confidence_of(Written(text="Clear", logprobs=(-0.01,), ended=False))
    every = Threshold.calibrated([-1.0, -2.0], [False, False], coverage=1.0)
    assert every.abstains(cut.value)
    assert not every.abstains(-1e9)


@pytest.mark.parametrize("logprobs", [(), (-0.1, float("nan"))])
def test_a_draft_without_log_probabilities_is_refused(logprobs: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="confidence is of none"):
        confidence_of(Written(text="", logprobs=logprobs, ended=True))


@pytest.mark.parametrize(
    ("draft", "wrong"),
    [
        ("Small left effusion.", False),
        ("Small right effusion.", True),
        ("Large left effusion.", True),
        ("No effusion.", True),
        ("Small left effusion. New.", True),
        ("Small left effusion. Cardiomegaly.", True),
    ],
)
def test_a_draft_is_wrong_by_any_of_the_six_errors(draft: str, wrong: bool) -> None:
    assert is_wrong(reading(LABELER, draft), reading(LABELER, "Small left effusion.")) is wrong


def test_of_the_errors_those_that_are_named_count() -> None:
    small, large = (reading(LABELER, f"{size} left effusion.") for size in ("Small", "Large"))
    assert not is_wrong(large, small, kinds=GRAVE)
    assert is_wrong(reading(LABELER, "Small right effusion."), small, kinds=GRAVE)


def test_a_draft_is_as_sure_as_its_least_likely_claim() -> None:
    assert of_claims([{}, {"side": 2.0, "absent": 5.0}, {"present": 3.0}]) == 2.0
    assert of_claims([{}]) == 0.0


@pytest.mark.parametrize(("wrong", "of"), [(0, 10), (1, 10), (7, 60), (59, 60)])
def test_at_the_bound_so_few_errors_are_as_rare_as_the_doubt(wrong: int, of: int) -> None:
    assert binom.cdf(wrong, of, upper_bound(wrong, of, 0.95)) == pytest.approx(0.05)


def test_the_bound_of_nothing_is_one() -> None:
    assert upper_bound(0, 0) == upper_bound(3, 3) == 1.0


def _drawn(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The less sure, the likelier wrong; what is wrong of a threshold t kept is (1 - t) / 2."""
    sure = rng.random(count)
    return sure, rng.random(count) < 1 - sure


def test_the_promised_error_rate_holds_in_as_many_draws_as_is_claimed() -> None:
    rng, at = np.random.default_rng(0), []
    for _ in range(200):
        with contextlib.suppress(DataError):
            at.append(Threshold.calibrated(*_drawn(rng, 300), most_wrong=0.25, certainty=0.9).at)
    assert np.mean((1 - np.maximum(at, 0)) / 2 > 0.25) <= 0.1
    # And it is not kept by refusing, or by keeping next to nothing.
    assert len(at) > 170
    assert np.mean(at) < 0.8


@pytest.mark.parametrize("coverage", [0.3, 0.8, 1.0])
def test_the_bound_at_a_coverage_holds_in_as_many_draws_as_is_claimed(coverage: float) -> None:
    rng = np.random.default_rng(1)
    found = [Threshold.calibrated(*_drawn(rng, 100), coverage=coverage) for _ in range(600)]
    broken = np.mean([(1 - max(one.at, 0)) / 2 > one.most_wrong for one in found])
    assert broken < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)


@given(drafts, st.floats(0.05, 1))
def test_no_more_is_kept_than_was_asked_for(drawn: list[tuple[float, bool]], coverage: float) -> None:
    values, wrong = zip(*drawn, strict=True)
    found = Threshold.calibrated(values, wrong, coverage=coverage)
    kept = [not found.abstains(value) for value in values]
    assert found.kept == sum(kept) <= coverage * len(values) + 1e-6
    assert found.wrong == sum(error for error, one in zip(wrong, kept, strict=True) if one)


def test_a_promise_that_cannot_be_kept_is_refused_with_the_best_there_is() -> None:
    said = "no threshold keeps the error rate at 1.0% or less: of the 20 surest of 20 drafts 0 were wrong, which bounds it by 13.9%"
    with pytest.raises(DataError, match=said):
        Threshold.calibrated(np.linspace(-5, 0, 20), [False] * 20, most_wrong=0.01)


def test_a_decision_carries_its_numbers() -> None:
    found = Threshold.calibrated([-1.0, -2.0, -3.0, -4.0], [False, True, False, True], coverage=0.5).decide(-3.5)
    assert found.abstains
    assert str(found) == ("abstained: confidence -3.5 is not above -3; above it 1 of 2 drafts were wrong, at most 97.5% with 95% certainty")


def test_nothing_that_is_no_number_is_drafted() -> None:
    assert Threshold.calibrated([-1.0], [False], coverage=1.0).abstains(float("nan"))


@given(drafts)
def test_at_full_coverage_the_error_is_that_of_all(drawn: list[tuple[float, bool]]) -> None:
    values, wrong = zip(*drawn, strict=True)
    curve = risk_coverage(values, wrong)
    assert curve.error[-1] == pytest.approx(np.mean(wrong))
    assert curve.error_at(1.0) == curve.error[-1]


@given(drafts, st.randoms())
@settings(max_examples=50)
def test_the_order_of_drafts_does_not_matter(drawn: list[tuple[float, bool]], random: object) -> None:
    shuffled = list(drawn)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (risk_coverage(*zip(*some, strict=True)) for some in (drawn, shuffled))
    np.testing.assert_allclose(one.error, other.error, atol=1e-12)


def test_the_area_by_hand() -> None:
    curve = risk_coverage([-1.0, -2.0, -3.0], [False, True, False])
    np.testing.assert_allclose(curve.error, [0, 1 / 2, 1 / 3])
    assert curve.area == pytest.approx((1 / 2 + 1 / 3) / 3)
    assert curve.error_at(0.7) == 0.5


@pytest.mark.parametrize(
    ("confidences", "wrong", "asked"),
    [
        ([], [], {"coverage": 0.5}),
        ([-1.0], [True, False], {"coverage": 0.5}),
        ([float("nan")], [True], {"coverage": 0.5}),
        ([-1.0], [True], {}),
        ([-1.0], [True], {"coverage": 0.5, "most_wrong": 0.1}),
        ([-1.0], [True], {"coverage": 0.0}),
        ([-1.0], [True], {"most_wrong": 1.5}),
        ([-1.0], [True], {"coverage": 0.5, "certainty": 1.0}),
    ],
)
def test_what_does_not_fit_is_refused(confidences: list[float], wrong: list[bool], asked: dict[str, float]) -> None:
    with pytest.raises(DataError):
        Threshold.calibrated(confidences, wrong, **asked)


def test_a_coverage_of_no_draft_has_no_error() -> None:
    with pytest.raises(DataError, match="is 0 of them"):
        risk_coverage([-1.0, -2.0], [True, False]).error_at(0.4)
