import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from client.chain import parse
from client.privacy.events import KINDS, Charged, Joined, Members, Opened, Sent, digest
from rainhill.errors import LedgerError

pseudonyms = st.lists(st.text("0123456789abcdef", min_size=16, max_size=32), unique=True, max_size=20)


def every_kind(charge, sha):
    joined = {"run": "r", "recipe": sha(1), "cohort": "c", "patients": 9, "epsilon": 3.0, "delta": 1e-5}
    return [
        Opened(site="aintree"),
        Joined(**joined, noise_multiplier=1.0, sample_rate=0.1, steps=30),
        Members.of(["ab" * 8, "cd" * 8]),
        charge(),
        Sent(run="r", round=1, update=sha(2), size=10),
    ]


def test_every_kind_is_read_back_as_it_was(charge, sha):
    events = every_kind(charge, sha)
    assert {event.kind for event in events} == set(KINDS)
    for event in events:
        assert parse(event.kind, event.body(), KINDS) == event


def test_the_form_is_canonical(charge):
    body = charge().body()
    assert body == json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"))


def test_a_ledger_says_what_its_epsilons_are_about():
    assert json.loads(Opened(site="aintree").body()) == {
        "version": 1,
        "site": "aintree",
        "unit": "patient",
        "neighbours": "add or remove one patient",
    }


def test_an_event_is_never_changed(charge):
    with pytest.raises(ValidationError, match="frozen"):
        charge().steps = 0


def test_an_unknown_kind_is_refused(charge):
    with pytest.raises(LedgerError, match="kind 'refunded' is not one of opened, joined, members, charged, sent"):
        parse("refunded", charge().body(), KINDS)


def test_an_unknown_version_is_refused(charge):
    with pytest.raises(LedgerError, match="charged: version 2 is not 1"):
        parse("charged", charge().body().replace('"version":1', '"version":2'), KINDS)


@pytest.mark.parametrize("body", ["", "[1]", "{", "3"])
def test_what_is_no_object_is_refused(body):
    with pytest.raises(LedgerError, match="sent: .* is no JSON object"):
        parse("sent", body, KINDS)


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("noise_multiplier", 0), ("sample_rate", 1.5), ("draw", "no hash"), ("what", "weights"), ("more", 1), ("delta", "NaN")],
)
def test_a_value_out_of_range_is_refused_by_name(charge, field, value):
    with pytest.raises(LedgerError, match=f"charged: {field}: "):
        parse("charged", json.dumps(json.loads(charge().body()) | {field: value}), KINDS)


@given(pseudonyms)
def test_the_digest_of_a_set_knows_neither_order_nor_repeats(patients):
    members = Members.of(patients)
    assert members == Members.of([*reversed(patients), *patients])
    assert members.digest == digest(patients)
    assert parse("members", members.body(), KINDS) == members


def test_a_set_that_is_not_what_its_digest_says_is_refused():
    with pytest.raises(LedgerError, match="members: .*1 patients have digest"):
        parse("members", json.dumps({"version": 1, "digest": "0" * 64, "patients": ["ab" * 8]}), KINDS)


def test_no_pseudonym_is_shown():
    assert "abab" not in repr(Members.of(["ab" * 8]))
    with pytest.raises(ValidationError) as refused:
        Members(digest="0" * 64, patients=("ab" * 8,))
    assert "abab" not in str(refused.value)


def test_a_charge_knows_its_phase(charge):
    assert isinstance(charge(), Charged)
    assert (charge().phase.noise_multiplier, charge().phase.sample_rate) == (1.1, 0.032)
