"""What an operator types to offer a run, look at it, stop it and go on; as `rainhill coordinator` runs it, in one process."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tomli_w
from click.testing import CliRunner, Result

from rainhill.errors import ConfigError, ProtocolError, RainhillError, RefusedError
from rainhill.told import Gains, Interval, Levels, Measure, Told
from server._cli import coordinator
from server.database import Database
from server.home import Home, begin
from server.registry import Registry
from server.runs import Runs
from server.tables import RECEIVED
from tests.server.conftest import free_port
from tests.server.offers import adapter, enrol, recipe, record

Typed = Callable[..., Result]


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Home:
    address = {"host": "localhost", "bind": "127.0.0.1", "port": free_port(), "private_port": free_port()}
    return begin(tmp_path_factory.mktemp("hub") / "coordinator", {"name": "north_west", "address": address})


@pytest.fixture
def runs(founded: Home, tmp_path: Path) -> Iterator[Runs]:
    """A coordinator in `tmp_path` with two sites, a recipe and an adapter beside it."""
    folder = tmp_path / "coordinator"
    folder.mkdir()
    (folder / "keys").symlink_to(founded.folder / "keys")
    (folder / "coordinator.toml").write_bytes((founded.folder / "coordinator.toml").read_bytes())
    (tmp_path / "spring.toml").write_text(tomli_w.dumps(recipe().model_dump(mode="json", exclude_none=True)))
    (tmp_path / "first.safetensors").write_bytes(adapter().to_bytes())
    database = Database.open(f"sqlite:///{folder / 'rainhill.sqlite'}")
    enrol(Registry(database=database), "bury", "oldham")
    yield Runs(database=database)
    database.close()


@pytest.fixture
def typed(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUDO_USER", "ada")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(coordinator, arguments, standalone_mode=False)

    return run


def said(result: Result) -> str:
    if result.exception is not None:
        raise result.exception
    return result.stdout


def refused(result: Result, kind: type[RainhillError]) -> str:
    """`rainhill` tells these in one line, with exit code 2."""
    assert isinstance(result.exception, kind) and "\n" not in str(result.exception), result.exception
    return str(result.exception)


OFFER = ("run", "spring.toml", "--adapter", "first.safetensors", "--name", "spring-1")


def test_a_run_is_offered_and_its_operator_is_told_what_comes_next(typed: Typed, runs: Runs) -> None:
    first, second, third, last = said(typed(*OFFER)).splitlines()
    assert first == f"spring-1: recipe spring, {recipe().sha256[:12]}, is offered to 2 sites: bury, oldham"
    assert second.startswith(f"It begins from adapter {adapter().fingerprint()[:12]}, and can be approved until 2")
    assert "`rainhill site pending`" in third and "`rainhill coordinator status spring-1`" in last
    run = runs.run("spring-1")
    assert (run.state, run.by, (run.until - run.made).days) == ("offered", "ada", 14)
    assert "ada: run spring-1" in said(typed("log"))
    assert refused(typed(*OFFER), RefusedError).startswith("run spring-1: the name is taken by recipe ")


def test_a_run_is_offered_to_whom_and_for_how_long_it_is_said(typed: Typed) -> None:
    about = json.loads(said(typed(*OFFER, "--site", "oldham", "--days", "3", "--json")))
    assert [site["name"] for site in about["sites"]] == ["oldham"] and about["until"][:10] > about["made"][:10]
    assert "no site 'buri' is enrolled, did you mean 'bury'" in refused(typed(*OFFER, "--site", "buri"), RefusedError)
    begun = said(typed("run", "spring.toml", "--adapter", "first.safetensors")).partition(":")[0]
    assert begun.startswith("spring-2")


def test_files_that_are_no_recipe_and_no_adapter_are_refused_by_name(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("name = ")
    assert refused(typed("run", "broken.toml", "--adapter", "first.safetensors"), ConfigError).startswith("broken.toml: not valid TOML")
    assert refused(typed("run", "spring.toml", "--adapter", "spring.toml"), ProtocolError).startswith(
        "spring.toml: not a safetensors adapter"
    )
    assert isinstance(typed("run", "spring.toml", "--adapter", "none.safetensors").exception, FileNotFoundError)
    assert said(typed("status", "--json")) == "[]\n"


def test_the_status_of_all_runs_is_a_line_each(typed: Typed, runs: Runs) -> None:
    empty = typed("status")
    assert (empty.stdout, empty.stderr) == ("", "no run was offered yet: `rainhill coordinator run` offers one\n")
    said(typed(*OFFER))
    runs.begin("spring-1")
    runs.record("spring-1", record(1), adapter="2" * 64)
    runs.says("spring-1", "round 2: waits for bury")
    said(typed(*OFFER[:-1], "spring-2"))
    newer, older = said(typed("status")).splitlines()
    assert newer.split() == ["spring-2", "offered", "0", "of", "3", "rounds"]
    assert older.split() == ["spring-1", "running", "1", "of", "3", "rounds", "round", "2:", "waits", "for", "bury"]
    assert [(one["name"], one["rounds_done"]) for one in json.loads(said(typed("status", "--json")))] == [("spring-2", 0), ("spring-1", 1)]


def test_the_status_of_one_run_says_who_stands_how_and_who_was_left_out_of_which_round(typed: Typed, runs: Runs) -> None:
    said(typed(*OFFER))
    runs.stand("spring-1", "bury", "approved", "")
    runs.stand("spring-1", "oldham", "waiting", "its hours are 20:00 to 06:00")
    runs.begin("spring-1")
    runs.record("spring-1", record(1), adapter="2" * 64)
    runs.record("spring-1", record(2, answered=("bury",), refused={"oldham": "no\x1b[2J answer"}), adapter="3" * 64)
    runs.says("spring-1", "round 3: waits for oldham")
    lines = said(typed("status", "spring-1")).splitlines()
    assert lines[0] == "spring-1: running: round 3: waits for oldham"
    assert lines[1].startswith(f"recipe {recipe().sha256[:12]}, offered by ada on 2")
    assert lines[3].split()[:3] == ["bury", "approved", "since"]
    assert lines[4].split()[:2] == ["oldham", "waiting"] and lines[4].endswith("UTC  its hours are 20:00 to 06:00")
    assert lines[5:] == [
        "2 of 3 rounds done, 12.00 MiB down, 3.00 MiB up",
        "     1  2 of 2 sites      12.5 s  6.00 MiB down, 2.00 MiB up",
        "     2  1 of 2 sites      12.5 s  6.00 MiB down, 1.00 MiB up",
        r"        without oldham: 'no\x1b[2J answer'",
    ]
    about = json.loads(said(typed("status", "spring-1", "--json")))
    assert (about["state"], about["rounds_asked"], about["rounds_done"], about["result"]) == ("running", 3, 2, None)
    assert about["rounds"][1] == {
        "round": 2,
        "asked": ["bury", "oldham"],
        "answered": ["bury"],
        "left_out": {"oldham": "no\x1b[2J answer"},
        "down_bytes": {"bury": 3 * 2**20, "oldham": 3 * 2**20},
        "up_bytes": {"bury": 2**20},
        "seconds": 12.5,
        "adapter": "3" * 64,
    }
    runs.finish("spring-1", "4" * 64)
    assert said(typed("status", "spring-1")).splitlines()[-1].endswith(f"UTC with adapter {'4' * 64}")
    assert refused(typed("status", "spring-2"), RefusedError) == "there is no run 'spring-2', did you mean 'spring-1'?"


@pytest.mark.parametrize(("measure", "title"), [("auroc", "AUROC, mean over findings"), ("label_f1", "label F1 of drafts")])
def test_the_status_of_a_run_says_what_it_came_to_where_a_site_tells_it(typed: Typed, runs: Runs, measure: Measure, title: str) -> None:
    said(typed(*OFFER))
    runs.begin("spring-1")
    runs.finish("spring-1", "4" * 64)
    level, gain = Interval(value=0.8, low=0.75, high=0.85), Interval(value=0.1, low=0.02, high=0.17)
    levels, gains = Levels(base=level, shared=level, private=None), Gains(shared=gain, private=None)
    told = Told(confidence=0.95, measure=measure, levels=levels, gain=gains)
    runs.deliver("spring-1", "bury", RECEIVED, told)
    runs.deliver("spring-1", "oldham", RECEIVED)
    lines = [line.strip() for line in said(typed("status", "spring-1")).splitlines()]
    at = lines.index(f"{title}, 95 % intervals:")
    assert lines[at + 1] == "the base model alone           0.800 [0.750, 0.850]"
    assert lines[at + 2] == "with the shared adapter        0.800 [0.750, 0.850], +0.100 [+0.020, +0.170] over the base: better"
    assert lines[at + 3] == "with the site's own part too   cannot be measured" and lines.count(lines[at]) == 1
    bury, oldham = json.loads(said(typed("status", "spring-1", "--json")))["sites"]
    assert bury["told"]["measure"] == measure and bury["told"]["levels"]["base"] == {"value": 0.8, "low": 0.75, "high": 0.85}
    assert bury["told"]["gain"]["shared"] == {"value": 0.1, "low": 0.02, "high": 0.17} and oldham["told"] is None


def test_a_run_is_stopped_with_a_reason_and_resumed(typed: Typed, runs: Runs) -> None:
    said(typed(*OFFER))
    assert said(typed("stop", "spring-1", "--reason", "a wrong base")).startswith(
        "spring-1 is stopped. `rainhill coordinator resume spring-1`"
    )
    assert said(typed("status", "spring-1")).startswith("spring-1: stopped: a wrong base\n")
    assert "is stopped; only one that is offered or running becomes stopped" in refused(
        typed("stop", "spring-1", "--reason", "x"), RefusedError
    )
    assert said(typed("resume", "spring-1")) == "spring-1 is offered again.\n"
    runs.begin("spring-1")
    runs.record("spring-1", record(1), adapter="2" * 64)
    runs.fail("spring-1", "no quorum")
    assert said(typed("resume", "spring-1")) == "spring-1 is running again, after 1 of 3 rounds.\n"
    assert "is running; only one that is stopped or failed" in refused(typed("resume", "spring-1"), RefusedError)
    what = [(one["by"], one["what"], one.get("reason")) for one in json.loads(said(typed("log", "--json")))][2:]
    assert what == [("ada", "run", None), ("ada", "stop", "a wrong base"), ("ada", "resume", None), ("ada", "resume", None)]


@pytest.mark.parametrize("command", ["run", "status", "stop", "resume"])
def test_the_help_of_a_command_says_what_it_does(typed: Typed, command: str) -> None:
    assert len(said(typed(command, "-h")).splitlines()) > 4
    assert f"  {command} " in said(typed("-h"))
