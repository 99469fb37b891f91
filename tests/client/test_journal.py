import hashlib
import json
import shutil
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from client._asked_text import told_of
from client.chain import parse
from client.journal import (
    Approved,
    Declined,
    Held,
    Journal,
    Left,
    Offered,
    Opened,
    OutcomeTold,
    Paused,
    Released,
    Resumed,
    Said,
    Withheld,
    decision,
    envelope,
    rounds_left,
    standing_hold,
)
from client.privacy.ledger import Ledger
from rainhill.errors import LedgerError
from rainhill.told import Gains, Interval, Levels, Told

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def sha(what):
    return hashlib.sha256(str(what).encode()).hexdigest()


def day(number):
    return NOON + timedelta(days=number)


def of(run, recipe):
    return {"run": run, "recipe": sha(recipe), "offer": sha((run, recipe))}


def offered(run="spring", recipe="chest", **fields):
    usual = {"consortium": "mersey", "by": "Ada, operator", "adapter": sha("adapter"), "rounds": 5, "epsilon": 3.0, "until": day(9)}
    return Offered(**of(run, recipe), **(usual | fields))


def approved(run="spring", recipe="chest", **fields):
    usual = {"by": "Grace", "rounds": 5, "until": day(30), "repeats": 0, "envelope": False}
    return Approved(**of(run, recipe), **(usual | fields))


def repeated(run, recipe="chest"):
    return approved(run, recipe, envelope=True)


def declined(run="spring", recipe="chest"):
    return Declined(**of(run, recipe), by="Grace", reason="our scanners are being changed")


def left(number=1, run="spring", **fields):
    usual = {
        "recipe": sha("chest"),
        "plan": sha(("plan", run, number)),
        "to": "mersey",
        "approved_by": "Grace",
        "update": sha((run, number)),
        "size": 4096,
        "tensors": {"q.lora_A": (4, 32), "q.lora_B": (32, 4)},
        "norm": 0.25,
        "numbers": {"loss": 0.5, "patients": 120.0},
        "epsilon": 3.0,
    }
    return Left(run=run, round=number, **(usual | fields))


def hold(kind, number=1, run="spring", update="update"):
    told = {Held: {}, Released: {"by": "Grace"}, Withheld: {"by": "Grace", "reason": "its norm is odd"}}[kind]
    return kind(run=run, round=number, update=sha(update), **told)


GAIN = Interval(value=0.05, low=-0.01, high=0.1)
OUTCOME = Told(
    confidence=0.95, measure="label_f1", levels=Levels(base=None, shared=GAIN, private=GAIN), gain=Gains(shared=GAIN, private=None)
)
EVERY = [
    Opened(site="aintree"),
    offered(),
    approved(repeats=2),
    declined(),
    left(),
    Said(run="../spring\n", round=-1, reason="run ../spring was never offered\nto this site"),
    OutcomeTold(run="spring", recipe=sha("chest"), to="mersey", outcome=OUTCOME),
    hold(Held),
    hold(Released),
    hold(Withheld),
    Paused(by="Grace"),
    Resumed(by="Ada"),
]


@pytest.fixture
def journal(tmp_path):
    return Journal.open(tmp_path / "state", site="aintree")


def test_what_was_written_is_read_back_with_the_time_it_was_written_at(journal):
    before = datetime.now(UTC)
    journal.append(*EVERY[1:])
    again = Journal.open(journal.path.parent, site="aintree")
    assert again.events() == tuple(EVERY)
    times = [datetime.fromisoformat(entry.time) for entry in again.entries()]
    assert times == sorted(times)
    assert all(abs(time - before) < timedelta(minutes=1) for time in times)
    assert sorted(path.name for path in journal.path.parent.iterdir()) == ["journal.head", "journal.lock", "journal.sqlite"]


