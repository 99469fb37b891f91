"""From nothing to a hospital in contact with its coordinator, by the commands that people type, each side in a folder of its own."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.conftest import free_port
from tests.sites.peers import COMMAND, Done, run, until


class World:
    """A coordinator's machine and a hospital's: two folders, between which files are carried by hand."""

    def __init__(self, folder: Path) -> None:
        self.hub, self.bury, self.ports = folder / "hub", folder / "bury", (free_port(), free_port())
        self.hub.mkdir()
        self.bury.mkdir()
        (self.bury / "bury.toml").write_text('name = "bury"\ntitle = "Bury General"\n')
        self.running: list[subprocess.Popen[str]] = []

    def coordinator(self, *arguments: object, **how: object) -> Done:
        return run("coordinator", *arguments, cwd=self.hub, **how)

    def site(self, command: str, *arguments: object, **how: object) -> Done:
        return run("site", command, "bury.toml", *arguments, cwd=self.bury, **how)

    def begin(self) -> str:
        """The consortium's fingerprint."""
        port, private = self.ports
        said = self.coordinator(
            "init",
            "north_west",
            "--title",
            "North West",
            "--host",
            "localhost",
            "--bind",
            "127.0.0.1",
            "--port",
            port,
            "--private-port",
            private,
            "--metrics-port",
            0,
        ).stdout
        return re.search(r"Its key is ((?:[0-9a-f]{4}-){7}[0-9a-f]{4})", said)[1]

    def ask(self, *arguments: object) -> str:
        """The site's fingerprint; its request is carried over."""
        own = self.site("init", *arguments).stdout.splitlines()[-1]
        (self.hub / "bury.request").write_bytes((self.bury / "bury.request").read_bytes())
        return own

    def carry(self) -> None:
        self.coordinator("bundle", "bury")
        (self.bury / "bury.bundle").write_bytes((self.hub / "bury.bundle").read_bytes())

    def start(self, *arguments: str, cwd: Path) -> "subprocess.Popen[str]":
        log = (cwd / f"{arguments[0]}.log").open("a")
        self.running.append(subprocess.Popen([COMMAND, *arguments], cwd=cwd, stdout=log, stderr=log, text=True))
        log.close()
        return self.running[-1]

    def contact(self) -> str | None:
        (one,) = json.loads(self.coordinator("sites", "--json").stdout)
        return one["contact"]

    def status(self) -> dict[str, object]:
        return json.loads(self.site("status", "--json").stdout)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    one = World(tmp_path)
    yield one
    for process in reversed(one.running):
        process.kill()
        process.wait()


