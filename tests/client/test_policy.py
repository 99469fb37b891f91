import pytest

from client.policy import refusals
from rainhill.config import PolicyConfig, PrivacyConfig, SiteConfig
from rainhill.recipe import PrivacySection, Recipe

BASE = "0" * 64
RECIPE = Recipe.model_validate(
    {
        "name": "chest",
        "task": {"name": "findings", "findings": ["effusion"]},
        "base": {"model": "vit", "weights": "embedded:thorax_tiny", "sha256": BASE},
        "strategy": {"rule": "fedavg"},
        "rounds": {"count": 5, "steps": 4},
        "private": {"steps": 4},
    }
)


def site(**policy: object) -> SiteConfig:
    return SiteConfig(name="bury", policy=PolicyConfig.model_validate(policy))


def test_a_site_whose_file_says_nothing_leaves_all_to_a_person() -> None:
    assert refusals(RECIPE, site(), patients=500) == []
    assert refusals(RECIPE, site(tasks=["findings"], bases=[BASE], rules=["fedavg"], rounds=5), patients=500) == []


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"tasks": ["report"]}, "task findings, the site allows report"),
        ({"tasks": []}, "task findings, the site allows none"),
        ({"bases": ["1" * 64]}, f"base model {BASE}, the site allows {'1' * 64}"),
        ({"rules": ["ffa", "alternating"]}, "rule fedavg, the site allows ffa, alternating"),
        ({"rounds": 4}, "5 rounds, the site allows 4"),
    ],
)
def test_what_is_outside_is_refused_with_both_values(policy: dict[str, object], said: str) -> None:
    assert refusals(RECIPE, site(**policy), patients=500) == [said]


def test_all_that_is_outside_is_said_at_once() -> None:
    assert len(refusals(RECIPE, site(tasks=[], rules=[], rounds=1), patients=3)) == 4


def test_of_a_small_hospital_no_number_is_told() -> None:
    (said,) = refusals(RECIPE, site(min_patients=40), patients=39)
    assert said == "fewer training patients than the 40 that the site wants at least" and "39" not in said
    assert refusals(RECIPE, site(min_patients=40), patients=40) == []
    assert refusals(RECIPE, site(min_patients=40), patients=None) == []


def test_a_site_with_a_budget_lets_nobody_ask_for_more_or_for_none() -> None:
    guarded = SiteConfig(name="bury", privacy=PrivacyConfig(epsilon=2))
    assert refusals(RECIPE, guarded, patients=500) == ["recipe chest asks for no privacy, the site trains only under epsilon 2 or less"]
    asks = RECIPE.model_copy(update={"privacy": PrivacySection(epsilon=3)})
    assert refusals(asks, guarded, patients=500) == ["recipe chest asks for epsilon 3 in one run, the site allows 2"]
    assert refusals(asks.model_copy(update={"privacy": PrivacySection(epsilon=2)}), guarded, patients=500) == []