def test_every_kind_is_read_back_as_it_was():
    assert {event.kind for event in EVERY} == set(Journal.kinds)
    for event in EVERY:
        assert parse(event.kind, event.body(), Journal.kinds) == event
        assert event.body() == json.dumps(json.loads(event.body()), sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize(("measure", "name"), [("auroc", "AUROC"), ("label_f1", "label F1")])
def test_what_was_told_of_a_run_is_read_out_by_its_measure(measure, name):
    event = OutcomeTold(run="spring", recipe=sha("chest"), to="mersey", outcome=OUTCOME.model_copy(update={"measure": measure}))
    levels = f"the base model alone: {name} not measured; with the shared adapter: {name} 0.050 [-0.010, 0.100]; "
    assert (
        told_of(event) == f"spring: what it came to was told to mersey: {levels}with the site's own part too: {name} 0.050 [-0.010, 0.100]"
    )


def test_what_may_be_untold_is_read_back_untold():
    for event in (offered(epsilon=None), left(epsilon=None, numbers={}, tensors={})):
        assert parse(event.kind, event.body(), Journal.kinds) == event


@pytest.mark.parametrize(
    ("event", "field", "value"),
    [
        (offered(), "rounds", 0),
        (offered(), "epsilon", 0),
        (offered(), "recipe", "chest"),
        (offered(), "until", "2026-05-01T12:00:00"),
        (offered(), "until", "2026-05-01T12:00:00+01:00"),
        (offered(), "by", "Ada\x1b[2J"),
        (approved(), "rounds", 0),
        (approved(), "repeats", -1),
        (approved(), "by", ""),
        (approved(), "run", "../spring"),
        (declined(), "reason", ""),
        (left(), "norm", -0.1),
        (left(), "norm", "inf"),
        (left(), "numbers.loss", "nan"),
        (left(), "tensors.q", [4, -1]),
        (left(), "size", -1),
        (left(), "epsilon", -1),
        (left(), "more", 1),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(event, field, value):
    name, _, key = field.partition(".")
    body = json.dumps(json.loads(event.body()) | {name: {key: value} if key else value})
    with pytest.raises(LedgerError, match=f"{event.kind}: {field}"):
        parse(event.kind, body, Journal.kinds)


@pytest.mark.parametrize("until", [NOON.replace(tzinfo=None), NOON.astimezone(timezone(timedelta(hours=1)))])
def test_a_time_is_in_utc_and_says_so(until):
    with pytest.raises(ValidationError, match="until"):
        approved(until=until)


def test_a_repeat_of_an_approval_grants_none_itself():
    with pytest.raises(ValidationError, match="grants none itself, not 1"):
        approved(envelope=True, repeats=1)


@pytest.mark.parametrize(("kept", "other"), [(Journal, Ledger), (Ledger, Journal)])
def test_neither_book_of_a_site_passes_for_the_other(tmp_path, kept, other):
    book = kept.open(tmp_path, site="aintree")
    for end in ("sqlite", "head"):
        shutil.copy(tmp_path / f"{book.stem}.{end}", tmp_path / f"{other.stem}.{end}")
    with pytest.raises(LedgerError, match=f"{other.stem}.sqlite: entry 1: opened: .*Extra inputs are not permitted"):
        other.open(tmp_path, site="aintree")


def test_another_sites_journal_is_refused_by_name(journal):
    with pytest.raises(LedgerError, match="is the journal of 'aintree', not of 'broadgreen'"):
        Journal.open(journal.path.parent, site="broadgreen")


def test_a_journal_that_is_gone_is_not_begun_anew_while_updates_wait_for_a_word(journal):
    (journal.path.parent / "held").mkdir()
    journal.path.unlink()
    journal.head.unlink()
    with pytest.raises(LedgerError, match="journal.sqlite: is gone, though held is there, .* back with its journal.head"):
        Journal.open(journal.path.parent, site="aintree")


def test_the_newest_decision_on_a_run_counts():
    first, second = approved(), approved(rounds=2)
    events = [offered(), first, approved("autumn")]
    assert decision([offered()], "spring") is None
    assert decision(events, "spring") is first
    assert decision([*events, declined()], "spring") == declined()
    assert decision([*events, declined(), second], "spring") is second
    assert decision(iter(events), "winter") is None


def test_a_round_that_left_is_one_less_and_once():
    events = [approved(rounds=3), left(1), left(2), left(2), left(1, run="autumn"), Said(run="spring", round=3, reason="a full disk")]
    assert rounds_left(iter(events), "spring") == 1
    assert rounds_left([*events, left(3)], "spring") == 0
    assert rounds_left(events, "autumn") == 0
    assert rounds_left([*events, declined()], "spring") == 0
    assert rounds_left([*events, declined(), approved(rounds=4)], "spring") == 2
    assert rounds_left([*events, approved(rounds=1)], "spring") == 0


@given(st.integers(1, 9), st.lists(st.integers(0, 9)))
def test_no_order_of_rounds_leaves_more_than_were_approved(rounds, numbers):
    events = [approved(rounds=rounds)]
    for number in numbers:
        if rounds_left(events, "spring") > 0:
            events.append(left(number))
    assert rounds_left(events, "spring") == rounds - len({event.round for event in events[1:]})


def test_an_approval_with_repeats_approves_so_many_further_runs_of_its_recipe():
    first = approved(repeats=2)
    events = [offered(), first]
    assert envelope(events, sha("chest"), NOON) is first
    assert envelope(events, sha("hand"), NOON) is None
    assert envelope([*events, repeated("summer")], sha("chest"), NOON) is first
    assert envelope([*events, repeated("summer"), repeated("hands", "hand")], sha("chest"), NOON) is first
    assert envelope([*events, repeated("summer"), repeated("autumn")], sha("chest"), NOON) is None


def test_an_approval_without_repeats_is_for_its_run_alone():
    assert envelope([approved(repeats=0)], sha("chest"), NOON) is None
    assert envelope([repeated("summer")], sha("chest"), NOON) is None


def test_an_approval_lasts_until_its_end_and_no_longer():
    events = [approved(repeats=1, until=day(3))]
    assert envelope(events, sha("chest"), day(3)) is not None
    assert envelope(events, sha("chest"), day(3) + timedelta(seconds=1)) is None
    with pytest.raises(TypeError, match="naive"):
        envelope(events, sha("chest"), NOON.replace(tzinfo=None))


@pytest.mark.parametrize("recipe", ["chest", "hand"])
def test_an_approval_that_was_taken_back_repeats_nothing_until_it_is_given_anew(recipe):
    events = [approved(repeats=2), declined(recipe=recipe)]
    assert envelope(events, sha("chest"), NOON) is None
    assert envelope([*events, repeated("summer")], sha("chest"), NOON) is None
    again = approved(repeats=1)
    assert envelope([*events, again], sha("chest"), NOON) is again
    assert envelope([*events, again, repeated("summer")], sha("chest"), NOON) is None


def test_to_decline_one_further_run_leaves_the_approval_of_the_first_as_it_is():
    first = approved(repeats=2)
    assert envelope([first, repeated("summer"), declined("summer")], sha("chest"), NOON) is first
    assert envelope([first, repeated("summer"), declined("summer"), repeated("autumn")], sha("chest"), NOON) is None


def test_of_two_approvals_the_one_that_lasts_longest_is_drawn_from_first():
    short, long = approved("spring", repeats=1, until=day(3)), approved("summer", repeats=1, until=day(9))
    events = [long, short]
    assert envelope(events, sha("chest"), NOON) is long
    assert envelope([*events, repeated("autumn")], sha("chest"), NOON) is short
    assert envelope([*events, repeated("autumn")], sha("chest"), day(4)) is None
    assert envelope([*events, repeated("autumn"), repeated("winter")], sha("chest"), NOON) is None


RUNS = ["spring", "summer", "autumn"]
moves = st.lists(
    st.one_of(
        st.builds(
            approved, st.sampled_from(RUNS), st.sampled_from(["chest", "hand"]), repeats=st.integers(0, 3), until=st.integers(0, 9).map(day)
        ),
        st.builds(declined, st.sampled_from(RUNS), st.sampled_from(["chest", "hand"])),
        st.integers(0, 3),  # days until a further run is offered
    ),
    max_size=40,
)


@given(moves)
def test_no_approval_ever_gives_more_repeats_than_it_granted_nor_after_its_end_nor_once_it_was_taken_back(moves):
    events, drawn, now = [], [], NOON
    for number, move in enumerate(moves):
        if not isinstance(move, int):
            events.append(move)
            continue
        now += timedelta(days=move)
        source = envelope(events, sha("chest"), now)
        if source is not None:
            assert source.recipe == sha("chest") and not source.envelope and now <= source.until
            assert decision(events, source.run) is source
            drawn.append(source)
            events.append(repeated(f"further{number}"))
    for source in drawn:
        assert sum(other is source for other in drawn) <= source.repeats


@given(st.integers(0, 9))
def test_as_many_repeats_are_given_as_were_granted(repeats):
    events = [approved(repeats=repeats)]
    while envelope(events, sha("chest"), NOON) is not None:
        events.append(repeated(f"further{len(events)}"))
    assert len(events) == repeats + 1


def test_the_newest_word_on_an_update_that_is_held_counts():
    held = hold(Held)
    others = [hold(Released, 2), hold(Released, run="autumn"), hold(Withheld, update="another")]
    asked = ("spring", 1, sha("update"))
    assert standing_hold(others, *asked) is None
    assert standing_hold([held, *others], *asked) is held
    assert standing_hold([held, *others, hold(Released)], *asked) == hold(Released)
    assert standing_hold(iter([held, hold(Released), hold(Withheld), *others]), *asked) == hold(Withheld)
