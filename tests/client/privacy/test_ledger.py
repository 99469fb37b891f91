import sqlite3

import pytest

from client.privacy.events import Members, Opened
from client.privacy.ledger import Ledger
from rainhill.errors import LedgerError

EARLIER = (
    (
        "2026-11-22T18:12:37.483+00:00",
        "opened",
        '{"neighbours":"add or remove one patient","site":"aintree","unit":"patient","version":1}',
        "ed603b0e23891f9f96e65eb5e3d0a07f889800c31b3b731451ae8a4fcae4cb56",
    ),
    (
        "2026-11-22T18:12:37.487+00:00",
        "members",
        '{"digest":"b0decb94640b4cb5952a1001b38b74e15570eec08c8f1775b5feb833329ef5d4","patients":["abababababababab","cdcdcdcdcdcdcdcd"],"version":1}',
        "5f8cd829f81f03529de51f947c9670ec6b0d1fc03cdce3939785cd815113f52c",
    ),
    (
        "2026-11-22T18:12:37.487+00:00",
        "charged",
        '{"cohort":"films","delta":1e-05,"draw":"50f7becde477bb509c7704de62c349247fb3499c03a95e4bce20151cd552dea5","members":"b0decb94640b4cb5952a1001b38b74e15570eec08c8f1775b5feb833329ef5d4","noise_multiplier":1.1,"plan":"64879f7d6b960a01909762d911a32d4582c20010c5641ee90278b644a9e3b525","recipe":"e1d8e552330911f9f779f85b6f2c00a15e790dcc3fbb3b28f5da1d660a30c5b8","round":1,"run":"chest","sample_rate":0.032,"steps":10,"version":1,"what":"update"}',
        "a075962df3cc1bbddb7d0c7ad71bd571d832117c33c802ae3455d516463972cc",
    ),
)
"""Entries of a ledger as they were written when it was the only kind of book: time, kind, body, hash."""


def test_a_new_ledger_says_whose_it_is(tmp_path):
    ledger = Ledger.open(tmp_path / "state", site="aintree")
    assert ledger.events() == (Opened(site="aintree"),)
    assert sorted(path.name for path in ledger.path.parent.iterdir()) == ["ledger.head", "ledger.lock", "ledger.sqlite"]


def test_what_was_charged_is_read_back(tmp_path, charge):
    ledger = Ledger.open(tmp_path, site="aintree")
    charged = (Members.of(["ab" * 8, "cd" * 8]), charge(1), charge(2))
    ledger.append(*charged)
    assert Ledger.open(tmp_path, site="aintree").events()[1:] == charged


def test_another_sites_ledger_is_refused_by_name(tmp_path):
    Ledger.open(tmp_path, site="aintree")
    with pytest.raises(LedgerError, match="is the ledger of 'aintree', not of 'broadgreen'"):
        Ledger.open(tmp_path, site="broadgreen")


def test_a_ledger_that_was_written_before_is_held_against_the_same_hashes(tmp_path, charge):
    ledger = Ledger.open(tmp_path, site="aintree")
    ledger.head.write_text(f'{{"seq": {len(EARLIER)}, "hash": "{EARLIER[-1][-1]}"}}')
    connection = sqlite3.connect(ledger.path)
    for name in ("no_delete", "no_replace"):
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute("DELETE FROM entries")
    connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", [(seq, *entry) for seq, entry in enumerate(EARLIER, start=1)])
    connection.commit()
    connection.close()
    ledger.append(charge(3))
    events = Ledger.open(tmp_path, site="aintree").events()
    assert [event.kind for event in events] == ["opened", "members", "charged", "charged"]
    assert events[0] == Opened(site="aintree")


@pytest.mark.parametrize("trace", ["keys", "updates"])
def test_a_ledger_that_is_gone_is_not_begun_anew_where_rounds_were_charged_to_it(tmp_path, charge, trace):
    ledger = Ledger.open(tmp_path, site="aintree")
    ledger.append(charge(1))
    (tmp_path / trace).mkdir()
    Ledger.open(tmp_path, site="aintree")
    ledger.path.unlink()
    ledger.head.unlink()
    with pytest.raises(
        LedgerError, match=f"ledger.sqlite: is gone, though {trace} of rounds charged to it are there. With a new one, patients"
    ):
        Ledger.open(tmp_path, site="aintree")
    assert not ledger.path.exists()