def test_a_hospital_joins_is_in_contact_changes_its_keys_and_leaves(world: World) -> None:
    theirs = world.begin()
    own = world.ask()
    world.coordinator("enrol", "bury.request", "--fingerprint", own)
    world.carry()
    assert world.site("join", "bury.bundle", "--fingerprint", theirs).stdout.startswith(
        f"bury belongs to North West, at localhost:{world.ports[0]}"
    )
    coordinator, daemon = world.start("coordinator", "serve", cwd=world.hub), world.start("site", "serve", "bury.toml", cwd=world.bury)
    assert until(lambda: world.contact() == "connected"), (world.hub / "coordinator.log").read_text() + (
        world.bury / "site.log"
    ).read_text()
    assert until(lambda: world.status()["connected"] is True)

    (one,) = json.loads(world.coordinator("sites", "--ask", "--json").stdout)
    assert one["said"]["software"] == one["software"] and one["said"]["protocols"] == one["protocols"]
    assert abs(one["said"]["clock_ahead_s"]) < 5
    # All is well but that the file names no films.
    found = {one["name"]: one for one in json.loads(world.site("check", "--json", code=1).stdout)}
    assert {name for name, one in found.items() if not one["ok"]} == {"data"}
    assert found["certificate"]["found"].endswith("in 397 days") and found["clock"]["ok"]

    world.coordinator("revoke", "bury", "--reason", "its keys were seen")
    assert until(lambda: world.status()["connected"] is False)
    assert "does not know this site's key" in str(world.status()["reason"])
    assert world.coordinator("bundle", "bury", code=2).stderr.startswith("rainhill: bury: was revoked on ")

    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(20) == 0
    fresh = world.ask("--rotate")
    assert fresh != own and list((world.bury / "bury-state").glob("identity-until-*"))
    world.coordinator("rotate", "bury.request", "--fingerprint", fresh)
    # With the old bundle the new keys are nobody's.
    assert f"and its key here is {fresh}" in world.site("join", "bury.bundle", "--fingerprint", theirs, code=2).stderr
    world.carry()
    world.site("join", "bury.bundle", "--fingerprint", theirs)
    world.start("site", "serve", "bury.toml", cwd=world.bury)
    assert until(lambda: world.contact() == "connected")

    what = [line.split(": ")[1].split()[0] for line in world.coordinator("log").stdout.splitlines()]
    assert what == ["enrol", "bundle", "revoke", "rotate", "bundle"]
    assert "is running in this folder already" in world.site("leave", "--yes", code=2).stderr
    last = world.running.pop()
    last.kill()
    last.wait()
    assert until(lambda: world.status()["daemon"] == "not running")
    world.site("leave", "--yes")
    assert world.status()["consortium"] is None
    assert (world.bury / "bury-state" / "identity").is_dir()

    coordinator.send_signal(signal.SIGINT)
    assert coordinator.wait(30) == 0
    logs = (world.hub / "coordinator.log").read_text() + (world.bury / "site.log").read_text()
    assert "Traceback" not in logs and "HTTP Request" not in logs and "DEBUG" not in logs
    assert "BEGIN" not in logs


def test_a_coordinator_that_is_killed_takes_its_superlink_along_and_begins_again_where_it_was(world: World) -> None:
    theirs = world.begin()
    world.coordinator("enrol", "bury.request", "--fingerprint", world.ask())
    world.carry()
    world.site("join", "bury.bundle", "--fingerprint", theirs)
    coordinator = world.start("coordinator", "serve", cwd=world.hub)
    world.start("site", "serve", "bury.toml", cwd=world.bury)
    assert until(lambda: world.contact() == "connected")
    coordinator.kill()
    coordinator.wait()
    assert until(lambda: world.contact() is None)
    assert until(lambda: world.status()["connected"] is False)
    world.start("coordinator", "serve", cwd=world.hub)
    assert until(lambda: world.contact() == "connected")
    # And the SuperLink alone: whoever keeps it running notices.
    child = int(re.findall(r"SuperLink runs as process (\d+)", (world.hub / "coordinator.log").read_text())[-1])
    os.kill(child, signal.SIGKILL)
    assert until(lambda: "SuperLink ended (signal SIGKILL)" in (world.hub / "coordinator.log").read_text())
    assert until(lambda: world.contact() == "connected")


