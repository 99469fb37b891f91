"""A verdict is whether an interval excludes 0, and its words never say more than that."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sites.verdict import Interval, consortium_text, interval, site_verdict, verdict, verdict_text

SWAPPED = {"better": "worse", "worse": "better", "no different": "no different"}
NAN = {"value": math.nan, "low": math.nan, "high": math.nan}
differences = st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(
    lambda ends: dict(zip(("low", "value", "high"), sorted(ends), strict=True))
)


def site(base=0.77, local=0.84, private=0.86, change=(0.06, 0.12), added=(0.005, 0.035), **more):
    at = lambda value: {"auroc": {"value": value, "low": value - 0.03, "high": value + 0.03}}  # noqa: E731
    between = lambda value, ends: {"value": round(value, 4), "low": ends[0], "high": ends[1]}  # noqa: E731
    return {
        "title": "Manchester",
        "base": at(base),
        "local": at(local),
        "private": at(private),
        "differences": {"private_minus_base": between(private - base, change), "private_minus_local": between(private - local, added)},
        **more,
    }


@given(differences)
def test_to_swap_the_models_is_to_swap_the_verdict(difference):
    swapped = {"value": -difference["value"], "low": -difference["high"], "high": -difference["low"]}
    assert verdict(swapped) == SWAPPED[verdict(difference)]


@given(differences, st.floats(0, 1), st.floats(0, 1))
def test_a_wider_interval_never_decides_what_a_narrower_one_left_open(difference, down, up):
    wider = difference | {"low": difference["low"] - down, "high": difference["high"] + up}
    assert verdict(wider) in (verdict(difference), "no different")


@given(differences)
def test_no_difference_exactly_where_the_interval_holds_zero(difference):
    assert (verdict(difference) == "no different") == (difference["low"] <= 0 <= difference["high"])


@given(differences, st.floats(0, 1))
def test_a_larger_difference_is_never_judged_worse(difference, shift):
    order = ["worse", "no different", "better"]
    shifted = {key: value + shift for key, value in difference.items()}
    assert order.index(verdict(shifted)) >= order.index(verdict(difference))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.01, 0.2, "better"), (-0.2, -0.01, "worse"), (-0.1, 0.1, "no different"), (0.0, 0.2, "no different"), (-0.2, 0.0, "no different")],
)
def test_by_hand(low, high, expected):
    assert verdict({"value": (low + high) / 2, "low": low, "high": high}) == expected


@pytest.mark.parametrize("nothing", [NAN, {"value": None, "low": None, "high": None}, {}])
def test_what_was_not_measured_is_no_difference_and_no_verdict_for_a_site(nothing):
    assert verdict(nothing) == "no different"
    assert site_verdict({"differences": {"private_minus_base": nothing}}) is None
    assert not interval(nothing).measured


def test_an_absent_interval_is_not_measured():
    assert not interval(None).measured
    assert interval({"value": 1, "low": None, "high": 2}) != Interval(value=1, low=0, high=2)
    assert not interval({"value": 1, "low": None, "high": 2}).bounded


def test_better_and_federation_helped():
    assert verdict_text("Manchester", site()) == (
        "Manchester: better. The adapted model reads this site's films at AUROC 0.86 [0.83, 0.89], up 0.090 [0.060, 0.120] from the model "
        "as it arrived. Training alone would have given 0.84: federation added 0.020 [0.005, 0.035]."
    )


def test_better_but_not_through_federation():
    told = verdict_text("Manchester", site(private=0.844, change=(0.05, 0.1), added=(-0.010, 0.018)))
    assert "Manchester: better." in told
    assert told.endswith(
        "Federation added nothing measurable beyond training alone here (training alone 0.84, difference 0.004 [−0.010, 0.018])."
    )


def test_training_alone_would_have_been_better():
    told = verdict_text("Manchester", site(private=0.80, change=(0.01, 0.05), added=(-0.06, -0.02)))
    assert told.endswith("Training alone would have been better here: 0.84, higher by 0.040 [0.020, 0.060].")


def test_no_different_does_not_claim_a_rise():
    told = verdict_text("Wigan", site(base=0.85, change=(-0.01, 0.03)))
    assert "Wigan: no different." in told
    assert "no change from the model as it arrived could be measured (difference 0.010 [−0.010, 0.030])" in told
    assert " up " not in told


def test_worse_is_said_with_what_follows_from_it():
    told = verdict_text("Wigan", site(base=0.90, change=(-0.07, -0.01)))
    assert "Wigan: worse." in told
    assert "down 0.040 [0.010, 0.070] from the model as it arrived: it should not go into use here." in told


def test_a_site_without_a_countable_finding_says_so():
    blank = site(left_out=["nodule", "device"], differences={"private_minus_base": NAN})
    blank |= {name: {"auroc": NAN} for name in ("base", "local", "private")}
    assert verdict_text("Ormskirk", blank) == (
        "Ormskirk: no verdict. Its held-out patients have too few positives for any finding to be measured (nodule, device)."
    )


def test_a_missing_arm_or_interval_is_named():
    alone = site()
    del alone["local"]
    assert verdict_text("A", alone).endswith("Training alone was not measured, so what federation added is not known.")
    assert "no result for the adapted model" in verdict_text("A", site(private=math.nan))
    assert "no result for the model as it arrived" in verdict_text("A", site(base=math.nan))
    assert "has no interval" in verdict_text("A", site(differences={}))


@given(st.dictionaries(st.sampled_from(["base", "local", "private"]), st.just({"auroc": NAN})), st.one_of(st.just(NAN), differences))
def test_nothing_missing_ever_shows_as_nan(arms, difference):
    told = verdict_text("A", {**site(), **arms, "differences": {"private_minus_base": difference, "private_minus_local": difference}})
    assert "nan" not in told.lower()


def test_the_consortium_in_one_breath():
    means = {"base": 0.81, "local": 0.84, "private": 0.86, "pooled": 0.87}
    run = {"sites": {"a": site(), "b": site(base=0.85, change=(-0.01, 0.03))}, "consortium": means}
    assert consortium_text(run) == (
        "Mean AUROC over the 2 sites rose from 0.810 as the model arrived to 0.860 adapted; training alone gave 0.840, "
        "the pooled upper bound is 0.870. The adapted model is better at 1, no different at 1, worse at none."
    )
    fell = consortium_text(run | {"consortium": {"base": 0.86, "private": 0.85, "pooled": math.nan}})
    assert fell.startswith("Mean AUROC over the 2 sites fell from 0.860 as the model arrived to 0.850 adapted. ")
    assert "stayed at 0.860" in consortium_text(run | {"consortium": {"base": 0.86, "private": 0.8602}})


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (site(), "AUROC at the one site rose from 0.770 as the model arrived to 0.860 adapted. The adapted model is better there."),
        (site(change=(-0.1, 0.1)), "The difference could not be told from chance."),
        (site(differences={}), "No verdict could be reached there."),
    ],
)
def test_a_consortium_of_one(one, expected):
    told = consortium_text({"sites": {"a": one}, "consortium": {"base": 0.77, "private": 0.86}})
    assert expected in told


def test_a_consortium_that_measured_nothing_claims_nothing():
    assert consortium_text({"sites": {"a": {"title": "A"}, "b": {"title": "B"}}, "consortium": {"base": None}}) == (
        "The adapted model is better at none, no different at none, worse at none; at 2 no verdict could be reached."
    )
