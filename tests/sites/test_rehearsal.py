"""`rainhill rehearse` as a person runs it: to its end, and away from it at any moment."""

import os
import random
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sites import namespaces
from tests.sites.peers import COMMAND, Done, run, until
from tests.sites.phantoms import REHEARSAL, small

SMALL = REHEARSAL.replace("count = 5", "count = 2")
SITES = ("bury", "oldham")
LINES = 50
"""About so many are printed in a rehearsal of two hospitals before its first round."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rehearsal")
    small(folder / "sites")
    (folder / "rehearsal.toml").write_text(SMALL)
    return folder


@pytest.fixture
def mark() -> Iterator[str]:
    """In the environment of all that a test starts, and of nothing else."""
    mark = uuid.uuid4().hex
    yield mark
    for process in alive(mark):
        os.kill(process, signal.SIGKILL)


def alive(mark: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"RAINHILL_MARK={mark}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def rehearse(world: Path, mark: str, *arguments: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "RAINHILL_MARK": mark, "RAINHILL_CACHE": str(world / "cache"), "PYTHONUNBUFFERED": "1"}
    command = [COMMAND, "rehearse", "rehearsal.toml", "--sites", "sites", "--out", "out", *arguments]
    return subprocess.Popen(command, cwd=world, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def read_on(process: "subprocess.Popen[str]", until_line: Callable[[int, str], bool]) -> str:
    assert process.stdout is not None
    printed = ""
    for number, line in enumerate(process.stdout):
        printed += line
        if until_line(number, line):
            break
    return printed


# There, over cables of their own, the same commands come to the same adapter.
@pytest.mark.skipif(
    not namespaces.lacking(), reason="tests/sites/test_namespaces.py goes all the way, where network namespaces can be made"
)
def test_a_rehearsal_goes_from_films_to_the_adapter_that_a_simulation_comes_to(world: Path, mark: str) -> None:
    with rehearse(world, mark, "--compare") as process:
        printed = read_on(process, lambda *_: False)
    assert process.returncode == 0, printed
    assert "round 2: 2 of 2 sites" in printed
    assert "the two shared adapters differ by at most 0\n" in printed
    for site in SITES:
        assert f"{site}$ rainhill site approve {site}.toml rehearsal --by 'Ada Lovelace'\n     run rehearsal is approved" in printed
    assert re.search(r"what leaves +\d+ tensors \(.*: at most \d+ numbers", printed, re.DOTALL)
    assert len(re.findall(r"rehearsal round [12]: update [0-9a-f]{12} left for rehearsal, approved by Ada Lovelace", printed)) == 2
    assert "entries hold, the newest has hash" in printed
    assert not alive(mark)
    # Where to look further is said in commands, and those that were printed are all that were needed.
    last = re.findall(r"^  cd (\S+) && rainhill (.*)$", printed, re.MULTILINE)
    assert len(last) == 6
    for folder, command in last:
        if "pending" not in command:
            run(*command.split(), cwd=Path(folder))
    assert 'bind = "127.0.0.1"' in (world / "out/hub/coordinator/coordinator.toml").read_text()


@pytest.mark.parametrize(
    ("words", "how"),
    [("$ rainhill phantom", signal.SIGINT), (None, signal.SIGINT), ("each hospital trains on its own films", signal.SIGKILL)],
)
def test_nothing_is_left_of_a_rehearsal_that_is_ended_at_any_moment(world: Path, mark: str, words: str | None, how: signal.Signals) -> None:
    draw = random.Random()
    wanted = draw.randrange(LINES)
    with rehearse(world, mark) as process:
        printed = read_on(process, lambda at, line: words in line if words else at == wanted)
        threading.Event().wait(draw.uniform(0.0, 2.0))
        process.send_signal(how)
        printed += read_on(process, lambda *_: False)
    assert process.returncode == (2 if how == signal.SIGINT else -how), printed
    assert "Traceback" not in printed
    if how == signal.SIGINT:
        assert printed.endswith("rainhill: stopped\n")
        assert not alive(mark), printed
    assert until(lambda: not alive(mark), within_s=120), printed


def test_a_folder_that_holds_something_else_is_left_alone(world: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    said = run("rehearse", "--out", tmp_path, cwd=world, code=2).stderr
    assert said == f"rainhill: {tmp_path}: is there, and is no rehearsal's; choose another --out\n"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_command_that_fails_ends_the_rehearsal_with_what_it_said(world: Path, mark: str) -> None:
    (world / "thirsty.toml").write_text(SMALL.replace("epsilon = 8", "epsilon = 80"))
    environment = {**os.environ, "RAINHILL_MARK": mark, "RAINHILL_CACHE": str(world / "cache")}
    command = [COMMAND, "rehearse", "thirsty.toml", "--sites", "sites", "--out", "out"]
    done: Done = subprocess.run(command, cwd=world, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("rainhill: ")]
    assert "`rainhill site approve bury.toml rehearsal --by Ada Lovelace`" in line and "80" in line
    assert until(lambda: not alive(mark))


def test_a_child_whose_parent_is_gone_before_it_looks_ends() -> None:
    done = subprocess.run([sys.executable, "-P", "-m", "sites.processes", "1", "--version"], capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGTERM and not done.stdout
