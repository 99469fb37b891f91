"""Whole rounds: the sum is the plain one, whoever drops out and whenever, and below the quorum there is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf._secure_round import sum_securely
from rainhill.errors import MergeError, ProtocolError, QuorumError
from rainhill.secagg import MaskedInput, client, server
from tests.rainhill.secagg.world import BOUND, LAYOUT, Round, plain_sum, sparse_terms, terms_of, updates

PHASES = ("asked", "advertise", "share", "mask", "confirm")
GIVEN = {"mask", "confirm"}


def hold_together(result, inputs, terms, drop_after) -> None:
    """The bound that the module states, and the order of a float64 sum beside it."""
    survivors = tuple(site for site in inputs if drop_after.get(site, "mask") in GIVEN)
    assert result.survivors == survivors
    assert result.weight == sum(terms.weights[site] for site in survivors)
    assert result.error_bound == result.weight * terms.quantiser.step / 2
    apart = np.max(np.abs(result.total - plain_sum(inputs, terms, survivors)))
    assert apart <= result.error_bound * (1 + 1e-6) + 1e-15
    for name, array in LAYOUT.unflatten(plain_sum(inputs, terms, survivors) / result.weight).items():
        np.testing.assert_allclose(result.mean[name], array, rtol=2e-7, atol=result.error_bound)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("count", "gone"), [(3, 0), (10, 0), (10, 3)])
def test_the_sum_is_the_plain_sum_whichever_phase_sites_drop_out_after(count: int, gone: int, phase) -> None:
    inputs, terms = updates(count), terms_of(count)
    drop_after = dict.fromkeys(list(inputs)[1 : 1 + gone], phase)
    hold_together(sum_securely(inputs, terms, drop_after=drop_after), inputs, terms, drop_after)


def test_fifty_sites_of_which_fifteen_drop_out_at_every_boundary_give_the_plain_sum() -> None:
    inputs, terms = updates(50), terms_of(50)
    drop_after = {site: PHASES[number % 5] for number, site in enumerate(list(inputs)[::3][:15])}
    assert terms.quorum == 35 and len(drop_after) == 15
    hold_together(sum_securely(inputs, terms, drop_after=drop_after), inputs, terms, drop_after)


@settings(max_examples=20)
@given(data=st.data())
def test_any_weights_any_ring_and_any_tolerable_dropouts_give_the_weighted_sum(data) -> None:
    count = data.draw(st.integers(3, 8))
    weights = {f"s{number:02d}": data.draw(st.integers(1, 500)) for number in range(count)}
    terms = terms_of(count, weights=weights, ring=data.draw(st.sampled_from([32, 64])))
    gone = data.draw(st.lists(st.sampled_from(sorted(weights)), unique=True, max_size=count - terms.quorum))
    drop_after = {site: data.draw(st.sampled_from(PHASES)) for site in gone}
    inputs = updates(count, seed=data.draw(st.integers(0, 99)))
    hold_together(sum_securely(inputs, terms, drop_after=drop_after), inputs, terms, drop_after)


def test_the_sparse_graph_gives_the_plain_sum_too() -> None:
    inputs, terms = updates(14), sparse_terms(14, degree=6, threshold=4, quorum=10)
    drop_after = {"s03": "share", "s05": "mask", "s11": "advertise"}
    hold_together(sum_securely(inputs, terms, drop_after=drop_after), inputs, terms, drop_after)


def test_updates_of_zero_sum_to_exactly_zero() -> None:
    inputs = {site: update * 0 for site, update in updates(3).items()}
    np.testing.assert_array_equal(sum_securely(inputs, terms_of(3)).total, 0)


def test_every_site_at_the_bound_does_not_wrap_around() -> None:
    for sign in (1, -1):
        full = {
            site: (update * 0).replace({n: np.full_like(a, sign * BOUND) for n, a in update.items()}) for site, update in updates(5).items()
        }
        assert sum_securely(full, terms_of(5)).total == pytest.approx(sign * 5 * BOUND, rel=1e-12)


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        ("asked", "6 of 10 sites advertised keys"),
        ("advertise", "6 of 10 sites shared their secrets"),
        ("share", "6 of 10 sites gave a masked input"),
        ("mask", "6 of 10 sites confirmed the unmask request"),
    ],
)
def test_below_the_quorum_the_round_ends_with_the_numbers_and_nothing_revealed(phase, said: str) -> None:
    inputs, terms = updates(10), terms_of(10)
    with pytest.raises(QuorumError, match=rf"round 1: {said}, the quorum of secure aggregation is 7; nothing was revealed"):
        sum_securely(inputs, terms, drop_after=dict.fromkeys(list(inputs)[:4], phase))


def test_below_the_threshold_of_answers_the_sum_stays_masked() -> None:
    inputs, terms = updates(10), terms_of(10)
    with pytest.raises(QuorumError, match=r"6 of the 10 holders revealed a share of s00, the threshold is 7; the sum stays masked"):
        sum_securely(inputs, terms, drop_after=dict.fromkeys(list(inputs)[:4], "confirm"))


def test_a_neighbourhood_of_which_too_few_are_left_stops_the_round_before_anyone_is_asked() -> None:
    terms = sparse_terms(14, degree=2, threshold=3, quorum=10)
    with pytest.raises(QuorumError, match=r"2 of the 3 holders of the shares of s\d\d are left, the threshold is 3; nothing was revealed"):
        sum_securely(updates(14), terms, drop_after={"s03": "share"})


def test_without_one_sites_masks_the_sum_is_garbage_and_said_to_be() -> None:
    world = Round(terms_of(4), updates(4))
    stranger = np.random.default_rng(0).integers(0, 2**32, LAYOUT.size, dtype=np.uint32)
    unmasked = world.terms.quantiser.encode(world.inputs["s00"], LAYOUT, weight=1)
    vectors = [sent for _, sent in world.masked.values()]
    for wrong in (unmasked, stranger):
        added, _ = server.add_up(world.routed[0], [MaskedInput(site="s00", vector=wrong), *vectors[1:]])
        with pytest.raises(MergeError, match=r"the unmasked sum holds values beyond ±4 x 0.5, which no sites can have sent"):
            server.unmask(added, world.revealed.values())


def test_a_second_message_a_strangers_and_a_missing_one_are_refused() -> None:
    world = Round(terms_of(4), updates(4))
    steps = (world.advertised, world.shared, world.masked, world.confirmed)
    ads, boxes, vectors, signed = ([sent for _, sent in step.values()] for step in steps)
    for act, sent in (
        (lambda messages: server.gather(world.terms, messages, pinned=world.who.pinned), ads),
        (lambda messages: server.route(world.gathered[0], messages), boxes),
        (lambda messages: server.add_up(world.routed[0], messages), vectors),
        (lambda messages: server.unmask(world.added[0], messages), list(world.revealed.values())),
        (lambda messages: server.confirm(world.added[0], messages, pinned=world.who.pinned), signed),
    ):
        with pytest.raises(ProtocolError, match="s00: .* twice in one round"):
            act([*sent, sent[0]])
        with pytest.raises(ProtocolError, match="'zz': .* is not one of the 4 sites that may"):
            act([*sent, type(sent[0])(**{**vars(sent[0]), "site": "zz"})])
        with pytest.raises(QuorumError, match="the (quorum of secure aggregation|threshold) is 3"):
            act(sent[:2])


def test_shares_for_too_few_neighbours_are_refused() -> None:
    world = Round(terms_of(4), updates(4))
    box = world.shared["s00"][1]
    short = type(box)(site="s00", sealed={"s01": box.sealed["s01"]})
    with pytest.raises(ProtocolError, match="s00: shares with 1 sites that are not its 3 neighbours"):
        server.route(world.gathered[0], [short, *(sent for site, (_, sent) in world.shared.items() if site != "s00")])


def test_a_wrong_share_is_noticed_by_what_was_advertised() -> None:
    world = Round(terms_of(4), updates(4), silent=("s03",))
    assert world.result.survivors == ("s00", "s01", "s02")
    answer = world.revealed["s00"]
    rest = [world.revealed[site] for site in ("s01", "s02")]
    for spoilt, said in (
        (
            client.Revealed(site="s00", seeds={**answer.seeds, "s01": bytes(32)}, keys=answer.keys),
            "s01: the seed .* not the one it committed to",
        ),
        (client.Revealed(site="s00", seeds=answer.seeds, keys={"s03": bytes(32)}), "s03: the mask key .* not the one it advertised"),
        (client.Revealed(site="s00", seeds=answer.seeds, keys={}), "s00: reveals shares of the mask keys of 0 sites, not of the 1"),
    ):
        with pytest.raises(ProtocolError, match=said):
            server.unmask(world.added[0], [spoilt, *rest])
