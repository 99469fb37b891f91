"""What a run came to, as a site is brought it: kept where it is of what was approved, settled once, and told to nobody where the site's file does not say so."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client._asked_text import told_of
from client.home import LAST, outcomes
from client.journal import OutcomeTold
from client.offers import Offers
from client.results import FindOut, Results
from client.workshop import Workshop
from rainhill import wire
from rainhill.adapter import Adapter
from rainhill.errors import RefusedError
from rainhill.messages import Plan, Receipt, Waiting
from tests.client.hospital import Asks, offers, rewrite

# How many patients are held out is by lot.
TELLS = "[policy]\ntell_outcome = true\nmin_patients = 1\n"


@pytest.fixture
def approved(site_file: Path, plain: Asks) -> Offers:
    at = offers(site_file)
    at.take(plain.sealed())
    at.approve("spring", by="Grace")
    return at


def not_asked(sealed: bytes, plan: Plan) -> dict[str, Any]:
    pytest.fail("is not to be measured here")


def results(at: Offers, find_out: FindOut = not_asked) -> Results:
    return Results(home=at.home, journal=at.journal, find_out=find_out)


def last(plain: Asks, **changes: object) -> Plan:
    """Of two rounds, the one that follows."""
    return replace(plain.plan(2), **{"round": 3, **changes})


def test_a_result_is_kept_as_it_was_brought(approved: Offers, plain: Asks) -> None:
    offer, plan = approved.offer("spring"), last(plain)
    receipt = results(approved).received(offer, plan)
    assert isinstance(receipt, Receipt) and receipt.told is None
    assert (receipt.round, receipt.adapter) == (3, plan.adapter.fingerprint())
    assert (approved.home.run("spring") / LAST).stat().st_mode & 0o077 == 0


def test_a_result_that_nobody_approved_or_that_is_of_something_else_is_not_kept(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    offer = at.take(plain.sealed())
    with pytest.raises(RefusedError, match="run spring: has a result, and nobody at bury has approved it"):
        results(at).received(offer, last(plain))
    at.approve("spring", by="Grace")
    head = {
        name: np.zeros((len(array) + 1, *array.shape[1:]), np.float32) for name, array in plain.first.items() if name.startswith("head.")
    }
    wider = plain.first.replace(head)
    with pytest.raises(RefusedError, match="plan's adapter: "):
        results(at).received(offer, last(plain, adapter=wider))
    with pytest.raises(RefusedError, match="plan is for recipe 000000000000"):
        results(at).received(offer, last(plain, recipe="0" * 64))
    at.decline("spring", by="Grace", reason="no longer")
    with pytest.raises(RefusedError, match="nobody at bury has approved it"):
        results(at).received(offer, last(plain))
    assert not (at.home.run("spring") / LAST).exists()


def test_a_result_is_settled_when_it_may_be_and_what_fails_is_not_tried_for_ever(approved: Offers, plain: Asks, site_file: Path) -> None:
    results(approved).received(approved.offer("spring"), last(plain))
    asked: list[Plan] = []

    def fails(sealed: bytes, plan: Plan) -> dict[str, Any]:
        assert sealed == approved.sealed("spring")
        asked.append(plan)
        return {}

    settling = results(approved, fails)
    approved.home.paused.touch()
    settling.settle()
    approved.home.paused.unlink()
    soon = datetime.now() + timedelta(hours=2)
    rewrite(site_file, "[data]", f'[policy]\nhours = "{soon:%H}:00-{soon:%H}:01"\n\n[data]')
    settling.settle()
    assert asked == []
    rewrite(site_file, f'hours = "{soon:%H}:00-{soon:%H}:01"', "")
    settling.settle()
    settling.settle()
    assert [plan.round for plan in asked] == [3]


def test_an_outcome_is_measured_on_held_out_patients_and_nothing_of_it_leaves(approved: Offers, plain: Asks) -> None:
    plan = last(plain)
    results(approved).received(approved.offer("spring"), plan)
    before = len(approved.journal.events())
    settling = results(approved, Workshop(approved.home).outcome)
    settling.settle()
    (found,) = outcomes(approved.home).values()
    assert (found["run"], found["adapter"], found["held_out"]) == ("spring", plan.adapter.fingerprint(), "test")
    assert found["measure"] == "auroc" and set(found["levels"]) == {"base", "shared", "private"} and found["patients"] > 0
    folder = approved.home.run("spring")
    assert Adapter.from_bytes((folder / "shared.safetensors").read_bytes()) == plan.adapter
    assert Adapter.from_bytes((folder / "private.safetensors").read_bytes()).fingerprint() == found["private"]
    assert len(approved.journal.events()) == before
    # A daemon that is started again has nothing left to do.
    results(approved).settle()
    assert datetime.now(UTC) > datetime.fromtimestamp((folder / "outcome.json").stat().st_mtime, UTC)


def test_a_site_that_tells_what_a_run_came_to_is_waited_for_until_it_knows(approved: Offers, plain: Asks, site_file: Path) -> None:
    rewrite(site_file, "[data]", TELLS + "\n[data]")
    offer, plan = approved.offer("spring"), last(plain)
    at = results(approved, Workshop(approved.home).outcome)
    waiting = at.received(offer, plan)
    assert isinstance(waiting, Waiting) and (waiting.reason, waiting.retry_s) == ("measures what the run came to", 30)
    approved.home.paused.touch()
    at.settle()
    waiting = at.received(offer, plan)
    assert isinstance(waiting, Waiting) and (waiting.reason, waiting.retry_s) == ("measures what the run came to when it may train", 900)
    approved.home.paused.unlink()
    at.settle()
    receipt, (known,) = at.received(offer, plan), outcomes(approved.home).values()
    assert isinstance(receipt, Receipt) and receipt.told is not None
    assert receipt.told.model_dump(mode="json") == {name: known[name] for name in ("confidence", "measure", "levels", "gain")}
    (event,) = (event for event in approved.journal.events() if isinstance(event, OutcomeTold))
    assert (event.run, event.to, event.outcome) == ("spring", "north_west", receipt.told)
    assert f"what it came to was told to north_west: the base model alone: AUROC {receipt.told.levels.base}; " in told_of(event)
    assert wire.live_answer_from_bytes(wire.answer_to_bytes(receipt)) == receipt


@pytest.mark.parametrize(
    ("said", "told"),
    [(TELLS, True), ("[policy]\ntell_outcome = true\nmin_patients = 1000\n", False), ("", False)],
)
def test_numbers_of_few_patients_are_not_told(approved: Offers, plain: Asks, site_file: Path, said: str, told: bool) -> None:
    offer, plan = approved.offer("spring"), last(plain)
    at = results(approved, Workshop(approved.home).outcome)
    at.received(offer, plan)
    at.settle()
    rewrite(site_file, "[data]", f"{said}\n[data]")
    receipt = at.received(offer, plan)
    assert isinstance(receipt, Receipt) and (receipt.told is not None) is told
    assert any(isinstance(event, OutcomeTold) for event in approved.journal.events()) is told


def test_a_site_that_cannot_measure_what_a_run_came_to_has_it_all_the_same(approved: Offers, plain: Asks, site_file: Path) -> None:
    rewrite(site_file, "[data]", TELLS + "\n[data]")
    at = results(approved, lambda *_: {})
    assert isinstance(at.received(approved.offer("spring"), last(plain)), Waiting)
    at.settle()
    receipt = at.received(approved.offer("spring"), last(plain))
    assert isinstance(receipt, Receipt) and receipt.told is None
