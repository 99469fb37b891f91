"""Lists of runs and acts by the page, on both databases; and rounds that are read once."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from server.database import Database
from server.history import KEPT, History
from server.listing import Listing
from server.registry import Registry
from server.runs import ACTIVE, Runs
from tests.server.offers import enrol, offer, recipe, record, sealed

START = datetime.now(UTC) - timedelta(days=20)


@pytest.fixture
def runs(opened: Callable[[], Database]) -> Runs:
    database = opened()
    enrol(Registry(database=database), "bury", "oldham")
    found = Runs(database=database)
    for days in range(5):
        made = offer(f"run-{days}", made=START + timedelta(days=days), recipe=recipe(title="", rounds={"count": days + 1, "steps": 4}))
        found.offer(made, sealed(made), by="ada")
    return found


def test_runs_are_listed_a_page_at_a_time_with_what_is_done(runs: Runs) -> None:
    listing = Listing(database=runs.database)
    runs.begin("run-4")
    runs.record("run-4", record(1), adapter="2" * 64)
    runs.fail("run-1", "no room on the disk")
    first, last = listing.runs(count=2), listing.runs(count=2, skip=4)
    assert [one.name for one in first] == ["run-4", "run-3"] and [one.name for one in last] == ["run-0"]
    assert (first[0].title, first[0].state, first[0].done, first[0].asked, first[0].by) == ("spring", "running", 1, 5, "ada")
    assert first[0].moved > first[0].made and (last[0].done, last[0].deadline_s) == (0, 3600)
    assert [one.name for one in listing.runs(count=9, states=("failed",))] == ["run-1"]
    assert len(listing.runs(count=9, states=ACTIVE)) == 4 and listing.states() == {"offered": 3, "running": 1, "failed": 1}


def test_the_run_before_is_the_newest_of_the_same_recipe_name(runs: Runs) -> None:
    listing = Listing(database=runs.database)
    # Its name is that of the others' task: what is inside a recipe is not its name.
    other = offer("other", made=START + timedelta(days=9), recipe=recipe(name="findings"))
    runs.offer(other, sealed(other), by="ada")
    late = offer("late", made=START + timedelta(days=10))
    earlier = listing.earlier(runs.offer(late, sealed(late), by="ada"))
    assert earlier is not None and earlier.name == "run-4" and earlier.recipe["rounds"]["count"] == 5
    assert listing.earlier(runs.run("run-0")) is None and listing.earlier(runs.run("other")) is None


def test_a_result_that_is_long_at_no_site_is_told(runs: Runs) -> None:
    listing, later = Listing(database=runs.database), datetime.now(UTC) + timedelta(hours=2)
    runs.begin("run-2")
    runs.finish("run-2", "4" * 64)
    runs.deliver("run-2", "bury", "received")
    assert listing.undelivered(later, after=timedelta(hours=1)) == (("run-2", "oldham"),)
    assert listing.undelivered(later, after=timedelta(hours=3)) == listing.undelivered(later + timedelta(days=40), after=timedelta(0)) == ()


def test_acts_and_stands_are_listed_the_newest_first(runs: Runs) -> None:
    listing = Listing(database=runs.database)
    runs.stand("run-3", "bury", "approved", "")
    runs.stop("run-3", reason="for now", by="grace")
    assert [(event.by, event.what, event.subject) for event in listing.events(count=2)] == [
        ("grace", "stop", "run-3"),
        ("ada", "run", "run-4"),
    ]
    assert [event.subject for event in listing.events(count=9, skip=6)] == ["oldham", "bury"]
    assert [event.what for event in listing.events(count=9, subject="run-3", what=("stop",))] == ["stop"]
    assert [(run, state) for run, state, _ in listing.stands_of("bury", count=2)] == [("run-4", "away"), ("run-3", "approved")]


def test_a_round_is_read_once_and_again_where_it_is_done_again(runs: Runs) -> None:
    history = History(runs.database)
    for number in (1, 2):
        runs.record("run-4", record(number), adapter=f"{number:064x}")
    before = history.rounds("run-4")
    runs.record("run-4", replace(record(2), seconds=99.0), adapter="9" * 64)
    after = history.rounds("run-4")
    assert list(before) == list(after) == [1, 2] and after[1] is before[1]
    assert (after[2].record.seconds, after[2].adapter) == (99.0, "9" * 64)
    # Of runs that nobody looks at any more nothing is kept.
    for number in range(KEPT):
        assert history.rounds(f"none-{number}") == {}
    assert history.rounds("run-4")[1] is not before[1]
