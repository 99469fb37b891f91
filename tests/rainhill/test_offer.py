from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from rainhill import signed
from rainhill.errors import CredentialError
from rainhill.offer import Offer, opened_offer, sealed_offer
from rainhill.recipe import Recipe

KEY = bytes(range(32))
PUBLIC = signed.public_key(KEY)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def small() -> Recipe:
    return Recipe.model_validate(
        {
            "name": "chest",
            "task": {"name": "findings", "findings": ["effusion"]},
            "base": {"model": "vit", "weights": "embedded:thorax_tiny", "sha256": "0" * 64},
            "strategy": {"rule": "fedavg"},
            "rounds": {"count": 2, "steps": 4},
            "private": {"steps": 4},
        }
    )


def offer(recipe: Recipe, **changes: object) -> Offer:
    about = {
        "consortium": "north_west",
        "run": "chest-1",
        "recipe": recipe,
        "adapter": "1" * 64,
        "tensors": {"layer.0.q_proj.lora_A": (2, 6)},
        "sites": {"bury": "2" * 64, "oldham": "3" * 64},
        "by": "ada",
        "made": NOW,
        "until": NOW + timedelta(days=14),
    }
    return Offer.model_validate(about | changes)


def test_an_offer_is_read_as_it_was_made_with_the_same_recipe(small: Recipe) -> None:
    made = offer(small)
    read = opened_offer(sealed_offer(made, KEY), consortium="north_west", public=PUBLIC)
    assert read == made and read.recipe.sha256 == small.sha256 and read.sha256 == made.sha256


def test_an_offer_of_anybody_else_is_none(small: Recipe) -> None:
    made = offer(small)
    with pytest.raises(CredentialError, match="offer 1: is signed with key"):
        opened_offer(sealed_offer(made, bytes(32)), consortium="north_west", public=PUBLIC)
    with pytest.raises(CredentialError, match="is of consortium north_west, and this site belongs to south_east"):
        opened_offer(sealed_offer(made, KEY), consortium="south_east", public=PUBLIC)
    changed = sealed_offer(made, KEY).replace(b'"purpose":"offer 1"', b'"purpose":"bundle 1"')
    with pytest.raises(CredentialError, match="a signed document is a 'bundle 1', not a 'offer 1'"):
        opened_offer(changed, consortium="north_west", public=PUBLIC)


def test_what_an_approval_is_bound_to_changes_with_the_recipe(small: Recipe) -> None:
    other = small.model_copy(update={"rounds": small.rounds.model_copy(update={"count": 3})})
    assert offer(small).recipe.sha256 != offer(other).recipe.sha256
    assert offer(small).sha256 != offer(other).sha256


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"until": NOW}, "is not after made"),
        ({"run": "../chest"}, "run"),
        ({"run": "Chest"}, "run"),
        ({"sites": {}}, "sites"),
        ({"by": "ada\n"}, "cannot be printed"),
        ({"adapter": "1"}, "adapter"),
        ({"made": NOW.replace(tzinfo=None)}, "made"),
    ],
)
def test_what_is_no_offer_is_refused_by_name(small: Recipe, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        offer(small, **changes)


def test_a_recipe_that_names_its_sites_is_offered_to_these(small: Recipe) -> None:
    named = small.model_copy(update={"sites": ("bury", "wirral")})
    with pytest.raises(ValidationError, match="asks bury, oldham, and its recipe names bury, wirral"):
        offer(named)
