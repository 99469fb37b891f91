"""What a run came to, as a site is brought it: kept where it is of what was approved, settled once, and told to nobody else."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.home import LAST, SiteHome, outcomes
from client.offers import Offers
from client.results import Settling, received
from client.workshop import Workshop
from rainhill.adapter import Adapter
from rainhill.errors import RefusedError
from rainhill.messages import Plan
from tests.client.hospital import Asks, offers, rewrite


@pytest.fixture
def approved(site_file: Path, plain: Asks) -> Offers:
    at = offers(site_file)
    at.take(plain.sealed())
    at.approve("spring", by="Grace")
    return at


def last(plain: Asks, **changes: object) -> Plan:
    """Of two rounds, the one that follows."""
    return replace(plain.plan(2), **{"round": 3, **changes})


def test_a_result_is_kept_as_it_was_brought(approved: Offers, plain: Asks) -> None:
    offer, plan = approved.offer("spring"), last(plain)
    receipt = received(approved.home, approved.journal, offer, plan)
    assert (receipt.round, receipt.adapter) == (3, plan.adapter.fingerprint())
    assert (approved.home.run("spring") / LAST).stat().st_mode & 0o077 == 0


def test_a_result_that_nobody_approved_or_that_is_of_something_else_is_not_kept(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    offer = at.take(plain.sealed())
    with pytest.raises(RefusedError, match="run spring: has a result, and nobody at bury has approved it"):
        received(at.home, at.journal, offer, last(plain))
    at.approve("spring", by="Grace")
    head = {
        name: np.zeros((len(array) + 1, *array.shape[1:]), np.float32) for name, array in plain.first.items() if name.startswith("head.")
    }
    wider = plain.first.replace(head)
    with pytest.raises(RefusedError, match="plan's adapter: "):
        received(at.home, at.journal, offer, last(plain, adapter=wider))
    with pytest.raises(RefusedError, match="plan is for recipe 000000000000"):
        received(at.home, at.journal, offer, last(plain, recipe="0" * 64))
    at.decline("spring", by="Grace", reason="no longer")
    with pytest.raises(RefusedError, match="nobody at bury has approved it"):
        received(at.home, at.journal, offer, last(plain))
    assert not (at.home.run("spring") / LAST).exists()


def test_a_result_is_settled_when_it_may_be_and_what_fails_is_not_tried_for_ever(approved: Offers, plain: Asks, site_file: Path) -> None:
    received(approved.home, approved.journal, approved.offer("spring"), last(plain))
    asked: list[Plan] = []

    def fails(sealed: bytes, plan: Plan) -> dict[str, Any]:
        assert sealed == approved.sealed("spring")
        asked.append(plan)
        return {}

    settling = Settling(home=approved.home, journal=approved.journal, find_out=fails)
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
    received(approved.home, approved.journal, approved.offer("spring"), plan)
    before = len(approved.journal.events())
    settling = Settling(home=approved.home, journal=approved.journal, find_out=Workshop(approved.home).outcome)
    settling.settle()
    (found,) = outcomes(approved.home).values()
    assert (found["run"], found["adapter"], found["held_out"]) == ("spring", plan.adapter.fingerprint(), "test")
    assert set(found["auroc"]) == {"base", "shared", "private"} and found["patients"] > 0
    folder = approved.home.run("spring")
    assert Adapter.from_bytes((folder / "shared.safetensors").read_bytes()) == plan.adapter
    assert Adapter.from_bytes((folder / "private.safetensors").read_bytes()).fingerprint() == found["private"]
    assert len(approved.journal.events()) == before
    # A daemon that is started again has nothing left to do.
    again = Settling(home=SiteHome.open(approved.home.file), journal=approved.journal, find_out=lambda *_: pytest.fail("asked again"))
    again.settle()
    assert datetime.now(UTC) > datetime.fromtimestamp((folder / "outcome.json").stat().st_mtime, UTC)
