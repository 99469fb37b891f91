"""One case of each worked out by hand: two or three sites, rank 1, a (2, 2) weight."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from rainhill.adapter import Adapter
from rainhill.errors import ConfigError, PluginError
from rainhill.messages import LocalRule, Update
from strategies import State, Strategy, refuse_few
from strategies._strategy import capped
from tests.strategies.world import compose

START = Adapter({"m.lora_A": np.array([[1.0, 0.0]]), "m.lora_B": np.array([[1.0], [0.0]])})


def update(site: str, *, patients: int = 1, **delta: list[list[float]]) -> Update:
    arrays = {f"m.lora_{factor}": np.array(values, dtype=float) for factor, values in delta.items()}
    return Update(run="r", round=1, site=site, delta=Adapter(arrays), patients=patients, steps=1, loss=0.0)


def after(strategy: Strategy, updates: Sequence[Update], adapter: Adapter = START) -> Adapter:
    return strategy.step(adapter, updates, strategy.init(adapter))[0]


def trained(strategy: Strategy, adapter: Adapter = START, **factors: list[list[float]]) -> Update:
    """The update of a site that ended with these factors."""
    ended = adapter.replace({f"m.lora_{factor}": np.array(values, dtype=float) for factor, values in factors.items()})
    rule = strategy.local(adapter, State(), "a")
    return replace(update("a"), delta=strategy.encode(adapter, ended, rule, 1))


def test_fedavg_averages_each_factor() -> None:
    """A: 1,0 plus the mean of (2,0) and (0,4) = 2,2.  B: 1;0 plus the mean of (0;2) and (2;0) = 2;1."""
    merged = after(compose("fedavg", weights="equal"), [update("a", A=[[2, 0]], B=[[0], [2]]), update("b", A=[[0, 4]], B=[[2], [0]])])
    np.testing.assert_array_equal(merged["m.lora_A"], [[2, 2]])
    np.testing.assert_array_equal(merged["m.lora_B"], [[2], [1]])


def test_weights_by_patients_count_the_larger_site_more() -> None:
    """B: 1;0 plus (3 * (0;4) + 1 * (4;0)) / 4 = 2;3."""
    merged = after(compose("ffa"), [update("a", patients=3, B=[[0], [4]]), update("b", patients=1, B=[[4], [0]])])
    np.testing.assert_array_equal(merged["m.lora_B"], [[2], [3]])


def test_a_cap_on_weights_gives_the_rest_to_the_others() -> None:
    """Of 80, 15 and 5 patients, capped at one half: 0.5, and the other half as 15 to 5: 0.375 and 0.125."""
    assert capped([80, 15, 5], 0.5) == pytest.approx([0.5, 0.375, 0.125])
    # Both of two above 0.4 and 0.4 left for nobody else than the third: 0.4, 0.4, 0.2.
    assert capped([50, 45, 5], 0.4) == pytest.approx([0.4, 0.4, 0.2])
    assert capped([1, 1], 0.5) == pytest.approx([0.5, 0.5])
    assert compose("ffa", weights="capped", cap=0.1).shares([update("a", patients=9), update("b")]) == pytest.approx([0.5, 0.5])
    with pytest.raises(ConfigError, match=r"r: \[strategy\] cap = 0.3 for 3 sites, whose shares then cannot sum to 1"):
        refuse_few(compose("ffa", weights="capped", cap=0.3), 3, "r")
    merged = after(compose("ffa", weights="capped", cap=0.5), [update("a", patients=9, B=[[4], [0]]), update("b", B=[[0], [4]])])
    np.testing.assert_array_equal(merged["m.lora_B"], [[3], [2]])


def test_ffa_never_moves_a() -> None:
    ffa = compose("ffa")
    assert ffa.local(START, State(round=3), "a").train == {"B"} == ffa.local(START, State(round=3), "a").send
    np.testing.assert_array_equal(after(ffa, [update("a", B=[[1], [1]])])["m.lora_A"], START["m.lora_A"])


def test_alternating_begins_with_b_and_takes_turns() -> None:
    rule = compose("alternating")
    turns = [rule.local(START, State(round=done), "a") for done in range(4)]
    assert [next(iter(turn.train)) for turn in turns] == ["B", "A", "B", "A"]
    assert all(turn.train == turn.send for turn in turns)
    assert turns[0].sends("head.bias") and turns[1].trains("head.bias")


def test_la_lora_trains_both_in_turns_and_averages_both() -> None:
    rule = compose("la_lora", weights="equal")
    local = rule.local(START, State(), "a")
    assert local.alternate and local.send == {"A", "B"}
    merged = after(rule, [update("a", A=[[2, 0]], B=[[0], [2]]), update("b", A=[[0, 4]], B=[[2], [0]])])
    np.testing.assert_array_equal(merged["m.lora_A"], [[2, 2]])


def test_flexlora_takes_the_leading_direction_of_the_mean_product(caplog: pytest.LogCaptureFixture) -> None:
    """Sites' products: 4 e1 e1' and 2 e2 e2'; their mean 2 e1 e1' + 1 e2 e2' at rank 1 is 2 e1 e1', which is 4/5 of the energy."""
    sites = [update("a", A=[[1, 0]], B=[[1], [0]]), update("b", A=[[-1, 1]], B=[[-1], [2]])]
    with caplog.at_level(logging.WARNING):
        merged, state = compose("flexlora", weights="equal").step(START, sites, State())
    np.testing.assert_allclose(merged.product("m"), [[2, 0], [0, 0]], atol=1e-12)
    assert state.log["energy_kept"] == pytest.approx(0.8)
    assert "keeps 80 % of a product's energy" in caplog.text


def test_flexlora_keeps_a_alive_while_every_product_is_zero() -> None:
    zero = Adapter({"m.lora_A": np.array([[1.0, 2.0]]), "m.lora_B": np.zeros((2, 1))})
    merged, state = compose("flexlora").step(zero, [update("a", A=[[1, 0]], B=[[0], [0]])], State())
    np.testing.assert_array_equal(merged["m.lora_A"], [[2, 2]])
    np.testing.assert_array_equal(merged["m.lora_B"], [[0], [0]])
    assert state.log["energy_kept"] == 1.0


def test_fedex_puts_beside_the_mean_factors_what_they_miss() -> None:
    """Sites end at e1 (e1') and e2 (e2'), so the mean product is I/2. Mean factors (1/2; 1/2)(1/2, 1/2) give 1/4 everywhere.

    The residual is I/2 - 1/4 = [[1/4, -1/4], [-1/4, 1/4]], of rank 1.
    """
    sites = [update("a", A=[[0, 0]], B=[[0], [0]]), update("b", A=[[-1, 1]], B=[[-1], [1]])]
    merged = after(compose("fedex", weights="equal"), sites)
    np.testing.assert_allclose(merged.pairs()["m"].product(), [[0.25, 0.25], [0.25, 0.25]], atol=1e-12)
    np.testing.assert_allclose(merged.residuals()["m"].product(), [[0.25, -0.25], [-0.25, 0.25]], atol=1e-12)
    assert merged.residuals()["m"].rank == 1


def test_flora_merges_everything_and_begins_anew() -> None:
    """The same sites: the residual holds I/2, A is the one of the first round again, B is zero."""
    sites = [update("a", A=[[0, 0]], B=[[0], [0]]), update("b", A=[[-1, 1]], B=[[-1], [1]])]
    merged = after(compose("flora", weights="equal"), sites)
    np.testing.assert_allclose(merged.residuals()["m"].product(), [[0.5, 0], [0, 0.5]], atol=1e-12)
    np.testing.assert_array_equal(merged["m.lora_A"], START["m.lora_A"])
    np.testing.assert_array_equal(merged["m.lora_B"], [[0], [0]])


def test_fedsvd_moves_the_length_of_a_into_b() -> None:
    """A = (0, 2), B = (3; 4): B A = (6; 8) e2'. A becomes e2' of length 1, B gets the length 10, up to one sign."""
    start = Adapter({"m.lora_A": np.array([[0.0, 2.0]]), "m.lora_B": np.zeros((2, 1))})
    merged = after(compose("fedsvd"), [update("a", B=[[3], [4]])], start)
    np.testing.assert_allclose(np.abs(merged["m.lora_A"]), [[0, 1]], atol=1e-12)
    np.testing.assert_allclose(np.abs(merged["m.lora_B"]), [[6], [8]], atol=1e-12)
    np.testing.assert_allclose(merged.product("m"), [[0, 6], [0, 8]], atol=1e-12)


def test_double_sketch_rebuilds_the_mean_change() -> None:
    """From e1 e1': one site ends at 3 e1 e1', the other stays. The change of the mean is 1 e1 e1', so the result is 2 e1 e1'."""
    rule = compose("double_sketch", weights="equal", size=2)
    merged = after(rule, [trained(rule, B=[[3], [0]]), replace(trained(rule), site="b")])
    np.testing.assert_allclose(merged.product("m"), [[2, 0], [0, 0]], atol=1e-9)


def test_fedsa_averages_a_and_asks_for_no_b() -> None:
    rule = compose("fedsa", weights="equal")
    assert rule.local(START, State(), "a").keeps("m.lora_B")
    assert not rule.local(START, State(), "a").sends("m.lora_B")
    merged = after(rule, [update("a", A=[[2, 0]]), update("b", A=[[0, 4]])])
    np.testing.assert_array_equal(merged["m.lora_A"], [[2, 2]])
    np.testing.assert_array_equal(merged["m.lora_B"], START["m.lora_B"])


def test_lora_fair_corrects_b_along_the_rows_of_the_mean_a() -> None:
    """Sites end at e1 e1' and e2 e2': P = I/2, A = (1/2, 1/2), B = (1/2; 1/2), A A' = 1/2, P A' = (1/4; 1/4), B A A' = (1/4; 1/4).

    Nothing is missed along A, so B stays. With sites e1 e1' and e1 3 e2' instead: A = (1/2, 3/2), A A' = 5/2, P = e1 (1/2, 3/2) = e1 A, exact.
    With sites e1 e1' and 3 e1 e2': A = (1/2, 1/2), B = (2; 0), P = e1 (1/2, 3/2), P A' = 1, B A A' = 1: again nothing.
    With sites 3 e1 e1' (as B = 3) and e1 (3 e1'): A = (2, 0), B = 2, P = 3 e1 e1', P A' = 6, B A A' = 8, so dB = -2/4 at l = 0: B = 3/2.
    """
    rule = compose("lora_fair", weights="equal", ridge=0.0)
    corner = after(rule, [update("a", A=[[0, 0]], B=[[0], [0]]), update("b", A=[[-1, 1]], B=[[-1], [1]])])
    np.testing.assert_allclose(corner["m.lora_B"], [[0.5], [0.5]], atol=1e-12)
    merged = after(rule, [update("a", A=[[0, 0]], B=[[2], [0]]), update("b", A=[[2, 0]], B=[[0], [0]])])
    np.testing.assert_allclose(merged["m.lora_B"], [[1.5], [0]], atol=1e-12)
    np.testing.assert_allclose(merged.product("m"), [[3, 0], [0, 0]], atol=1e-12)


def test_fedrot_turns_a_mirrored_site_back() -> None:
    """A site ends at (-B)(-A), the very adapter it was sent: its update is zero."""
    rule = compose("fedrot")
    delta = trained(rule, A=[[-1, 0]], B=[[-1], [0]]).delta
    np.testing.assert_allclose(delta["m.lora_A"], [[0, 0]], atol=1e-12)
    np.testing.assert_allclose(delta["m.lora_B"], [[0], [0]], atol=1e-12)


def test_hetlora_counts_a_site_by_the_norm_of_its_product() -> None:
    """Norms 1 and 3: A moves by 3/4 of (0,0) ... B: 1;0 + 3/4 (2;0) = 2.5;0."""
    merged = after(compose("hetlora", weights="equal"), [update("a", A=[[0, 0]], B=[[0], [0]]), update("b", A=[[0, 0]], B=[[2], [0]])])
    np.testing.assert_allclose(merged["m.lora_B"], [[2.5], [0]], atol=1e-12)


def test_fedsb_averages_the_core() -> None:
    rule = compose("fedsb", weights="equal")
    first = rule.first(START)
    assert not first.product("m").any()
    np.testing.assert_allclose(np.abs(first["m.lora_A"]), [[1, 0]], atol=1e-12)
    assert np.linalg.norm(first["m.lora_B"]) == pytest.approx(1)
    merged = after(rule, [update("a", R=[[2]]), update("b", R=[[4]])], first)
    np.testing.assert_array_equal(merged["m.lora_R"], [[3]])


def steps(optimizer: dict[str, object] | str, *changes: float) -> list[float]:
    """Where B's first entry is after each of these mean changes, from 1."""
    strategy = compose("ffa", weights="equal", server_optimizer=optimizer)
    adapter, state, seen = START, strategy.init(START), []
    for change in changes:
        adapter, state = strategy.step(adapter, [update("a", B=[[change], [0]])], state)
        seen.append(float(adapter["m.lora_B"][0, 0]))
    return seen


