"""Every rule, server optimiser, robust rule and personalisation mode in a real, small federation."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import strategies
from client.training import lora
from client.training.features import logits
from client.training.personal import private_part
from client.workbench import Bench, first_adapter, open_bench
from rainhill import plugins
from rainhill.errors import ConfigError
from rainhill.recipe import Recipe, StrategySection
from sites import arms
from sites.bench import SiteData, open_site
from sites.consortium import read_sites
from sites.inline import collect_inline

SITES = ("aintree", "broadgreen", "calder", "dovecot", "everton")


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five hospitals, since Krum needs so many."""
    from tests.conftest import write_hospital

    folder = tmp_path_factory.mktemp("five")
    for number, name in enumerate(SITES):
        write_hospital(folder, name, patients=36, gain=1 - 0.1 * number)
    return folder


Federate = Callable[..., tuple[Bench, dict[str, SiteData], Path, object]]


@pytest.fixture
def federate(recipe: Recipe, five: Path, tmp_path: Path) -> Federate:
    def run(rule: str = "fedavg", *, ranks: dict[str, int] | None = None, rounds: int = 3, **parts: object):
        section = StrategySection(rule=rule, **parts)
        changed = recipe.model_copy(
            update={
                "strategy": section,
                "rounds": recipe.rounds.model_copy(update={"count": rounds}),
                "lora": recipe.lora.model_copy(update={"ranks": ranks or {}}),
            }
        )
        bench = open_bench(changed, tmp_path)
        data = {name: open_site(bench, site, tmp_path / "cache") for name, site in read_sites(five).items()}
        folder = tmp_path / "run"
        done = arms.train_shared(
            bench,
            first_adapter(bench),
            sites=list(data),
            collect=collect_inline(bench, data, arms.memory_of(folder, "shared")),
            folder=folder,
            on_round=lambda arm, record: None,
        )
        return bench, data, folder, done

    return run


CASES = [
    *({"rule": name} for name in plugins.names(strategies)),
    *({"server_optimizer": name} for name in plugins.names(strategies.optimizers)),
    *({"rule": "flexlora", "robust": name} for name in plugins.names(strategies.robust)),
    *({"personal": name} for name in plugins.names(strategies.personal) if name != "fedrep"),
    # Half of its steps are the head's.
    {"personal": {"name": "fedrep", "head_steps": 2}, "rounds": 8},
    {"rule": "alternating", "server_optimizer": "fedadam", "robust": "trimmed_mean", "personal": "ditto"},
    {"rule": "la_lora"},
]


def described(case: dict[str, object]) -> str:
    return "+".join(str(part) for part in case.values())


@pytest.mark.parametrize("case", CASES, ids=described)
def test_it_learns_at_every_site_and_ends_with_a_part_of_each_ones_own(federate: Federate, case: dict) -> None:
    bench, data, folder, done = federate(**case)
    assert [record.answered for record in done.history] == [tuple(sorted(SITES))] * bench.recipe.rounds.count
    views = arms.own_views(bench, done, data, folder=folder)
    private = arms.train_private(bench, views, data)
    for site, own in data.items():
        lora.write_adapter(bench.net, bench.strategy.first(first_adapter(bench)), name=lora.SHARED)
        before = bench.task.loss(*_both(bench, own)).mean()
        lora.write_adapter(bench.net, views[site], name=lora.SHARED)
        after = bench.task.loss(*_both(bench, own)).mean()
        assert np.isfinite(float(after))
        assert float(after) < float(before), site
        with private_part(bench.net, views[site], private[site], bench.recipe) as temperature:
            assert np.isfinite(logits(bench.net, own.test.hidden) / temperature).all()
    if bench.strategy.personal.after == "nothing":
        assert all(part.steps == 0 for part in private.values())


def _both(bench: Bench, own: SiteData) -> tuple:
    import torch

    return torch.from_numpy(logits(bench.net, own.train.hidden)), own.train.targets


def test_what_stays_at_a_site_differs_from_site_to_site(federate: Federate) -> None:
    for rule, mode, kept in (("fedsa", "dual", "lora_B"), ("fedavg", "fedper", "head.weight"), ("fedavg", "fedbn", "norm:")):
        bench, data, folder, done = federate(rule, personal=mode)
        views = arms.own_views(bench, done, data, folder=folder)
        names = [name for name in views["aintree"] if kept in name]
        assert names
        for name in names:
            assert not np.array_equal(views["aintree"][name], views["calder"][name])
            np.testing.assert_array_equal(done.adapter[name], bench.strategy.first(first_adapter(bench))[name])
        shutil.rmtree(folder)


