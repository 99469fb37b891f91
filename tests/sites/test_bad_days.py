"""Bad days of a consortium of real daemons: full disks, a database that is gone, ports that are taken, clocks that are a day off.

A run that is disturbed by the first two comes to what the same recipe comes to undisturbed, and nothing is charged or done twice.
"""

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from client.home import SiteHome
from client.journal import Journal, Left
from client.privacy.events import Charged
from client.privacy.ledger import Ledger
from client.workbench import first_adapter, open_bench
from rainhill.recipe import read_recipe
from server.database import Database
from server.runs import Runs
from tests.client.hospital import rewrite
from tests.conftest import write_hospital
from tests.server.conftest import Postgres, postgres  # noqa: F401 - a fixture
from tests.sites.peers import COMMAND, Consortium, until

ROUNDS = 12
LONG_S = 400.0
"""For what takes seconds on a machine that has nothing else to do."""
PRIVACY = '[privacy]\nepsilon = 50\ndeclared_patients = 20\nnoise = "simulated"\n'
LIBFAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


class World(Consortium):
    """One hospital, whose state lies on a disk of its own, and a coordinator whose checkpoints do."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ["bury"])
        self.bury = self.folders["bury"]
        self.bury.mkdir()
        self.state, self.runs_folder = self.bury / "bury-state", self.hub / "coordinator" / "runs"
        self.mounted: list[Path] = []

    def mount(self, folder: Path, size: str) -> None:
        folder.mkdir()
        if os.system(f"mount -t tmpfs -o size={size},mode=700 tmpfs {folder} 2>/dev/null") != 0:
            pytest.skip("needs the right to mount a small file system")
        self.mounted.append(folder)

    def said(self, name: str, words: str) -> bool:
        return re.search(words, ((self.hub if name == "hub" else self.bury) / "serve.log").read_text()) is not None

    def rest(self) -> None:
        """Whatever runs is stopped."""
        self.stop(*reversed(list(self.running)))

    def end(self) -> None:
        super().end()
        for folder in self.mounted:
            os.system(f"umount -l {folder}")


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: Postgres,  # noqa: F811
    tiny_base: Path,
    recipe_text: Callable[..., str],
) -> Iterator[World]:
    one = World(tmp_path_factory.mktemp("bad_days"))
    file = write_hospital(one.bury, "bury")
    file.write_text(f'{file.read_text()}by = "patient"\n{PRIVACY}')
    try:
        one.mount(one.state, "64m")
        one.begin("--database", postgres.url)
        rewrite(one.hub / "coordinator" / "coordinator.toml", "[bases]\n", f'[bases]\ntiny = "{tiny_base}"\n')
        one.mount(one.runs_folder, "4m")
        recipe = (
            recipe_text(rounds=ROUNDS).replace("steps = 4", "steps = 2", 1).replace('rule = "fedavg"', 'rule = "fedavg"\nweights = "equal"')
        )
        (one.hub / "spring.toml").write_text(f"{recipe}[privacy]\nepsilon = 8\n")
        read = read_recipe(one.hub / "spring.toml")
        (one.hub / "first.safetensors").write_bytes(first_adapter(open_bench(read, one.hub)).to_bytes())
        one.join("bury")
        one.serve("hub", "bury")
        assert until(lambda: one.said("bury", "connected to"), LONG_S), one.log()
        yield one
    finally:
        one.end()


@pytest.fixture(scope="module")
def runs(world: World, postgres: Postgres) -> Iterator[Runs]:  # noqa: F811
    database = Database.open(postgres.url)
    yield Runs(database=database)
    database.close()


def asked(world: World, name: str) -> None:
    """Offered and approved."""
    world.coordinator("run", "spring.toml", "--adapter", "first.safetensors", "--name", name)
    assert until(lambda: name in world.site("bury", "pending", "--json").stdout, LONG_S), world.log()
    world.site("bury", "approve", name, "--by", "Grace")


def finished(runs: Runs, name: str) -> bool:
    return runs.run(name).state == "finished"


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """To the last byte, while the block lasts."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            for size in (2**16, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError:
                    continue
        yield
    finally:
        filler.unlink()


