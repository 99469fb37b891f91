"""What is kept of a run: offered once, begun, stopped and resumed only where that fits, and whole whoever else writes at the same time."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from rainhill import signed
from rainhill.errors import DatabaseError, RefusedError
from rainhill.offer import opened_offer
from rainhill.told import Gains, Interval, Levels, Told
from server.database import MIGRATIONS, Database
from server.registry import Registry
from server.runs import DELIVERED_WITHIN, Runs
from server.tables import RECEIVED, RoundRow, RunRow
from tests.server.conftest import Postgres
from tests.server.offers import KEY, NOW, enrol, offer, recipe, record, sealed


@pytest.fixture
def runs(opened: Callable[[], Database]) -> Runs:
    database = opened()
    enrol(Registry(database=database), "bury", "oldham", "wirral")
    return Runs(database=database)


def offered(runs: Runs, name: str = "spring-1", **about: object) -> None:
    made = offer(name, **about)
    runs.offer(made, sealed(made), by="ada")


def acts(runs: Runs) -> list[tuple[str, str, str]]:
    return [(event.by, event.what, event.subject) for event in Registry(database=runs.database).events() if event.what != "enrol"]


def test_a_run_is_kept_as_it_was_offered(runs: Runs) -> None:
    made = offer()
    run = runs.offer(made, sealed(made), by="ada")
    assert (run.name, run.sha256, run.recipe, run.adapter) == ("spring-1", made.recipe.sha256, made.recipe, "1" * 64)
    assert (run.made, run.until, run.by) == (NOW, NOW + timedelta(days=14), "ada")
    assert (run.state, run.words, run.result, run.finished) == ("offered", "", None, None)
    assert opened_offer(run.offer, consortium="north_west", public=signed.public_key(KEY)) == made
    assert runs.run("spring-1") == run and runs.runs() == (run,) == runs.active()
    assert {site: one.state for site, one in runs.standings("spring-1").items()} == {"bury": "away", "oldham": "away"}
    assert runs.rounds("spring-1") == () and runs.adapters("spring-1") == {}
    assert acts(runs) == [("ada", "run", "spring-1")]


def test_a_name_that_is_taken_is_refused_with_both_recipes(runs: Runs) -> None:
    offered(runs)
    other = recipe(rounds={"count": 4, "steps": 4})
    with pytest.raises(RefusedError, match=f"spring-1: the name is taken by recipe {recipe().sha256[:12]}, offered is {other.sha256[:12]}"):
        offered(runs, recipe=other, sites=("wirral",))
    assert runs.run("spring-1").recipe == recipe() and set(runs.standings("spring-1")) == {"bury", "oldham"}
    assert len(acts(runs)) == 1


def test_a_run_is_offered_to_sites_that_are_enrolled(runs: Runs) -> None:
    with pytest.raises(RefusedError, match="no site 'wirrall' is enrolled, did you mean 'wirral'"):
        offered(runs, sites=("bury", "wirrall"))
    assert runs.runs() == () and acts(runs) == []


def test_of_runs_the_newest_comes_first_and_one_that_ended_is_not_active(runs: Runs) -> None:
    for days, name in enumerate(("old", "middle", "new")):
        offered(runs, name, made=NOW + timedelta(days=days))
    runs.begin("middle")
    runs.fail("old", "no room on the disk")
    assert [run.name for run in runs.runs()] == ["new", "middle", "old"]
    assert [(run.name, run.state) for run in runs.active()] == [("new", "offered"), ("middle", "running")]
    with pytest.raises(RefusedError, match="there is no run 'mddle', did you mean 'middle'"):
        runs.run("mddle")


def test_a_run_goes_from_its_offer_to_its_end(runs: Runs) -> None:
    offered(runs)
    runs.says("spring-1", "waits for oldham's approval")
    assert runs.run("spring-1").words == "waits for oldham's approval"
    runs.begin("spring-1")
    assert (runs.run("spring-1").state, runs.run("spring-1").words) == ("running", "")
    runs.says("spring-1", "round 1: waits for bury")
    # As a conductor does that was killed and begins again.
    runs.begin("spring-1")
    assert runs.run("spring-1").words == "round 1: waits for bury"
    runs.finish("spring-1", "2" * 64)
    done = runs.run("spring-1")
    assert (done.state, done.words, done.result) == ("finished", "", "2" * 64) and done.finished is not None
    assert acts(runs) == [("ada", "run", "spring-1")]


def test_a_run_is_stopped_and_resumed_by_somebody_for_a_reason(runs: Runs) -> None:
    offered(runs)
    runs.stop("spring-1", reason="the recipe has a wrong base", by="grace")
    assert (runs.run("spring-1").state, runs.run("spring-1").words) == ("stopped", "the recipe has a wrong base")
    runs.resume("spring-1", by="ada", now=NOW)
    assert (runs.run("spring-1").state, runs.run("spring-1").words) == ("offered", "")
    runs.begin("spring-1")
    runs.record("spring-1", record(1), adapter="2" * 64)
    runs.fail("spring-1", "round 2: 0 of 2 sites gave an update, the quorum is 1")
    assert runs.run("spring-1").words.startswith("round 2: 0 of 2")
    runs.resume("spring-1", by="ada", now=NOW)
    assert runs.run("spring-1").state == "running"
    assert acts(runs) == [
        ("ada", "run", "spring-1"),
        ("grace", "stop", "spring-1"),
        ("ada", "resume", "spring-1"),
        ("ada", "resume", "spring-1"),
    ]
    for reason in ("", "two\nlines", "x" * 201):
        with pytest.raises(RefusedError, match="run spring-1: a reason is a line of 1 to 200 characters"):
            runs.stop("spring-1", reason=reason, by="ada")


def test_a_run_that_can_be_approved_no_more_is_not_offered_again(runs: Runs) -> None:
    offered(runs)
    late = runs.run("spring-1").until + timedelta(minutes=5)
    runs.stop("spring-1", reason="the recipe has a wrong base", by="grace")
    runs.stand("spring-1", "bury", "pending", "waits for somebody")
    before, noted = runs.run("spring-1"), acts(runs)
    quorum = before.recipe.rounds.quorum
    said = (
        "run spring-1: could be approved until 2026-12-06 12:00 UTC, and it is 2026-12-06 12:05 UTC; "
        f"0 of 2 sites have approved it, the quorum is {quorum}: offer its recipe again under another name"
    )
    with pytest.raises(RefusedError, match=f"^{said}$"):
        runs.resume("spring-1", by="ada", now=late)
    assert runs.run("spring-1") == before and acts(runs) == noted
    # Enough had approved it in time, and what they approved goes on.
    for site in ("bury", "oldham")[:quorum]:
        runs.stand("spring-1", site, "approved", "")
    runs.resume("spring-1", by="ada", now=late)
    assert runs.run("spring-1").state == "offered"


def test_a_run_with_a_round_goes_on_whatever_the_time(runs: Runs) -> None:
    offered(runs)
    late = runs.run("spring-1").until + timedelta(days=100)
    runs.begin("spring-1")
    runs.record("spring-1", record(1), adapter="2" * 64)
    runs.fail("spring-1", "no room on the disk")
    runs.resume("spring-1", by="ada", now=late)
    assert runs.run("spring-1").state == "running"


MOVES: dict[str, Callable[[Runs], object]] = {
    "begin": lambda runs: runs.begin("spring-1"),
    "finish": lambda runs: runs.finish("spring-1", "2" * 64),
    "fail": lambda runs: runs.fail("spring-1", "why"),
    "says": lambda runs: runs.says("spring-1", "waits"),
    "stop": lambda runs: runs.stop("spring-1", reason="why", by="ada"),
    "resume": lambda runs: runs.resume("spring-1", by="ada", now=NOW),
}
REFUSED = {
    "offered": {
        "finish": "is offered; only one that is running becomes finished",
        "resume": "is offered; only one that is stopped or failed becomes offered",
    },
    "running": {"resume": "is running; only one that is stopped or failed becomes offered"},
    "stopped": {
        "begin": "is stopped; only one that is offered becomes running",
        "finish": "is stopped; only one that is running becomes finished",
        "fail": "is stopped; only one that is offered or running becomes failed",
        "says": "is stopped, and only one that is offered or running waits for anything",
        "stop": "is stopped; only one that is offered or running becomes stopped",
    },
    "failed": {"begin": "is failed; only one that is offered becomes running", "says": "is failed, and only", "stop": "is failed; only"},
    "finished": dict.fromkeys(MOVES, "is finished"),
}


@pytest.mark.parametrize(("state", "move", "said"), [(state, move, said) for state, all_ in REFUSED.items() for move, said in all_.items()])
def test_what_does_not_fit_a_runs_state_is_refused_with_both_and_changes_nothing(runs: Runs, state: str, move: str, said: str) -> None:
    offered(runs)
    if state in ("running", "finished"):
        runs.begin("spring-1")
    if state == "finished":
        runs.finish("spring-1", "3" * 64)
    elif state == "stopped":
        runs.stop("spring-1", reason="for now", by="ada")
    elif state == "failed":
        runs.fail("spring-1", "no quorum")
    before, noted = runs.run("spring-1"), acts(runs)
    assert before.state == state
    with pytest.raises(RefusedError, match=f"run spring-1: {said}"):
        MOVES[move](runs)
    assert runs.run("spring-1") == before and acts(runs) == noted


@pytest.mark.parametrize("move", MOVES)
def test_a_run_that_is_not_there_is_refused_by_name(runs: Runs, move: str) -> None:
    offered(runs, "spring-2")
    with pytest.raises(RefusedError, match="there is no run 'spring-1', did you mean 'spring-2'"):
        MOVES[move](runs)
    for ask in (runs.standings, runs.rounds, runs.adapters):
        with pytest.raises(RefusedError, match="there is no run 'spring-1'"):
            ask("spring-1")
    with pytest.raises(RefusedError, match="there is no run 'spring-1'"):
        runs.stand("spring-1", "bury", "pending", "")
    with pytest.raises(RefusedError, match="there is no run 'spring-1'"):
        runs.record("spring-1", record(1), adapter="2" * 64)


def test_how_a_site_stands_is_written_where_it_changed(runs: Runs) -> None:
    offered(runs)
    assert runs.stand("spring-1", "bury", "pending", "a person has yet to approve it")
    first = runs.standings("spring-1")["bury"]
    assert (first.site, first.state, first.reason) == ("bury", "pending", "a person has yet to approve it")
    assert not runs.stand("spring-1", "bury", "pending", "a person has yet to approve it")
    assert runs.standings("spring-1")["bury"] == first
    # With another reason it has stood so for as long.
    assert runs.stand("spring-1", "bury", "pending", "its people are asked")
    assert runs.standings("spring-1")["bury"] == replace(first, reason="its people are asked")
    assert runs.stand("spring-1", "bury", "approved", "")
    after = runs.standings("spring-1")
    assert after["bury"].state == "approved" and after["bury"].since > first.since and after["oldham"].state == "away"
    with pytest.raises(RefusedError, match="run spring-1: site 'bry' is not asked, did you mean 'bury'"):
        runs.stand("spring-1", "bry", "approved", "")


def test_what_a_site_says_is_kept_on_one_line_whatever_is_in_it(runs: Runs) -> None:
    offered(runs)
    runs.stand("spring-1", "bury", "refused", "no\0\x1b[2J\n\ud800")
    assert runs.standings("spring-1")["bury"].reason == r"'no\x00\x1b[2J\n\ud800'"
    runs.says("spring-1", "x" * 5000)
    assert len(runs.run("spring-1").words) == 1000
    assert not runs.stand("spring-1", "bury", "refused", "no\0\x1b[2J\n\ud800")


def test_a_result_is_to_be_brought_until_every_site_has_it_or_does_not_take_it(runs: Runs) -> None:
    offered(runs)
    now = datetime.now(UTC)
    assert runs.undelivered(now) == ()
    runs.begin("spring-1")
    assert runs.undelivered(now) == ()
    runs.finish("spring-1", "4" * 64)
    assert [run.name for run in runs.undelivered(now)] == ["spring-1"]
    gain = Interval(value=0.1, low=-0.05, high=0.2)
    levels, gains = Levels(base=None, shared=None, private=None), Gains(shared=gain, private=None)
    told = Told(confidence=0.95, measure="label_f1", levels=levels, gain=gains)
    runs.deliver("spring-1", "bury", RECEIVED, told)
    assert [run.name for run in runs.undelivered(now)] == ["spring-1"]
    # A site that stays away is not waited for for ever.
    assert runs.undelivered(now + DELIVERED_WITHIN + timedelta(minutes=1)) == ()
    runs.deliver("spring-1", "oldham", "was revoked")
    assert runs.undelivered(now) == ()
    assert {site: one.delivered for site, one in runs.standings("spring-1").items()} == {"bury": "received", "oldham": "was revoked"}
    assert {site: one.told for site, one in runs.standings("spring-1").items()} == {"bury": told, "oldham": None}
    with pytest.raises(RefusedError, match="spring-1: site 'wirral' is not asked"):
        runs.deliver("spring-1", "wirral", RECEIVED)


def test_nobody_begins_a_run_that_fewer_sites_have_approved_than_a_round_wants(runs: Runs) -> None:
    offered(runs)
    runs.stand("spring-1", "bury", "pending", "")
    with pytest.raises(RefusedError, match="run spring-1: 0 of 2 sites have approved it, the quorum is 1"):
        runs.begin("spring-1", by="grace")
    assert runs.run("spring-1").state == "offered" and acts(runs) == [("ada", "run", "spring-1")]


def test_an_operator_who_begins_a_run_is_written_down(runs: Runs) -> None:
    offered(runs)
    runs.stand("spring-1", "bury", "approved", "")
    runs.begin("spring-1", by="grace")
    runs.begin("spring-1")
    assert acts(runs) == [("ada", "run", "spring-1"), ("grace", "begin", "spring-1")]


def test_rounds_come_back_as_they_were_and_one_that_is_recorded_again_replaces(runs: Runs) -> None:
    offered(runs)
    second = record(2, answered=("bury",), refused={"oldham": "away\0: no answer"})
    odd = replace(record(3), losses={"bury": float("inf")}, log={"energy": float("-inf")})
    for one in (second, record(1), odd):
        runs.record("spring-1", one, adapter=f"{one.round}" * 64)
    assert runs.rounds("spring-1") == (record(1), second, odd)
    again = replace(record(2), seconds=99.0)
    runs.record("spring-1", again, adapter="9" * 64)
    assert runs.rounds("spring-1") == (record(1), again, odd)
    assert runs.adapters("spring-1") == {1: "1" * 64, 2: "9" * 64, 3: "3" * 64}
    with runs.database.session() as session:
        session.execute(sa.update(RoundRow).where(RoundRow.number == 2).values(record="{}"))
    with pytest.raises(DatabaseError, match="run spring-1: what is kept of round 2 is no record of a round"):
        runs.rounds("spring-1")


def test_a_recipe_that_another_version_reads_as_another_is_refused(runs: Runs) -> None:
    offered(runs)
    with runs.database.session() as session:
        session.execute(sa.update(RunRow).values(sha256="4" * 64))
    with pytest.raises(
        RefusedError, match=f"its recipe has sha256 {recipe().sha256[:12]} in this version of Rainhill, offered was 444444444444"
    ):
        _ = runs.run("spring-1").recipe
    with runs.database.session() as session:
        session.execute(sa.update(RunRow).values(recipe='{"name": "spring"}'))
    # It is listed all the same.
    assert [run.name for run in runs.runs()] == ["spring-1"]
    with pytest.raises(RefusedError, match="this version of Rainhill cannot read its recipe, 444444444444"):
        _ = runs.run("spring-1").recipe


def at_once(*works: Callable[[], object]) -> list[Exception]:
    """Each in a thread of its own, all let go together; the errors that they ended with."""
    gate, failed = threading.Barrier(len(works)), []

    def one(work: Callable[[], object]) -> None:
        gate.wait()
        try:
            work()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


@pytest.fixture
def others(runs: Runs, opened: Callable[[], Database]) -> Iterator[list[Runs]]:
    """As other processes have it: each a connection of its own to the same database."""
    return [Runs(database=opened()) for _ in range(4)]


@pytest.mark.parametrize("time", range(3))
def test_of_many_who_offer_one_name_at_once_one_does(runs: Runs, others: list[Runs], time: int) -> None:
    recipes = [recipe(rounds={"count": rounds, "steps": 4}) for rounds in range(1, 5)]
    failed = at_once(*(lambda one=one, own=own: offered(one, recipe=own) for one, own in zip(others, recipes, strict=True)))
    assert [type(error) for error in failed] == [RefusedError] * 3
    assert all(f"the name is taken by recipe {runs.run('spring-1').sha256[:12]}" in str(error) for error in failed)
    assert len(runs.runs()) == len(acts(runs)) == 1


@pytest.mark.parametrize("time", range(3))
def test_of_many_who_end_a_run_at_once_one_does(runs: Runs, others: list[Runs], time: int) -> None:
    offered(runs)
    runs.begin("spring-1")
    a, b, c, d = others
    failed = at_once(
        lambda: a.finish("spring-1", "2" * 64),
        lambda: b.stop("spring-1", reason="enough", by="ada"),
        lambda: c.fail("spring-1", "no quorum"),
        lambda: d.stop("spring-1", reason="enough", by="grace"),
    )
    assert [type(error) for error in failed] == [RefusedError] * 3
    run = runs.run("spring-1")
    assert (run.state == "finished") == (run.result is not None) == (run.finished is not None)
    assert run.words == {"finished": "", "stopped": "enough", "failed": "no quorum"}[run.state]
    assert len(acts(runs)) == 1 + (run.state == "stopped")


def test_many_who_write_of_one_run_at_once_all_do(runs: Runs, others: list[Runs]) -> None:
    offered(runs)
    runs.begin("spring-1")
    told = []

    def work(one: Runs, number: int) -> None:
        for step in range(5):
            one.record("spring-1", record(step + 1), adapter=f"{number}" * 64)
            told.append(one.stand("spring-1", "bury", "waiting", f"step {step} of {number}"))
            one.says("spring-1", f"{number}: {step}")

    assert at_once(*(lambda one=one, number=number: work(one, number) for number, one in enumerate(others))) == []
    assert [one.round for one in runs.rounds("spring-1")] == [1, 2, 3, 4, 5]
    assert told == [True] * 20
    # What all say alike is news once.
    told.clear()
    assert at_once(*(lambda one=one: told.append(one.stand("spring-1", "bury", "approved", "")) for one in others)) == []
    assert sorted(told) == [False, False, False, True]


def test_a_database_that_is_gone_for_a_while_leaves_nothing_half_done(postgres: Postgres) -> None:
    name = "gone_for_a_while"
    postgres.run("createdb", "-h", "127.0.0.1", "-p", str(postgres.port), "-U", "rainhill", name)
    database = Database.open(postgres.url.removesuffix("/postgres") + f"/{name}")
    try:
        runs = Runs(database=database)
        enrol(Registry(database=database), "bury", "oldham")
        offered(runs)
        runs.begin("spring-1")
        postgres.stop()
        for act in (
            lambda: offered(runs, "spring-2"),
            lambda: runs.record("spring-1", record(1), adapter="2" * 64),
            lambda: runs.stop("spring-1", reason="why", by="ada"),
            lambda: runs.stand("spring-1", "bury", "pending", ""),
            runs.active,
        ):
            with pytest.raises(DatabaseError, match=f"127.0.0.1:{postgres.port}/{name}"):
                act()
        postgres.start()
        assert [(run.name, run.state) for run in runs.active()] == [("spring-1", "running")]
        assert runs.rounds("spring-1") == () and runs.standings("spring-1")["bury"].state == "away"
        assert acts(runs) == [("ada", "run", "spring-1")]
    finally:
        database.close()


def test_a_database_of_sites_alone_takes_runs_and_keeps_its_rows(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            sa.text(
                "INSERT INTO site (name, title, software, protocols, enrolled, reason) "
                "VALUES ('bury', 'Bury General', 'rainhill 0.1.0', '[3]', '2026-01-02 03:04:05', '')"
            )
        )
        connection.execute(
            sa.text("INSERT INTO site_key (id, site, node, signing, since) VALUES (1, 'bury', 'pem', :key, '2026-01-02 03:04:05')"),
            {"key": "a" * 64},
        )
        connection.execute(
            sa.text(
                "INSERT INTO event (id, time, by, what, subject, detail) VALUES (7, '2026-01-02 03:04:05', 'ada', 'enrol', 'bury', '{}')"
            )
        )
    engine.dispose()
    database = Database.open(database_url)
    try:
        registry, runs = Registry(database=database), Runs(database=database)
        assert registry.site("bury").title == "Bury General" and [event.what for event in registry.events()] == ["enrol"]
        made = offer(sites=("bury",))
        runs.offer(made, sealed(made), by="ada")
        assert set(runs.standings("spring-1")) == {"bury"}
    finally:
        database.close()
