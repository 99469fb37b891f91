"""Processes that are kept running: real ones, which are ended in every way that a process can end."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rainhill import supervise
from rainhill.errors import RefusedError
from rainhill.files import held
from rainhill.supervise import Child, keep_running

ROOT = Path(__file__).parents[2]
SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"


def until(condition: Callable[[], bool], within_s: float = 20.0) -> bool:
    stop = time.monotonic() + within_s
    while not condition() and time.monotonic() < stop:
        time.sleep(0.02)
    return condition()


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that has ended and whose parent has not asked is there, and does nothing.
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch):
    """Supervises in a thread, as `serve` does in its main one."""
    monkeypatch.setattr(supervise, "LOOK_S", 0.02)
    monkeypatch.setattr(supervise, "PAUSE_S", (0.1, 0.4))
    stop, threads = threading.Event(), []

    def keep(*children: Child) -> threading.Event:
        threads.append(threading.Thread(target=keep_running, args=(children,), kwargs={"stop": stop}))
        threads[-1].start()
        return stop

    yield keep
    stop.set()
    for thread in threads:
        thread.join()


def test_a_process_that_is_killed_is_started_again_and_what_ended_it_is_said(kept) -> None:
    child = Child(name="sleeper", command=SLEEPS, _pause=0.1)
    kept(child)
    assert until(lambda: child.running)
    first = child.pid
    # Ctrl-C at a terminal goes to all of a group.
    assert first is not None and os.getpgid(first) == first != os.getpgrp()
    os.kill(first, signal.SIGKILL)
    assert until(lambda: child.starts == 2 and child.running)
    assert child.ended == "signal SIGKILL"
    assert child.pid != first


def test_the_pause_grows_while_a_process_keeps_ending(kept) -> None:
    child = Child(name="ends", command=[sys.executable, "-c", "raise SystemExit(3)"], _pause=0.1)
    kept(child)
    assert until(lambda: child.starts >= 4)
    assert child.ended == "exit code 3"
    assert child._pause == 0.4


def test_those_that_are_kept_are_stopped_with_the_one_who_keeps_them_the_last_first(kept, tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    open(sys.argv[1], 'a').write(sys.argv[2]); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "open(sys.argv[1] + sys.argv[2], 'w').close()\n"
        "time.sleep(600)\n"
    )
    children = [Child(name=name, command=[sys.executable, "-c", script, str(tmp_path / "log"), name]) for name in "ab"]
    stop = kept(*children)
    assert until(lambda: (tmp_path / "loga").exists() and (tmp_path / "logb").exists())
    stop.set()
    assert until(lambda: not any(child.running for child in children))
    assert (tmp_path / "log").read_text() == "ba"


def test_one_that_does_not_listen_is_ended_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "STOP_S", 0.5)
    child = Child(name="deaf", command=[sys.executable, "-c", DEAF])
    child.look(time.monotonic())
    assert until(lambda: child.running)
    time.sleep(0.5)
    child.stop()
    assert not child.running
    assert child._process is not None and child._process.returncode == -signal.SIGKILL


def test_a_process_ends_by_itself_when_whoever_started_it_is_killed(tmp_path: Path) -> None:
    inner = "from rainhill.supervise import end_with_parent; import os, sys, time; end_with_parent(os.getppid()); open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    outer = textwrap.dedent(
        """
        import subprocess, sys, time
        subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]])
        time.sleep(600)
        """
    )
    noted = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", outer, inner, str(noted)], cwd=ROOT)
    assert until(lambda: noted.exists() and noted.read_text() != "")
    pid = int(noted.read_text())
    assert is_there(pid)
    parent.kill()
    parent.wait()
    assert until(lambda: not is_there(pid))


def test_one_whose_parent_was_gone_before_it_looked_ends_too() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    script = "import sys, time; from rainhill.supervise import end_with_parent; end_with_parent(int(sys.argv[1])); time.sleep(600)"
    orphan = subprocess.run([sys.executable, "-c", script, str(gone.pid)], cwd=ROOT, check=False, timeout=30)
    assert orphan.returncode == -signal.SIGTERM


def test_one_that_waits_for_what_has_gone_too_is_ended_when_its_parent_is_gone() -> None:
    script = textwrap.dedent(
        """
        import time
        from rainhill import supervise
        supervise.STOP_S = 0.5
        supervise.stopped_by_signals()
        supervise.end_with_parent(1_000_000_000)
        time.sleep(600)
        """
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, timeout=30).returncode == -signal.SIGKILL


def test_a_folder_is_held_by_one_process_and_another_is_told_which(tmp_path: Path) -> None:
    with held(tmp_path / "serve.lock", "a coordinator"):
        code = (
            "import sys; from pathlib import Path; from rainhill.files import held\n"
            "with held(Path(sys.argv[1]) / 'serve.lock', 'a coordinator'): pass"
        )
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
        )
        assert f"a coordinator is running in this folder already, as process {os.getpid()}" in other.stderr
    with held(tmp_path / "serve.lock", "a coordinator"):
        pass


def test_whoever_holds_a_folder_may_be_killed_and_lets_go_of_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from rainhill.files import held\n"
        "with held(Path(sys.argv[1]) / 'serve.lock', 'a coordinator'): print('held', flush=True); time.sleep(600)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(RefusedError, match=f"as process {other.pid}"), held(tmp_path / "serve.lock", "a coordinator"):
        pass
    other.kill()
    other.wait()
    other.stdout.close()
    with held(tmp_path / "serve.lock", "a coordinator"):
        pass
