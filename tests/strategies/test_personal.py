"""Personalisation modes as the server has them: what each site is told to keep, is sent, and ends with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rainhill import plugins
from rainhill.adapter import Adapter
from rainhill.messages import Update
from server import checkpoint
from server.checkpoint import Checkpoint
from strategies import State, optimizers, personal
from strategies.personal.fedamp import FedAmp, squared_distance
from tests.strategies.world import compose, draw, train, world

MODES = plugins.names(personal)
START = Adapter({"m.lora_A": np.array([[1.0, 0.0]]), "m.lora_B": np.array([[1.0], [0.0]])})


def update(site: str, b: float, *, choice: int = 0) -> Update:
    delta = Adapter({"m.lora_A": np.zeros((1, 2)), "m.lora_B": np.array([[b], [0.0]])})
    return Update(run="r", round=1, site=site, delta=delta, patients=1, steps=1, loss=0.0, choice=choice)


# Modes that hold several adapters go with no optimiser that steps by itself.
PAIRS = [(mode, optimizer) for mode in MODES for optimizer in plugins.names(optimizers) if mode not in ("fedamp", "ifca")]


@pytest.mark.parametrize(("mode", "optimizer"), [*((mode, None) for mode in MODES), *PAIRS])
def test_the_state_of_each_part_survives_a_checkpoint(tmp_path: Path, mode: str, optimizer: str | None) -> None:
    """Two rounds in one go end where one round, a checkpoint and one more do."""
    strategy = compose("fedavg", personal=mode, server_optimizer=optimizer)
    ends = []
    for stop in (False, True):
        rng = np.random.default_rng(0)
        adapter = draw(rng, (6, 5, 2))
        state = strategy.init(adapter)
        for _ in range(2):
            updates = [train(rng, strategy, strategy.down(adapter, state, site), state, site)[1] for site in "abc"]
            adapter, state = strategy.step(adapter, updates, state)
            if stop:
                found = checkpoint.load(
                    checkpoint.save(tmp_path, Checkpoint(recipe="f" * 64, run="r", adapter=adapter, state=state, history=()))
                )
                adapter, state = found.adapter, found.state
        ends.append((adapter, [strategy.final(adapter, state, site) for site in "abc"]))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("name", MODES)
def test_each_mode_runs_three_rounds_and_survives_between_them(name: str) -> None:
    strategy = compose("fedavg", personal=name)
    rng = np.random.default_rng(0)
    adapter = draw(rng, (6, 5, 2))
    state = strategy.init(adapter)
    for _ in range(3):
        sites = ("a", "b", "c")
        updates = [train(rng, strategy, strategy.down(adapter, state, site), state, site)[1] for site in sites]
        adapter, state = strategy.step(adapter, updates, state)
    assert state.round == 3
    for site in ("a", "b", "c", "newcomer"):
        final = strategy.final(adapter, state, site)
        assert {key: array.shape for key, array in final.items()} == {key: array.shape for key, array in adapter.items()}


@pytest.mark.parametrize(("name", "kept"), [("fedper", "head.weight"), ("fedrep", "head.bias"), ("fedbn", "norm:blocks.0.norm.weight")])
def test_a_mode_keeps_its_tensors_at_the_site(name: str, kept: str) -> None:
    rule = compose("flexlora", personal=name).local(START, State(), "a")
    assert rule.keeps(kept) and not rule.sends(kept) and rule.trains(kept)
    assert rule.sends("m.lora_A")
    assert not compose("flexlora").local(START, State(), "a").keeps(kept)


def test_fedrep_moves_the_head_first() -> None:
    assert compose("fedavg", personal={"name": "fedrep", "head_steps": 7}).local(START, State(), "a").kept_first == 7


def test_fedamp_weighs_the_others_by_nearness() -> None:
    """Products 1, 2 and 4 in one entry: squared distances of the first to the others 1 and 9, their mean 5.

    exp(-1/5) = 0.8187 and exp(-9/5) = 0.1653, which share the half that is not its own: 0.4160 and 0.0840.
    """
    strategy = compose("fedavg", weights="equal", personal={"name": "fedamp", "own": 0.5})
    _, state = strategy.step(START, [update("a", 0), update("b", 1), update("c", 3)], strategy.init(START))
    sent = strategy.down(START, state, "a")["m.lora_B"][0, 0]
    near, far = np.exp(-1 / 5), np.exp(-9 / 5)
    assert sent == pytest.approx(0.5 * 1 + 0.5 * (near * 2 + far * 4) / (near + far))
    assert near / (near + far) / 2 == pytest.approx(0.4160, abs=1e-4)
    # Who has not been there yet is sent the mean of all.
    assert strategy.down(START, state, "newcomer") is START


def test_the_nearness_of_fedamp_does_not_see_the_basis_of_the_factors() -> None:
    rng = np.random.default_rng(0)
    one, other = draw(rng, (6, 5, 2)), draw(rng, (6, 5, 2))
    turn, _ = np.linalg.qr(rng.normal(size=(2, 2)))
    turned = other.replace({"block.q.lora_A": turn.T @ other["block.q.lora_A"], "block.q.lora_B": other["block.q.lora_B"] @ turn})
    assert squared_distance(one, turned) == pytest.approx(squared_distance(one, other))
    assert squared_distance(one, other) == pytest.approx(np.sum((one.product("block.q") - other.product("block.q")) ** 2))
    assert squared_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert sum(FedAmp().weights({"a": one, "b": other, "c": turned}, "a").values()) == pytest.approx(1)


def test_the_nearness_of_fedamp_sees_a_core() -> None:
    pair = {"m.lora_A": np.eye(2), "m.lora_B": np.eye(2)}
    one, near, far = (Adapter({**pair, "m.lora_R": core * np.eye(2)}) for core in (1.0, 1.01, -100.0))
    assert squared_distance(one, far) == pytest.approx(2 * 101**2)
    assert squared_distance(one, near) == pytest.approx(2 * 0.01**2)


def test_ifca_wants_more_sites_than_clusters() -> None:
    assert compose("fedavg", personal={"name": "ifca", "clusters": 4}).min_sites() == 5


def test_ifca_merges_each_adapter_from_the_sites_that_chose_it() -> None:
    """a and b move the first by 1 and 3: 1 + 2 = 3. c moves the second by 10. d comes to the first when it has chosen nothing."""
    strategy = compose("fedavg", weights="equal", personal={"name": "ifca", "clusters": 2})
    state = strategy.init(START)
    [second] = strategy.choices(START, state, "a")
    np.testing.assert_array_equal(second["m.lora_B"], START["m.lora_B"])
    assert np.abs(second["m.lora_A"] - START["m.lora_A"]).max() > 0
    after, state = strategy.step(START, [update("a", 1), update("b", 3), update("c", 10, choice=1)], state)
    assert after["m.lora_B"][0, 0] == pytest.approx(3)
    [second_after] = strategy.choices(after, state, "a")
    assert second_after["m.lora_B"][0, 0] == pytest.approx(11)
    assert strategy.final(after, state, "c") == second_after
    assert strategy.final(after, state, "a") == strategy.final(after, state, "d") == after


def test_a_cluster_that_nobody_chose_stays() -> None:
    strategy = compose("fedavg", weights="equal", personal="ifca")
    state = strategy.init(START)
    after, later = strategy.step(START, [update(site, 1, choice=1) for site in "abc"], state)
    assert after == START
    assert later.round == 1
    assert strategy.choices(after, later, "a")[0]["m.lora_B"][0, 0] == pytest.approx(2)


@pytest.mark.parametrize("name", ["ifca", "fedamp"])
def test_two_sites_are_too_few_and_it_says_why(name: str) -> None:
    strategy = compose("fedavg", personal=name)
    assert strategy.min_sites() == 3
    assert "two" in strategy.why_so_many()


def test_no_mode_changes_what_a_rule_does_but_the_two_that_hold_several_adapters() -> None:
    plain = world(compose("fedavg"), 3, (6, 5, 2), 4)
    for name in set(MODES) - {"ifca", "fedamp", "fedper", "fedrep"}:
        other = replace(plain, strategy=compose("fedavg", personal=name))
        assert other.step()[0] == plain.step()[0]
