"""The training process: a real one, which is killed and left alone."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from client.desk import desk_of
from client.flower.live import _answered
from client.home import SiteHome
from client.privacy.events import Charged
from client.privacy.ledger import KEYS, Ledger
from client.trainer import Trainer
from client.workshop import Workshop
from rainhill.errors import TrainerError
from rainhill.messages import UNTOLD, Refusal, Update
from tests.client.hospital import Asks, asks, offers

WITHIN_S = 120.0


def until(condition: Callable[[], object]) -> bool:
    stop = time.monotonic() + WITHIN_S
    while not condition() and time.monotonic() < stop:
        time.sleep(0.01)
    return bool(condition())


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass
class Asking:
    """A plan that a trainer works on while the test goes on."""

    trainer: Trainer
    given: list[Any]
    thread: threading.Thread

    def ended(self) -> Any:
        self.thread.join(WITHIN_S)
        assert not self.thread.is_alive()
        return self.given[0]


def asking(trainer: Trainer, sealed: bytes, plan: Any) -> Asking:
    given: list[Any] = []

    def ask() -> None:
        try:
            given.append(trainer.answer(sealed, plan))
        except TrainerError as error:
            given.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    return Asking(trainer, given, thread)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def long(recipe_text: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Asks:
    """Two rounds under epsilon 6, of enough steps to be killed in."""
    text = (
        recipe_text(rule="alternating").replace("steps = 4\npatients_per_step = 8", "steps = 30\npatients_per_step = 99")
        + "[privacy]\nepsilon = 6\n"
    )
    return asks(text, tmp_path_factory.mktemp("long"))


@dataclass
class Killed:
    home: SiteHome
    trainer: Trainer
    update: Update
    alone: Update
    """Of this process, on a copy of the site, where nobody was killed."""


@pytest.fixture(scope="module")
def killed(_joined: Path, long: Asks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    """Its process was ended by kill -9 in the middle of a fit."""
    folder = copytree(_joined.parent, tmp_path_factory.mktemp("killed") / "site")
    file = folder / "bury.toml"
    with file.open("a") as text:
        text.write('[privacy]\nepsilon = 8\nnoise = "simulated"\n[compute]\ndevice = "cpu"\nthreads = 1\n')
    home = SiteHome.open(file)
    home.pseudonym_key()
    copy = copytree(folder, folder.with_name("copy")) / "bury.toml"
    trainer = Trainer(site_file=file, idle_s=1.5)
    work = asking(trainer, long.sealed(), long.plan())
    assert until(lambda: list((home.state / KEYS).glob("*.key")))
    assert trainer.pid is not None
    os.kill(trainer.pid, signal.SIGKILL)
    update = work.ended()
    alone = Workshop(SiteHome.open(copy)).answer(long.sealed(), long.plan())
    assert isinstance(update, Update) and isinstance(alone, Update)
    yield Killed(home, trainer, update, alone)
    trainer.close()


def charges(home: SiteHome) -> int:
    return sum(isinstance(event, Charged) for event in Ledger.open(home.state, site="bury").events())


def test_a_process_that_was_killed_in_a_fit_is_started_again_and_gives_the_same_update(killed: Killed) -> None:
    assert killed.trainer.starts == 2
    assert killed.update == killed.alone and killed.update.delta == killed.alone.delta
    assert charges(killed.home) == 1


def test_a_process_with_nothing_to_do_ends_and_is_started_again_when_it_is_wanted(killed: Killed, long: Asks) -> None:
    assert until(lambda: killed.trainer.pid is None)
    again = killed.trainer.answer(long.sealed(), long.plan())
    assert again == killed.update and killed.trainer.starts == 3 and charges(killed.home) == 1


def test_what_goes_wrong_in_a_fit_is_a_refusal_without_its_words(killed: Killed, long: Asks) -> None:
    manifest = killed.home.file.parent / "bury" / "manifest.csv"
    text = manifest.read_text()
    manifest.write_text(text.replace("P7,", ","))
    refusal = killed.trainer.answer(long.sealed(), long.plan(2))
    manifest.write_text(text)
    assert isinstance(refusal, Refusal) and refusal.reason == UNTOLD


def test_a_process_that_is_killed_three_times_is_given_up_and_the_coordinator_told_no_more_than_that(site_file: Path, plain: Asks) -> None:
    at = offers(site_file)
    at.take(plain.sealed())
    at.approve("spring", by="Grace")
    trainer = Trainer(site_file=site_file)
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.01):
            if trainer.pid is not None:
                os.kill(trainer.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        with pytest.raises(TrainerError, match="the training process ended 3 times in round 1, the last time by signal SIGKILL"):
            trainer.answer(plain.sealed(), plain.plan())
        desk = desk_of(at.home, trainer.answer, trainer.outcome)
        refusal = _answered("bury", desk.answer, plain.plan())
    finally:
        stop.set()
        thread.join()
        trainer.close()
    assert isinstance(refusal, Refusal) and refusal.reason == UNTOLD and trainer.starts == 6
    assert desk.journal.events()[-1].kind == "said"


def test_a_daemon_that_stops_in_the_middle_of_a_fit_leaves_no_process(
    site_file: Path, recipe_text: Callable[..., str], tmp_path: Path
) -> None:
    endless = asks(recipe_text().replace("steps = 4\n", "steps = 900000\n"), tmp_path)
    trainer = Trainer(site_file=site_file)
    work = asking(trainer, endless.sealed(), endless.plan())
    assert until(lambda: list(SiteHome.open(site_file).cache.rglob("*")) and trainer.pid)
    pid = trainer.pid
    assert pid is not None
    time.sleep(0.5)
    trainer.close()
    error = work.ended()
    assert isinstance(error, TrainerError) and str(error) == "the daemon stops"
    assert not is_there(pid) and trainer.pid is None
    with pytest.raises(TrainerError, match="the daemon stops"):
        trainer.answer(endless.sealed(), endless.plan())
    assert trainer.starts == 1


DAEMON = """
import sys, threading, time
from pathlib import Path
from client.trainer import Trainer
from rainhill import wire

trainer = Trainer(site_file=Path(sys.argv[1]))
sealed, plan = Path(sys.argv[2]).read_bytes(), wire.plan_from_bytes(Path(sys.argv[3]).read_bytes())
threading.Thread(target=trainer.answer, args=(sealed, plan), daemon=True).start()
while trainer.pid is None:
    time.sleep(0.01)
print(trainer.pid, flush=True)
time.sleep(600)
"""


def test_a_daemon_that_is_killed_takes_its_training_process_with_it(site_file: Path, plain: Asks, tmp_path: Path) -> None:
    from rainhill import wire

    (tmp_path / "offer").write_bytes(plain.sealed())
    (tmp_path / "plan").write_bytes(wire.plan_to_bytes(plain.plan()))
    command = [sys.executable, "-c", DAEMON, str(site_file), str(tmp_path / "offer"), str(tmp_path / "plan")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as daemon:
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        assert is_there(pid)
        daemon.kill()
    # As soon as it runs at all: it does not wait for torch.
    assert until(lambda: not is_there(pid))
    assert not SiteHome.open(site_file).cache.exists()