def test_server_momentum_adds_the_decayed_past() -> None:
    """Changes 1 and 1, momentum 0.5: 1 + 1 = 2, then + (0.5 + 1) = 3.5."""
    assert steps({"name": "fedavgm", "momentum": 0.5}, 1, 1) == pytest.approx([2, 3.5])


ADAPTIVE = {"learning_rate": 0.1, "beta_1": 0.0, "beta_2": 0.5, "tau": 1.0}


def test_fedadagrad_divides_by_the_root_of_all_squares() -> None:
    """v: 1 + 9 = 10, then 10 + 9 = 19.  1 + 0.1 * 3 / (sqrt 10 + 1), then + 0.1 * 3 / (sqrt 19 + 1)."""
    one = 1 + 0.3 / (10**0.5 + 1)
    assert steps({"name": "fedadagrad", **ADAPTIVE}, 3, 3) == pytest.approx([one, one + 0.3 / (19**0.5 + 1)])


def test_fedadam_divides_by_the_root_of_a_decaying_mean_of_squares() -> None:
    """v: (1 + 9) / 2 = 5, then (5 + 9) / 2 = 7."""
    one = 1 + 0.3 / (5**0.5 + 1)
    assert steps({"name": "fedadam", **ADAPTIVE}, 3, 3) == pytest.approx([one, one + 0.3 / (7**0.5 + 1)])


