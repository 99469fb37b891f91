"""One case of each rule worked out by hand: two sites, rank 1, a (2, 2) weight."""

import logging

import numpy as np
import pytest

from rainhill.adapter import Adapter
from rainhill.errors import ConfigError, PluginError
from rainhill.messages import Update
from rainhill.recipe import StrategySection
from strategies import State, from_section

START = Adapter({"m.lora_A": np.array([[1.0, 0.0]]), "m.lora_B": np.array([[1.0], [0.0]])})


def update(site: str, *, patients: int = 1, **delta: list[list[float]]) -> Update:
    arrays = {f"m.lora_{factor}": np.array(values, dtype=float) for factor, values in delta.items()}
    return Update(run="r", round=1, site=site, delta=Adapter(arrays), patients=patients, steps=1, loss=0.0)


def test_fedavg_averages_each_factor() -> None:
    """A: 1,0 plus the mean of (2,0) and (0,4) = 2,2.  B: 1;0 plus the mean of (0;2) and (2;0) = 2;1."""
    after, state = from_section(StrategySection(rule="fedavg")).step(
        START, [update("a", A=[[2, 0]], B=[[0], [2]]), update("b", A=[[0, 4]], B=[[2], [0]])], State()
    )
    np.testing.assert_array_equal(after["m.lora_A"], [[2, 2]])
    np.testing.assert_array_equal(after["m.lora_B"], [[2], [1]])
    assert state.round == 1


def test_weights_by_patients_count_the_larger_site_more() -> None:
    """B: 1;0 plus (3 * (0;4) + 1 * (4;0)) / 4 = 2;3."""
    after, _ = from_section(StrategySection(rule="ffa", weights="patients")).step(
        START, [update("a", patients=3, B=[[0], [4]]), update("b", patients=1, B=[[4], [0]])], State()
    )
    np.testing.assert_array_equal(after["m.lora_B"], [[2], [3]])


def test_ffa_never_moves_a() -> None:
    rule = from_section(StrategySection(rule="ffa"))
    assert rule.local(State(round=3), "a").train == {"B"} == rule.local(State(round=3), "a").send
    after, _ = rule.step(START, [update("a", B=[[1], [1]])], State())
    np.testing.assert_array_equal(after["m.lora_A"], START["m.lora_A"])


def test_alternating_begins_with_b_and_takes_turns() -> None:
    rule = from_section(StrategySection(rule="alternating"))
    turns = [rule.local(State(round=done), "a") for done in range(4)]
    assert [next(iter(turn.train)) for turn in turns] == ["B", "A", "B", "A"]
    assert all(turn.train == turn.send for turn in turns)
    assert turns[0].sends("head.bias") and turns[1].trains("head.bias")


def test_flexlora_takes_the_leading_direction_of_the_mean_product(caplog: pytest.LogCaptureFixture) -> None:
    """Sites' products: 4 e1 e1' and 2 e2 e2'; their mean 2 e1 e1' + 1 e2 e2' at rank 1 is 2 e1 e1', which is 4/5 of the energy."""
    sites = [update("a", A=[[1, 0]], B=[[1], [0]]), update("b", A=[[-1, 1]], B=[[-1], [2]])]
    with caplog.at_level(logging.WARNING):
        after, state = from_section(StrategySection(rule="flexlora")).step(START, sites, State())
    np.testing.assert_allclose(after.pairs()["m"].product(), [[2, 0], [0, 0]], atol=1e-12)
    assert state.log["energy_kept"] == pytest.approx(0.8)
    assert "keeps 80 % of a product's energy" in caplog.text


def test_flexlora_keeps_a_alive_while_every_product_is_zero() -> None:
    zero = Adapter({"m.lora_A": np.array([[1.0, 2.0]]), "m.lora_B": np.zeros((2, 1))})
    after, state = from_section(StrategySection(rule="flexlora")).step(zero, [update("a", A=[[1, 0]], B=[[0], [0]])], State())
    np.testing.assert_array_equal(after["m.lora_A"], [[2, 2]])
    np.testing.assert_array_equal(after["m.lora_B"], [[0], [0]])
    assert state.log["energy_kept"] == 1.0


def test_an_unknown_rule_or_key_is_refused_with_the_nearest() -> None:
    with pytest.raises(PluginError, match="no strategy is called 'flexlor', did you mean 'flexlora'"):
        from_section(StrategySection(rule="flexlor"))
    with pytest.raises(ConfigError, match="weight: unknown key, did you mean 'weights'"):
        from_section(StrategySection(rule="fedavg", weight="equal"))