def test_a_run_through_full_disks_and_without_its_database_comes_to_the_same_result(
    world: World,
    runs: Runs,
    postgres: Postgres,  # noqa: F811
) -> None:
    asked(world, "calm")
    assert until(lambda: finished(runs, "calm"), LONG_S), world.log()
    asked(world, "stormy")

    def after(number: int) -> None:
        assert until(lambda: len(runs.adapters("stormy")) >= number, LONG_S), world.log()
        assert not finished(runs, "stormy")

    after(1)
    with filled(world.state):
        assert until(lambda: world.said("bury", rf"stormy: {world.state}/\w+\.\S+: .*(full|No space left|I/O error)"), LONG_S), world.log()
        assert until(lambda: "an error at the site, written to its own log" in runs.run("stormy").words, LONG_S), runs.run("stormy")
        still = len(runs.adapters("stormy"))
        time.sleep(3)
        assert len(runs.adapters("stormy")) == still
    after(still + 2)
    with filled(world.runs_folder):
        words = r"round-0000\d\d\.safetensors: cannot be written \(No space left on device\)"
        assert until(lambda: world.said("hub", f"run stormy: .*{words}"), LONG_S), world.log()
        assert until(lambda: re.search(words, runs.run("stormy").words) is not None, LONG_S)
        still = len(runs.adapters("stormy"))
    after(still + 2)
    postgres.stop()
    assert until(lambda: world.said("hub", "run stormy: postgresql.*; trying again in"), LONG_S), world.log()
    time.sleep(5)
    postgres.start()
    assert until(lambda: finished(runs, "stormy"), LONG_S), world.log()

    assert runs.run("stormy").result == runs.run("calm").result
    assert [record.answered for record in runs.rounds("stormy")] == [("bury",)] * ROUNDS
    assert "Traceback" not in world.log()
    home = SiteHome.open(world.bury / "bury.toml")
    charged = [event for event in Ledger.open(home.state, site="bury").events() if isinstance(event, Charged)]
    for name in ("calm", "stormy"):
        assert [event.round for event in charged if event.run == name] == list(range(1, ROUNDS + 1))
    left = {(event.run, event.round): event.update for event in Journal.open(home.state, site="bury").events() if isinstance(event, Left)}
    assert sorted(left) == [(name, number) for name in ("calm", "stormy") for number in range(1, ROUNDS + 1)]


def remount(folder: Path, how: str) -> None:
    assert os.system(f"mount -o remount,{how} {folder}") == 0


def test_what_cannot_write_at_all_does_not_begin_and_names_where(world: World) -> None:
    world.rest()
    remount(world.state, "ro")
    try:
        assert world.site("bury", "serve", code=2).stderr.endswith(f"rainhill: {world.state}/serve.lock: Read-only file system\n")
        done = world.site("bury", "refuse", "calm", "--by", "Grace", "--reason", "no", code=2).stderr
        assert f"{world.state}/journal" in done and done.count("\n") == 1
        assert "FAILED disk" in world.site("bury", "check", code=1).stdout
    finally:
        remount(world.state, "rw")


@pytest.mark.parametrize("which", [0, 1])
def test_a_port_of_the_coordinator_that_is_taken_is_named_in_one_line(world: World, which: int) -> None:
    world.rest()
    with socket.create_server(("127.0.0.1", world.ports[which])):
        said = world.coordinator("serve", code=2).stderr
    assert said.splitlines()[-1].startswith(f"rainhill: cannot listen at 127.0.0.1:{world.ports[which]}: Address already in use")
    assert "Traceback" not in said