def test_ifca_deals_the_sites_out_and_each_adapter_goes_its_own_way(federate: Federate) -> None:
    """Before the first round B is zero, and both adapters fit alike: with every site in the first there would be no clusters at all."""
    bench, data, folder, done = federate(personal="ifca", rounds=1)
    chosen = {name.rpartition("/")[2]: int(array) for name, array in done.state.arrays.items() if "chosen/" in name}
    assert chosen.keys() == set(SITES)
    assert set(chosen.values()) == {0, 1}
    views = arms.own_views(bench, done, data, folder=folder)
    for one in SITES:
        for other in SITES:
            assert (views[one] == views[other]) == (chosen[one] == chosen[other])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"strategy": {"rule": "flexlora"}, "compression": {"encoding": "int8", "error_feedback": True}},
            r"\[compression\] error_feedback .* \[strategy\] flexlora has another basis then",
        ),
        (
            {"strategy": {"rule": "fedavg", "personal": "ifca"}, "compression": {"encoding": "top_k", "error_feedback": True}},
            r"\[strategy\] fedavg\+ifca has another basis then",
        ),
        (
            {"strategy": {"rule": "ffa", "robust": "median"}, "compression": {"encoding": "top_k"}},
            r"encoding = 'top_k' leaves most entries at zero, and \[strategy\] ffa\+median takes the middle of each",
        ),
        (
            {"strategy": {"rule": "fedavg", "personal": "fedper"}, "lora": {"head": "frozen"}},
            r"personal = 'fedper' keeps the head at the site, and \[lora\] head = 'frozen' trains none",
        ),
    ],
)
def test_what_a_recipe_cannot_combine_is_refused(recipe: Recipe, changes: dict, reason: str) -> None:
    raw = recipe.model_dump()
    for section, keys in changes.items():
        raw[section] = keys if section == "strategy" else {**raw[section], **keys}
    with pytest.raises(ConfigError, match=reason):
        strategies.from_recipe(Recipe.model_validate(raw))


MIXED = [name for name in plugins.names(strategies) if strategies.from_section(StrategySection(rule=name)).rule.traits.mixed_ranks]


@pytest.mark.parametrize("name", MIXED)
def test_sites_of_different_rank_take_part_together(federate: Federate, name: str) -> None:
    bench, data, _, done = federate(name, ranks={"aintree": 1, "calder": 1})
    module = bench.modules[0]
    sent = {site: bench.strategy.down(done.adapter, done.state, site) for site in data}
    assert {site: one.pairs()[module].rank for site, one in sent.items()} == {
        "aintree": 1,
        "broadgreen": 2,
        "calder": 1,
        "dovecot": 2,
        "everton": 2,
    }
    up = done.history[-1].up_bytes
    assert up["aintree"] < up["broadgreen"] or name == "double_sketch"


def test_a_head_that_takes_all_steps_is_refused(recipe: Recipe) -> None:
    section = StrategySection(rule="fedavg", personal={"name": "fedrep", "head_steps": 4})
    with pytest.raises(ConfigError, match=r"head_steps = 4 leaves none of a round's 4 steps to the adapter"):
        strategies.from_recipe(recipe.model_copy(update={"strategy": section}))


def test_ditto_stays_the_nearer_the_higher_its_penalty(federate: Federate) -> None:
    distances = []
    for penalty in (0.0, 1e4):
        bench, data, folder, done = federate("fedavg", personal={"name": "ditto", "penalty": penalty})
        views = arms.own_views(bench, done, data, folder=folder)
        strong = bench.recipe.private.model_copy(update={"steps": 20, "learning_rate": 2e-2})
        eager = replace(bench, recipe=bench.recipe.model_copy(update={"private": strong}))
        moved = []
        for site, part in arms.train_private(eager, views, data).items():
            assert part.instead
            if part.steps:
                moved.append(sum(float(np.sum((part.adapter.product(m) - views[site].product(m)) ** 2)) for m in bench.modules))
        distances.append(np.mean(moved) if moved else 0.0)
        shutil.rmtree(folder)
    assert distances[1] < 0.1 * distances[0]