def test_fedyogi_grows_its_second_moment_by_the_new_square_alone() -> None:
    """v: 1 + 9/2 = 5.5, then 5.5 + 9/2 = 10; a small change of 1 then takes it down by 1/2 to 9.5."""
    one = 1 + 0.3 / (5.5**0.5 + 1)
    two = one + 0.3 / (10**0.5 + 1)
    assert steps({"name": "fedyogi", **ADAPTIVE}, 3, 3, 1) == pytest.approx([one, two, two + 0.1 / (9.5**0.5 + 1)])


def test_an_adaptive_step_leaves_a_factor_alone_that_no_site_trained() -> None:
    strategy = compose("alternating", weights="equal", server_optimizer="fedadam")
    adapter, state = strategy.step(START, [update("a", B=[[1], [1]])], strategy.init(START))
    later, _ = strategy.step(adapter, [update("a", A=[[1, 1]])], state)
    np.testing.assert_array_equal(later["m.lora_B"], adapter["m.lora_B"])
    assert not np.array_equal(later["m.lora_A"], adapter["m.lora_A"])


def test_fedprox_asks_sites_to_hold_to_what_they_were_sent() -> None:
    assert compose("flexlora", server_optimizer={"name": "fedprox", "mu": 0.3}).local(START, State(), "a") == LocalRule(mu=0.3)