def test_a_metrics_port_that_is_taken_is_named_in_one_line_and_nothing_goes_on_without_it(world: World, tmp_path: Path) -> None:
    world.rest()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = world.hub / "coordinator" / "coordinator.toml"
        before = file.read_text()
        file.write_text(re.sub(r"(?m)(^\[metrics\]\n(?:.*\n)*?port = )\d+", rf"\g<1>{port}", before))
        assert file.read_text() != before
        site = world.bury / "bury.toml"
        own = site.read_text()
        site.write_text(f"{own}[metrics]\nport = {port}\n")
        try:
            words = f"rainhill: [metrics] cannot listen at 127.0.0.1:{port}: Address already in use"
            assert world.coordinator("serve", code=2).stderr.splitlines()[-1] == words
            assert world.site("bury", "serve", code=2).stderr.splitlines()[-1] == words
        finally:
            file.write_text(before)
            site.write_text(own)


needs_faketime = pytest.mark.skipif(LIBFAKETIME is None, reason="faketime is not installed (Debian: faketime)")


def at(days: int) -> dict[str, str]:
    """The environment of a process whose clock is so many days ahead."""
    return {"LD_PRELOAD": str(LIBFAKETIME), "FAKETIME": f"{days:+d}d", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def both_times(words: str) -> timedelta:
    """Of the two clocks that the words name, how far ours is ahead."""
    ours, theirs = (datetime.fromisoformat(time) for time in re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", words)[-2:])
    return ours - theirs


@needs_faketime
@pytest.mark.parametrize("days", [1, -1])
def test_a_sites_clock_that_is_a_day_off_is_told_with_both_times(world: World, days: int) -> None:
    world.rest()
    started = len((world.hub / "serve.log").read_text())
    world.serve("hub")
    assert until(lambda: "SuperLink: sites at" in (world.hub / "serve.log").read_text()[started:], LONG_S), world.log()
    command = [COMMAND, "site", "check", "bury.toml", "--json"]
    done = subprocess.run(command, cwd=world.bury, env=os.environ | at(days), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert not found["clock"]["ok"] and abs(both_times(found["clock"]["found"]) - timedelta(days=days)) < timedelta(seconds=30)
    log = world.bury / "serve.log"
    before = len(log.read_text())
    world.serve("bury", **at(days))
    # A certificate that was made today does not hold yet a day ago.
    words = (
        "this machine's clock is wrong, or the coordinator's: "
        if days > 0
        else "certificate is not yet valid.*; this machine's clock shows"
    )
    assert until(lambda: re.search(words, log.read_text()[before:]) is not None, LONG_S), world.log()
    if days > 0:
        (line, *_) = [line for line in log.read_text()[before:].splitlines() if "the coordinator's: " in line]
        assert abs(both_times(line.partition("; trying")[0]) - timedelta(days=1)) < timedelta(seconds=30)
        assert until(lambda: (world_status(world)["clock_ahead_s"] or 0) > 86000, LONG_S)
    assert world_status(world)["connected"] is False


def world_status(world: World) -> dict[str, object]:
    found: dict[str, object] = json.loads(world.site("bury", "status", "--json").stdout)
    return found


@needs_faketime
def test_a_coordinators_clock_that_is_a_day_off_is_told_at_both_ends_and_no_site_is_let_in(world: World) -> None:
    world.rest()
    log = world.bury / "serve.log"
    before = len(log.read_text())
    world.serve("hub", **at(1))
    world.serve("bury")
    # Of a certificate's times a site looks at its own clock; of a call's the coordinator does.
    assert until(lambda: "the coordinator's: " in log.read_text()[before:], LONG_S), world.log()
    (line, *_) = [line for line in log.read_text()[before:].splitlines() if "the coordinator's: " in line]
    assert abs(both_times(line.partition("; trying")[0]) + timedelta(days=1)) < timedelta(seconds=30)
    assert until(lambda: world.said("hub", "times signed at another time than this machine's clock shows"), LONG_S), world.log()
    assert world_status(world)["connected"] is False
