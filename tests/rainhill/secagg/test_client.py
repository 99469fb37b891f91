"""What a site refuses, whoever asks."""

import re
from dataclasses import replace

import numpy as np
import pytest

from rainhill.errors import ProtocolError, QuorumError, RefusedError
from rainhill.secagg import Confirmations, Inbox, Roster, UnmaskRequest, client, kept
from tests.rainhill.secagg.world import BOUND, Round, terms_of, updates

NAMES = ("s00", "s01", "s02", "s03")


@pytest.fixture
def world() -> Round:
    return Round(terms_of(4), updates(4), silent=("s03",))


def test_a_site_gives_one_kind_of_share_for_each_site(world: Round) -> None:
    answer, held = world.revealed["s00"], world.masked["s00"][0].held
    assert set(answer.seeds) == {"s00", "s01", "s02"} and set(answer.keys) == {"s03"}
    assert all(answer.seeds[site] == held[site][32:] for site in answer.seeds)
    assert answer.keys["s03"] == held["s03"][:32]


@pytest.mark.parametrize(
    ("survivors", "dropped", "said"),
    [
        (NAMES, ("s03",), "s00: is asked for both secrets of s03, which together would lay its update bare"),
        (("s00", "s01"), ("s02", "s03"), "s00: is asked to unmask a sum of 2 sites, the quorum of secure aggregation is 3"),
        (("s01", "s02", "s03"), ("s00",), "s00: is said to have dropped out, and has given its masked update"),
        (("s00", "s01", "s02"), (), "s00: s03 is not said to have survived or dropped out"),
        (("s00", "s01", "s02"), ("s03", "zz"), "s00: zz is new"),
    ],
)
def test_a_request_that_asks_for_more_than_the_sum_is_refused(world: Round, survivors, dropped, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        client.confirm(world.masked["s00"][0], UnmaskRequest(survivors=survivors, dropped=dropped), identity=world.who.private["s00"])


def test_a_second_request_is_confirmed_only_if_it_is_the_first_again(world: Round) -> None:
    identity = world.who.private["s00"]
    after, signed = client.confirm(world.masked["s00"][0], world.request, identity=identity)
    assert client.confirm(after, world.request, identity=identity) == (after, signed)
    with pytest.raises(RefusedError, match="s00: has confirmed 3 survivors, and is shown 4 others"):
        client.confirm(after, UnmaskRequest(survivors=NAMES, dropped=()), identity=identity)


def test_nothing_is_revealed_before_a_quorum_has_signed_the_same_request(world: Round) -> None:
    state, pinned, signed = world.confirmed["s00"][0], world.who.pinned, world.confirmations.signatures
    with pytest.raises(RefusedError, match="s00: is asked to reveal shares in round 1, and has confirmed no request"):
        client.reveal(world.masked["s00"][0], world.confirmations, pinned=pinned)
    two = {site: signed[site] for site in ("s00", "s01")}
    for signatures, error, said in (
        (two, QuorumError, "2 of 4 sites confirmed the unmask request, the quorum of secure aggregation is 3; nothing was revealed"),
        ({**two, "s02": signed["s01"]}, ProtocolError, "s02: has not signed this unmask request of round 1 with the key"),
        ({**two, "s03": signed["s01"]}, ProtocolError, "s03: confirms an unmask request, and is not one of its 3 survivors"),
    ):
        with pytest.raises(error, match=said):
            client.reveal(state, Confirmations(signatures=signatures), pinned=pinned)


def test_signatures_under_the_request_of_another_attempt_at_the_round_are_refused(world: Round) -> None:
    again = Round(world.terms, world.inputs, silent=("s03",))
    again.__dict__["who"] = world.who
    assert again.request == world.request
    with pytest.raises(ProtocolError, match="has not signed this unmask request of round 1"):
        client.reveal(again.confirmed["s00"][0], world.confirmations, pinned=world.who.pinned)


def test_a_coordinator_that_tells_two_stories_is_told_nothing() -> None:
    count = 10
    world = Round(terms_of(count), updates(count))
    names = tuple(world.inputs)
    stories = (UnmaskRequest(survivors=names, dropped=()), UnmaskRequest(survivors=names[:-1], dropped=names[-1:]))
    told = {site: stories[number % 2] for number, site in enumerate(names[:-1])} | {names[-1]: stories[0]}
    confirmed = {site: client.confirm(world.masked[site][0], told[site], identity=world.who.private[site]) for site in names}
    for story in stories:
        signatures = {site: sent.signature for site, (_, sent) in confirmed.items() if told[site] == story}
        assert len(signatures) < world.terms.quorum
        for site in signatures:
            with pytest.raises(QuorumError, match="nothing was revealed"):
                client.reveal(confirmed[site][0], Confirmations(signatures=signatures), pinned=world.who.pinned)


def test_other_keys_than_the_pinned_ones_are_refused(world: Round) -> None:
    state = world.advertised["s00"][0]
    with pytest.raises(ProtocolError, match="s01: its keys for round 1 are not signed with the key that is pinned for it"):
        client.share(state, world.roster, pinned={**world.who.pinned, "s01": world.who.pinned["s02"]})
    with pytest.raises(RefusedError, match="s01: takes part in round 1, and its signing key is not among the 3 pinned ones"):
        client.share(state, world.roster, pinned={site: key for site, key in world.who.pinned.items() if site != "s01"})
    exchanged = replace(world.roster.entries["s01"], mask=world.roster.entries["s02"].mask)
    with pytest.raises(ProtocolError, match="s01: its keys for round 1 are not signed"):
        client.share(state, Roster(entries={**world.roster.entries, "s01": exchanged}), pinned=world.who.pinned)


def test_an_advertisement_of_another_round_is_refused(world: Round) -> None:
    later = Round(terms_of(4, number=2), world.inputs)
    later.__dict__["who"] = world.who
    old = world.roster.entries["s01"]
    with pytest.raises(ProtocolError, match="s01: its keys for round 2 are not signed"):
        client.share(later.advertised["s00"][0], Roster(entries={**later.roster.entries, "s01": old}), pinned=world.who.pinned)


def test_a_roster_without_the_sites_own_keys_or_with_too_few_sites_is_refused(world: Round) -> None:
    state, entries = world.advertised["s00"][0], world.roster.entries
    lacking = Roster(entries={site: entry for site, entry in entries.items() if site != "s00"})
    again, _ = client.advertise(world.terms, "s00", identity=world.who.private["s00"])
    for asked, roster in ((state, lacking), (again, world.roster)):
        with pytest.raises(RefusedError, match="s00: the roster of round 1 does not hold the keys that it advertised"):
            client.share(asked, roster, pinned=world.who.pinned)
    with pytest.raises(QuorumError, match="2 of 4 sites advertised keys, the quorum of secure aggregation is 3"):
        client.share(state, Roster(entries={site: entries[site] for site in ("s00", "s01")}), pinned=world.who.pinned)


@pytest.mark.parametrize("place", [0, 12, 60, 91])
def test_shares_that_were_changed_anywhere_are_refused_before_the_update_is_masked(world: Round, place: int) -> None:
    inbox = world.inboxes["s00"]
    changed = bytearray(inbox.sealed["s01"])
    changed[place] ^= 1
    with pytest.raises(ProtocolError, match="s00: the shares from s01 were not sealed for this site, round and roster, or were changed"):
        client.mask(world.shared["s00"][0], replace(inbox, sealed={**inbox.sealed, "s01": bytes(changed)}), world.inputs["s00"])


def test_shares_for_another_site_of_another_sender_or_of_another_roster_are_refused(world: Round) -> None:
    inbox = world.inboxes["s00"]
    for wrong in (world.inboxes["s02"].sealed["s01"], inbox.sealed["s02"]):
        with pytest.raises(ProtocolError, match="s00: the shares from s01 were not sealed for this site"):
            client.mask(world.shared["s00"][0], replace(inbox, sealed={**inbox.sealed, "s01": wrong}), world.inputs["s00"])
    fewer = Roster(entries={site: entry for site, entry in world.roster.entries.items() if site != "s03"})
    _, of_fewer = client.share(world.advertised["s01"][0], fewer, pinned=world.who.pinned)
    with pytest.raises(ProtocolError, match="s00: the shares from s01 were not sealed for this site, round and roster"):
        client.mask(world.shared["s00"][0], replace(inbox, sealed={**inbox.sealed, "s01": of_fewer.sealed["s00"]}), world.inputs["s00"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"site": "s01"}, "s00: the inbox is for s01"),
        ({"present": ("s01", "s02", "s03")}, "said to have shared lack it, or are not all on the roster"),
        ({"present": (*NAMES, "zz")}, "said to have shared lack it, or are not all on the roster"),
        ({"present": ("s00", "s01", "s02")}, "s00: s03 is no neighbour that shared"),
        ({"sealed": {}}, "s00: s01 is said to have shared, and its shares are missing"),
    ],
)
def test_an_inbox_that_does_not_fit_the_roster_is_refused(world: Round, change, said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        client.mask(world.shared["s00"][0], replace(world.inboxes["s00"], **change), world.inputs["s00"])


def test_too_few_that_shared_are_refused(world: Round) -> None:
    inbox = world.inboxes["s00"]
    with pytest.raises(QuorumError, match="2 of 4 sites shared their secrets, the quorum of secure aggregation is 3"):
        client.mask(
            world.shared["s00"][0],
            Inbox(site="s00", present=("s00", "s01"), sealed={"s01": inbox.sealed["s01"]}),
            world.inputs["s00"],
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_by_name(world: Round, bad: float) -> None:
    update = world.inputs["s00"]
    spoilt = update.replace({"m.lora_B": np.where(np.arange(8).reshape(4, 2) == 3, np.float32(bad), update["m.lora_B"])})
    with pytest.raises(ProtocolError, match="m.lora_B: 1 of 8 values are not finite"):
        client.mask(world.shared["s00"][0], world.inboxes["s00"], spoilt)


def test_a_value_outside_the_range_is_refused_by_name_and_both_values(world: Round) -> None:
    update = world.inputs["s00"].replace({"head.bias": np.array([0, -0.75, BOUND], np.float32)})
    with pytest.raises(RefusedError, match="head.bias: holds 0.75, the range that secure aggregation was set up for is ±0.5"):
        client.mask(world.shared["s00"][0], world.inboxes["s00"], update)


def test_other_tensors_than_the_declared_ones_are_refused(world: Round) -> None:
    for update, said in (
        (world.inputs["s00"].only(lambda name: name != "head.bias"), "head.bias: missing"),
        (world.inputs["s00"].replace({"more": np.zeros(1, np.float32)}), "more: not a declared tensor"),
        (world.inputs["s00"].replace({"head.bias": np.zeros(3)}), "head.bias: dtype float64 is not float32"),
    ):
        with pytest.raises(ProtocolError, match=said):
            client.mask(world.shared["s00"][0], world.inboxes["s00"], update)


def test_a_site_that_is_not_asked_does_not_advertise(world: Round) -> None:
    with pytest.raises(RefusedError, match="zz: is not one of the 4 sites of round 1"):
        client.advertise(world.terms, "zz", identity=bytes(32))


def test_secrets_are_not_shown_in_a_state(world: Round) -> None:
    for state in (world.advertised["s00"][0], world.shared["s00"][0], world.masked["s00"][0]):
        # A hash may end in b.
        assert not re.search(r"(?<![0-9a-f])b'", repr(state))


def test_a_site_goes_on_from_what_it_kept_of_each_state(world: Round) -> None:
    for read, states in ((kept.advertised, world.advertised), (kept.shared, world.shared), (kept.masked, world.masked)):
        for state, _ in states.values():
            assert read(kept.to_bytes(state), world.terms) == state
    confirmed = world.confirmed["s00"][0]
    assert kept.masked(kept.to_bytes(confirmed), world.terms) == confirmed
    with pytest.raises(ProtocolError, match="kept keys of s00: kind 'kept roster' is not 'kept keys'"):
        kept.advertised(kept.to_bytes(world.shared["s00"][0]), world.terms)