def test_scaffold_sends_each_site_its_drift() -> None:
    """Mean gradients 1 at a and 3 at b: c = 2, so a is told +1 and b -1. When a alone comes back with 5, c = (5 + 3) / 2 = 4."""
    strategy = compose("ffa", weights="equal", server_optimizer="scaffold")
    state = strategy.init(START)
    first = strategy.local(START, state, "a")
    assert first.variate and first.correction is not None and first.correction.norm() == 0
    gradients = {"a": 1.0, "b": 3.0}
    updates = [
        replace(update(site, B=[[0], [0]]), variate=Adapter({"m.lora_B": np.full((2, 1), value)})) for site, value in gradients.items()
    ]
    adapter, state = strategy.step(START, updates, state)
    told = {site: strategy.local(adapter, state, site).correction["m.lora_B"].ravel().tolist() for site in ("a", "b", "newcomer")}
    assert told == {"a": [1, 1], "b": [-1, -1], "newcomer": [2, 2]}
    _, state = strategy.step(adapter, [replace(updates[0], variate=Adapter({"m.lora_B": np.full((2, 1), 5.0)}))], state)
    assert strategy.local(adapter, state, "b").correction["m.lora_B"].ravel().tolist() == [1, 1]


def test_an_unknown_name_or_key_is_refused_with_the_nearest() -> None:
    with pytest.raises(PluginError, match="no rule is called 'flexlor', did you mean 'flexlora'"):
        compose("flexlor")
    with pytest.raises(PluginError, match="no server optimiser is called 'fedadm', did you mean 'fedadam'"):
        compose("fedavg", server_optimizer="fedadm")
    with pytest.raises(PluginError, match="no robust rule is called 'medain', did you mean 'median'"):
        compose("fedavg", robust="medain")
    with pytest.raises(PluginError, match=r"\[strategy\] server_optimizer = 'median': that is a robust rule, for the key robust"):
        compose("fedavg", server_optimizer="median")
    with pytest.raises(ConfigError, match=r"\[strategy\] weight: unknown key, did you mean 'weights'"):
        compose("fedavg", weight="equal")
    with pytest.raises(ConfigError, match="beta: unknown key, did you mean 'beta_"):
        compose("fedavg", server_optimizer={"name": "fedadam", "beta": 1})


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (
            {"rule": "flexlora", "server_optimizer": "fedadam"},
            "server_optimizer = 'fedadam' steps from factors to the next round's, and rule 'flexlora' changes their",
        ),
        ({"rule": "fedsvd", "server_optimizer": "scaffold"}, "server_optimizer = 'scaffold'"),
        (
            {"rule": "double_sketch", "robust": "krum"},
            "robust = 'krum' looks at each site's product, and rule 'double_sketch' sends sketches",
        ),
        ({"rule": "fedsa", "robust": "median"}, "with rule 'fedsa' the server never sees B"),
        ({"rule": "fedsb", "ranks": {"a": 2}}, r"\[lora\] ranks = {'a': 2}: rule 'fedsb' takes no sites of other ranks"),
        ({"rule": "flexlora", "personal": "ifca"}, "personal = 'ifca' mixes factors, and rule 'flexlora' changes their basis"),
        (
            {"rule": "fedex", "personal": "fedamp"},
            "personal = 'fedamp' has several adapters, and the residual of rule 'fedex' belongs to one",
        ),
        ({"rule": "fedavg", "personal": "ifca", "server_optimizer": "fedadam"}, "'fedadam' follows one adapter .* 'ifca' has several"),
        (
            {"rule": "fedavg", "personal": "fedamp", "robust": "krum"},
            "'krum' needs all sites around one adapter, and .* 'fedamp' has several",
        ),
        ({"rule": "fedsb", "personal": "ditto"}, "personal = 'ditto' trains A and B, and rule 'fedsb' holds them fixed"),
        ({"rule": "fedrot", "ranks": {"a": 2}}, "rule 'fedrot' takes no sites of other ranks"),
        ({"rule": "fedavg", "ranks": {"a": 2}, "server_optimizer": "scaffold"}, "'scaffold' averages variates, which are of one rank"),
        ({"rule": "fedavg", "ranks": {"a": 2}, "personal": "fedamp"}, "personal = 'fedamp' takes no sites of other ranks"),
        ({"rule": "ffa", "robust": "krum", "server_optimizer": "scaffold"}, "robust = 'krum' does not look at that"),
        ({"rule": "fedex", "server_optimizer": "fedadam"}, "goes another way than the mean that the residual of rule 'fedex'"),
        ({"rule": "fedavg", "robust": "median", "server_optimizer": "fedavgm"}, "robust = 'median' changes their basis"),
        ({"rule": "fedavg", "robust": "norm_bound"}, "rule 'fedavg' averages factors, in which a site can hide any size"),
        ({"rule": "hetlora", "robust": "multi_krum"}, "rule 'hetlora' averages factors"),
        ({"rule": "la_lora", "robust": "geometric_median"}, "rule 'la_lora' averages factors"),
        ({"rule": "flexlora", "robust": "krum", "weights": "patients"}, "a hostile site would choose its own weight"),
    ],
)
def test_what_cannot_be_combined_is_refused_with_the_reason(parts: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        compose(**parts)
