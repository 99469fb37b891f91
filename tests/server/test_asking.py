"""An offer is made of what can be run: everything that the coordinator can know to be wrong is said before a hospital sees it."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import strategies
from rainhill import plugins, signed
from rainhill.adapter import Adapter
from rainhill.errors import ConfigError, PluginError, RainhillError, RefusedError
from rainhill.offer import Offer, opened_offer
from rainhill.recipe import Recipe
from server.asking import new_offer
from server.database import Database
from server.home import Home, begin
from server.registry import Registry
from server.runs import Runs
from tests.server.conftest import free_port
from tests.server.offers import adapter, enrol, recipe

TODAY = f"{datetime.now(UTC):%Y%m%d}"
Ask = Callable[..., tuple[Offer, bytes]]


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Home:
    address = {"host": "localhost", "bind": "127.0.0.1", "port": free_port(), "private_port": free_port()}
    return begin(tmp_path_factory.mktemp("hub") / "coordinator", {"name": "north_west", "address": address})


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    database = Database.open(f"sqlite:///{tmp_path / 'rainhill.sqlite'}")
    registry = Registry(database=database)
    enrol(registry, "bury", "oldham", "wirral")
    yield registry
    database.close()


@pytest.fixture
def home(founded: Home, tmp_path: Path) -> Home:
    """With the keys of the one, and runs of its own."""
    folder = tmp_path / "coordinator"
    folder.mkdir()
    (folder / "keys").symlink_to(founded.folder / "keys")
    return Home(folder=folder, config=founded.config)


@pytest.fixture
def ask(home: Home, registry: Registry) -> Ask:
    def one(
        recipe: Recipe, start: Adapter | None = None, *, run: str | None = None, sites: tuple[str, ...] = (), days: int = 14
    ) -> tuple[Offer, bytes]:
        return new_offer(home, registry, recipe, adapter=start or adapter(), run=run, sites=sites, days=days, by="ada")

    return one


def kept(home: Home) -> list[str]:
    return [path.name for path in home.adapters.iterdir()] if home.adapters.is_dir() else []


def test_an_offer_asks_all_that_are_active_and_keeps_what_round_1_begins_from(home: Home, registry: Registry, ask: Ask) -> None:
    registry.revoke("wirral", reason="left the study", by="ada")
    offer, sealed = ask(recipe())
    assert opened_offer(sealed, consortium="north_west", public=signed.public_key(home.key())) == offer
    assert (offer.consortium, offer.run, offer.recipe, offer.by) == ("north_west", f"spring-{TODAY}", recipe(), "ada")
    assert offer.sites == {name: registry.site(name).signing_key.hex() for name in ("bury", "oldham")}
    assert offer.until - offer.made == timedelta(days=14)
    assert offer.adapter == adapter().fingerprint()
    assert Adapter.from_bytes(home.adapter_file(offer.adapter).read_bytes()) == adapter()
    # It is for `Runs.offer` to make it known.
    assert Runs(database=registry.database).runs() == ()


def test_a_rule_that_begins_in_its_own_way_is_offered_with_that(home: Home, ask: Ask) -> None:
    fedsb = recipe(strategy={"rule": "fedsb"})
    offer, _ = ask(fedsb)
    first = strategies.from_recipe(fedsb).first(adapter())
    assert first != adapter() and offer.adapter == first.fingerprint()
    assert kept(home) == [f"{first.fingerprint()}.safetensors"]


@pytest.mark.parametrize("rule", plugins.names(strategies))
def test_every_rule_can_be_offered(ask: Ask, rule: str) -> None:
    assert ask(recipe(strategy={"rule": rule}))[0].recipe.strategy.rule == rule


def test_an_offer_asks_the_recipes_sites_or_those_that_are_named(ask: Ask) -> None:
    assert set(ask(recipe(sites=("oldham", "bury")))[0].sites) == {"bury", "oldham"}
    assert set(ask(recipe(), sites=("wirral",))[0].sites) == {"wirral"}
    assert set(ask(recipe(sites=("oldham", "bury")), sites=("bury", "oldham"))[0].sites) == {"bury", "oldham"}


def test_a_run_has_the_recipes_name_and_the_date_unless_that_is_taken(home: Home, registry: Registry, ask: Ask) -> None:
    runs = Runs(database=registry.database)
    for expected in (f"spring-{TODAY}", f"spring-{TODAY}-2"):
        offer, sealed = ask(recipe())
        assert offer.run == expected
        runs.offer(offer, sealed, by="ada")
    # Nor is what an earlier run left behind taken up by another.
    (home.runs / f"spring-{TODAY}-3").mkdir(parents=True)
    assert ask(recipe())[0].run == f"spring-{TODAY}-4"
    with pytest.raises(RefusedError, match=f"run spring-{TODAY}-3: .* holds what was left by a run of this name"):
        ask(recipe(), run=f"spring-{TODAY}-3")
    assert ask(recipe(), run="our_first")[0].run == "our_first"


@pytest.mark.parametrize(
    ("name", "expected"), [("Spring_Chest", "spring_chest"), ("__x__", "x"), ("röntgen", "r-ntgen"), ("胸部", "run"), ("a" * 200, "a" * 50)]
)
def test_a_recipes_name_becomes_one_that_a_folder_can_have(ask: Ask, name: str, expected: str) -> None:
    assert ask(recipe(name=name))[0].run == f"{expected}-{TODAY}"


BAD: list[tuple[dict[str, object], dict[str, object], type[RainhillError], str]] = [
    ({"strategy": {"rule": "fedavgg"}}, {}, PluginError, "recipe spring: .*'fedavgg', did you mean 'fedavg'"),
    (
        {"strategy": {"rule": "flexlora", "robust": "krum"}},
        {"sites": ("bury",)},
        ConfigError,
        r"recipe spring: \[strategy\] flexlora\+krum: needs \d sites, 1 are asked",
    ),
    ({"sites": ("bury", "burry")}, {}, RefusedError, "recipe spring: no site 'burry' is enrolled, did you mean 'bury'"),
    ({}, {"sites": ("leigh",)}, RefusedError, r"recipe spring: leigh: was revoked on .* \(left\), and cannot be asked"),
    ({"sites": ("bury", "leigh")}, {}, RefusedError, "leigh: was revoked on"),
    ({}, {"sites": ("bury", "bury")}, ConfigError, "recipe spring: asked twice: bury"),
    ({"sites": ("bury", "oldham")}, {"sites": ("bury",)}, ConfigError, "recipe spring: sites = bury, oldham, and asked are bury"),
    (
        {"rounds": {"count": 2, "steps": 4, "quorum": 4}},
        {},
        ConfigError,
        "recipe spring: rounds.quorum = 4 is more than the 3 sites that are asked: bury, oldham, wirral",
    ),
    (
        {"lora": {"rank": 2, "ranks": {"buri": 1}}, "strategy": {"rule": "flexlora"}},
        {},
        ConfigError,
        r"recipe spring: lora.ranks names 'buri', which is not asked, did you mean 'bury'\? \(asked are: bury, oldham, wirral\)",
    ),
    (
        {"secure_aggregation": {}},
        {"sites": ("bury", "oldham")},
        RefusedError,
        r"spring: secure aggregation among 2 sites \(bury and oldham\)",
    ),
    ({"secure_aggregation": {"dropouts": 0.4}}, {}, RefusedError, "spring: secure aggregation: quorum 2 is below 3"),
    (
        {"secure_aggregation": {}, "strategy": {"rule": "flexlora"}},
        {},
        RefusedError,
        "spring: secure aggregation gives the sum .*'flexlora'",
    ),
    ({}, {"run": "../spring"}, ConfigError, "an offer of recipe spring: run = '../spring'"),
    ({}, {"run": "Spring"}, ConfigError, "an offer of recipe spring: run = 'Spring'"),
    ({"lora": {"rank": 4}}, {}, RefusedError, "recipe spring: lora.rank = 4, and the adapter has rank 2 at layer.0.q_proj"),
    ({"lora": {"rank": 2, "modules": "fc1"}}, {}, RefusedError, "lora.modules = 'fc1', and the adapter has a pair at layer.0.q_proj"),
    ({"lora": {"rank": 2, "modules": "(fc1"}}, {}, ConfigError, r"lora.modules = '\(fc1': is not a regular expression"),
    ({"lora": {"rank": 2, "head": "frozen"}}, {}, RefusedError, "lora.head = 'frozen', and the adapter has a head.weight"),
]


@pytest.mark.parametrize(("changes", "how", "kind", "said"), BAD)
def test_what_cannot_be_run_is_refused_by_name_and_leaves_nothing(
    home: Home, registry: Registry, ask: Ask, changes: dict[str, object], how: dict[str, object], kind: type[RainhillError], said: str
) -> None:
    enrol(registry, "leigh")
    registry.revoke("leigh", reason="left", by="ada")
    with pytest.raises(kind, match=said) as caught:
        ask(recipe(**changes), **how)
    assert "\n" not in str(caught.value) and kept(home) == []


LAYER = "layer.0.q_proj.lora_"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({LAYER + "A": np.full((2, 6), np.nan, np.float32)}, "adapter: layer.0.q_proj.lora_A: 12 of its 12 values are not finite"),
        ({"head.bias": np.array([np.inf], np.float32)}, "adapter: head.bias: 1 of its 1 values are not finite"),
        ({"head.bias": np.zeros(1)}, "adapter: head.bias: dtype float64 is not float32"),
        ({LAYER + "A": None}, "the adapter holds no LoRA pair, but head.bias, head.weight, layer.0.q_proj.lora_B"),
        (
            {"layer.1.fc1.lora_A": np.zeros((2, 6), np.float32)},
            "has layer.1.fc1.lora_A, and not both of layer.1.fc1.lora_A and layer.1.fc1.lora_B",
        ),
        ({"head.weight": None}, "lora.head = 'shared', and the adapter has no head.weight"),
    ],
)
def test_an_adapter_that_no_round_can_begin_from_is_refused_by_its_tensor(
    home: Home, ask: Ask, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(RefusedError, match=said):
        ask(recipe(), adapter(**changes))
    assert kept(home) == []


def test_an_adapter_that_its_strategy_cannot_begin_with_is_refused_with_the_reason(home: Home, ask: Ask) -> None:
    # A core of 2 x 2 between factors that cannot be made orthonormal.
    narrow = {LAYER + "A": np.ones((2, 1), np.float32), LAYER + "B": np.zeros((5, 2), np.float32)}
    with pytest.raises(RefusedError, match=r"recipe spring: \[strategy\] fedsb cannot begin from this adapter: .*rank"):
        ask(recipe(strategy={"rule": "fedsb"}), adapter(**narrow))
    assert kept(home) == []


def test_where_nobody_is_enrolled_nobody_is_asked(home: Home, tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'empty.sqlite'}")
    try:
        with pytest.raises(RefusedError, match="there is no site to ask: `rainhill coordinator enrol` takes one in"):
            new_offer(home, Registry(database=database), recipe(), adapter=adapter(), run=None, sites=(), days=14, by="ada")
    finally:
        database.close()