def test_what_was_changed_or_mixed_up_on_the_way_is_refused_and_changes_nothing(world: World) -> None:
    theirs, own = world.begin(), world.ask()
    request = world.hub / "bury.request"
    assert "is not the fingerprint of this request" in world.coordinator("enrol", request, "--fingerprint", theirs, code=2).stderr
    # Not even said, or it would be typed from the screen.
    assert own not in world.coordinator("enrol", request, "--fingerprint", theirs, code=2).stderr
    assert "give --fingerprint" in world.coordinator("enrol", request, code=2).stderr
    whole = request.read_bytes()
    request.write_bytes(whole.replace(b"e", b"f", 1))
    world.coordinator("enrol", request, "--fingerprint", own, code=2)
    request.write_bytes(whole)
    assert json.loads(world.coordinator("sites", "--json").stdout) == []
    world.coordinator("enrol", request, "--fingerprint", own)
    assert "is enrolled already" in world.coordinator("enrol", request, "--fingerprint", own, code=2).stderr
    assert "no site 'burry' is enrolled, did you mean 'bury'?" in world.coordinator("bundle", "burry", code=2).stderr

    world.carry()
    refused = world.site("join", "bury.bundle", "--fingerprint", own, code=2).stderr
    assert "is not signed with the key of fingerprint" in refused and theirs not in refused
    bundle = bytearray((world.bury / "bury.bundle").read_bytes())
    bundle[len(bundle) // 2] ^= 1
    (world.bury / "other.bundle").write_bytes(bundle)
    world.site("join", "other.bundle", "--fingerprint", theirs, code=2)
    (world.bury / "bury.toml").write_text('name = "oldham"\nstate = "bury-state"\n')
    assert "is for site 'bury', and this is 'oldham'" in world.site("join", "bury.bundle", "--fingerprint", theirs, code=2).stderr
    assert world.status()["consortium"] is None
    assert not (world.bury / "bury-state" / "consortium.new").exists()


def test_a_second_beginning_takes_nothing_away(world: World) -> None:
    theirs, own = world.begin(), world.ask()
    port, private = world.ports
    again = world.coordinator("init", "other", "--host", "localhost", "--port", port, "--private-port", private, code=2).stderr
    assert "coordinator.toml: is there already" in again
    assert "identity" in world.site("init", code=2).stderr
    assert world.site("init", "--again").stdout.splitlines()[-1] == own
    assert world.coordinator("bundle", "bury", code=2).stderr == "rainhill: no site 'bury' is enrolled\n"
    assert theirs not in own


def test_a_site_behind_a_proxy_goes_through_it(world: World, tmp_path: Path) -> None:
    program = shutil.which("tinyproxy")
    if program is None:
        pytest.skip("tinyproxy is not installed (Debian: tinyproxy)")
    port, log = free_port(), tmp_path / "proxy.log"
    (tmp_path / "proxy.conf").write_text(
        f'Port {port}\nListen 127.0.0.1\nLogFile "{log}"\nLogLevel Connect\nConnectPort {world.ports[0]}\n'
    )
    theirs = world.begin()
    (world.bury / "bury.toml").write_text(f'name = "bury"\n[network]\nproxy = "http://127.0.0.1:{port}"\n')
    world.coordinator("enrol", "bury.request", "--fingerprint", world.ask())
    world.carry()
    world.site("join", "bury.bundle", "--fingerprint", theirs)
    world.start("coordinator", "serve", cwd=world.hub)
    assert until(lambda: world.contact() == "away")
    found = {one["name"]: one for one in json.loads(world.site("check", "--json", code=1).stdout)}
    assert not found["coordinator"]["ok"]
    world.running.append(subprocess.Popen([program, "-d", "-c", str(tmp_path / "proxy.conf")], text=True))
    world.start("site", "serve", "bury.toml", cwd=world.bury)
    assert until(lambda: world.contact() == "connected")
    assert f"CONNECT localhost:{world.ports[0]}" in log.read_text()
    found = {one["name"]: one for one in json.loads(world.site("check", "--json", code=1).stdout)}
    assert found["coordinator"]["ok"]


def test_the_way_to_a_coordinator_that_cannot_be_gone_is_told_with_what_to_do(world: World) -> None:
    theirs = world.begin()
    world.coordinator("enrol", "bury.request", "--fingerprint", world.ask())
    world.carry()
    world.site("join", "bury.bundle", "--fingerprint", theirs)
    found = {one["name"]: one for one in json.loads(world.site("check", "--json", code=1).stdout)}
    assert not found["coordinator"]["ok"] and "refused" in found["coordinator"]["found"]
    assert "is the port open outwards in the firewall" in found["coordinator"]["remedy"]
    (world.bury / "bury-state" / "identity" / "node.key").chmod(0o644)
    found = {one["name"]: one for one in json.loads(world.site("check", "--json", code=1).stdout)}
    assert "has mode 644, not 600" in found["keys"]["found"]
