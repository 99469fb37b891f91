"""A run that is watched: each change once, in order, in a terminal and in a pipe, by the real command."""

import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from server.database import Database
from server.home import begin
from server.registry import Registry
from server.runs import Runs
from server.watch import changes, look
from tests.server.conftest import free_port
from tests.server.offers import enrol, offer, record, sealed
from tests.sites.peers import COMMAND, run


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the coordinator's."""
    folder = tmp_path_factory.mktemp("hub")
    address = {"host": "localhost", "bind": "127.0.0.1", "port": free_port(), "private_port": free_port()}
    begin(folder / "coordinator", {"name": "north_west", "address": address})
    return folder


@pytest.fixture(scope="module")
def runs(hub: Path) -> Iterator[Runs]:
    database = Database.open(f"sqlite:///{hub / 'coordinator' / 'rainhill.sqlite'}")
    enrol(Registry(database=database), "bury", "oldham")
    yield Runs(database=database)
    database.close()


def offered(runs: Runs, name: str) -> str:
    made = offer(name)
    runs.offer(made, sealed(made), by="ada")
    return name


def watching(hub: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [COMMAND, "coordinator", "watch", *arguments], cwd=hub, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_each_change_is_told_once_and_the_runs_own_state_last(runs: Runs) -> None:
    first = look(runs, offered(runs, "spring"))
    assert [one.what for one in changes(None, first)] == ["site", "site", "run"]
    assert list(changes(first, first)) == [] and not first.is_over
    runs.stand("spring", "bury", "approved", "")
    runs.begin("spring")
    runs.record("spring", record(1, answered=["bury"], refused={"oldham": "is not in contact"}), adapter="1" * 64)
    second = look(runs, "spring")
    assert [one.words for one in changes(first, second)] == [
        "bury approved",
        "round 1 of 3: 1 of 2 sites, 12.5 s; without oldham: is not in contact",
        "running",
    ]
    runs.says("spring", "too few answered")
    third = look(runs, "spring")
    assert [one.words for one in changes(second, third)] == ["running: too few answered"]
    over = replace(third, run=replace(third.run, state="finished", words="", result="a" * 64))
    assert over.is_over and [one.words for one in changes(third, over)] == [f"finished with adapter {'a' * 64}"]


def test_a_pipe_gets_a_line_for_each_change_until_the_run_is_over(runs: Runs, hub: Path) -> None:
    name = offered(runs, "summer")
    process = watching(hub, name, "--json")
    assert process.stdout is not None
    told = [json.loads(process.stdout.readline()) for _ in range(3)]
    assert [one["what"] for one in told] == ["site", "site", "run"] and {one["run"] for one in told} == {name}
    runs.begin(name)
    assert json.loads(process.stdout.readline())["state"] == "running"
    runs.record(name, record(1), adapter="1" * 64)
    runs.finish(name, "b" * 64)
    rest = [json.loads(line) for line in process.communicate(timeout=60)[0].splitlines()]
    assert process.returncode == 0
    assert [one["what"] for one in rest if one["what"] == "round"] == ["round"]
    assert rest[-1]["state"] == "finished" and rest[-1]["result"] == "b" * 64


def test_a_run_that_was_stopped_ends_the_watching_with_exit_code_1(runs: Runs, hub: Path) -> None:
    name = offered(runs, "autumn")
    runs.stop(name, reason="the scanner moved", by="ada")
    lines = run("coordinator", "watch", name, cwd=hub, code=1).stdout.splitlines()
    assert lines[-1].endswith(" UTC  autumn: stopped: the scanner moved")
    assert "there is no run 'autum', did you mean 'autumn'?" in run("coordinator", "watch", "autum", cwd=hub, code=2).stderr


def test_without_a_name_all_that_go_on_are_followed_and_ctrl_c_ends_the_watching_alone(runs: Runs, hub: Path) -> None:
    for one in runs.active():
        runs.stop(one.name, reason="of another test", by="ada")
    assert "no run is offered or running" in run("coordinator", "watch", cwd=hub).stderr
    names = {offered(runs, "winter"), offered(runs, "easter")}
    with watching(hub, "--json") as process:
        assert process.stdout is not None
        told = [json.loads(process.stdout.readline()) for _ in range(6)]
        assert {one["run"] for one in told} == names
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    assert (process.returncode, out, error.strip()) == (2, "", "rainhill: stopped")
    assert {one.name for one in runs.active()} == names


def test_in_a_terminal_a_run_stays_in_its_place(runs: Runs, hub: Path) -> None:
    name = offered(runs, "whitsun")
    runs.begin(name)
    runs.record(name, record(1), adapter="1" * 64)
    runs.finish(name, "c" * 64)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, "coordinator", "watch", name],
        cwd=hub,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    shown, stop = b"", time.monotonic() + 60
    while time.monotonic() < stop:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                shown += os.read(ours, 4096)
            except OSError:
                # Of a terminal that nobody writes to any more.
                break
    os.close(ours)
    assert process.wait(10) == 0
    text = shown.decode()
    assert name in text and "━" in text and "round 1 of 3: 2 of 2 sites" in text and f"finished with adapter {'c' * 64}" in text
    # The cursor is there again.
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
