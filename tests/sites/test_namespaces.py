"""A consortium across real network namespaces: what reaches what, a cable that is pulled, and the adapter that comes of it all the same."""

import os
import re
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from rainhill.errors import RefusedError
from sites import namespaces
from sites.namespaces import HOST, PORT, Network
from tests.sites.peers import COMMAND
from tests.sites.phantoms import REHEARSAL, small

pytestmark = [
    pytest.mark.skipif(bool(WHY := namespaces.lacking()), reason=f"network namespaces: {WHY}"),
]
SITES = ("bury", "oldham")
PULLED_S = 8.0
"""Longer than any call to the coordinator waits for its next."""
PRIVATE, METRICS = 9444, 9445
TRY = """
import socket, sys
for address, port in (one.split(":") for one in sys.argv[1:]):
    try:
        socket.create_connection((address, int(port)), timeout=1).close()
        print(f"{address}:{port}")
    except OSError:
        pass
"""


@dataclass
class Seen:
    printed: str = ""
    listening: dict[str, list[str]] = field(default_factory=dict)
    """Namespace -> addresses and ports that are listened at in it, while rounds are under way."""
    reached: dict[str, set[str]] = field(default_factory=dict)
    """Hospital -> what of the coordinator's and of the other hospital's it can open a connection to."""
    unplugged: set[str] = field(default_factory=set)
    """What the hospital whose cable is pulled can reach."""
    after: set[str] = field(default_factory=set)
    """And when it is plugged again."""
    left: list[str] = field(default_factory=list)
    """Namespaces, and processes, when all is over."""


def listening(network: Network, one: str) -> list[str]:
    said = subprocess.run([*network.within(one), "ss", "-Hlntu"], capture_output=True, text=True, check=True).stdout
    return [line.split()[4] for line in said.splitlines()]


def reached(network: Network, site: str, *addresses: object) -> set[str]:
    command = [*network.within(site), "python3", "-c", TRY, *map(str, addresses)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def alive(mark: str) -> list[str]:
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [name for name in names.splitlines() if name.startswith(mark)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("namespaces")
    small(folder / "sites")
    (folder / "rehearsal.toml").write_text(REHEARSAL)
    environment = {**os.environ, "RAINHILL_CACHE": str(folder / "cache"), "PYTHONUNBUFFERED": "1", "RAINHILL_MARK": uuid.uuid4().hex}
    command = [COMMAND, "rehearse", "rehearsal.toml", "--sites", "sites", "--out", "out", "--namespaces", "--compare"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    network = Network(hub="hub", sites=SITES, mark=f"rainhill-{process.pid}")
    try:
        found = Seen()
        look(process, network, found)
        found.left = alive(network.mark)
        yield found
    finally:
        # All that it has started ends with it.
        process.kill()
        process.communicate()
        network.clear()


def look(process: "subprocess.Popen[str]", network: Network, found: Seen) -> None:
    """At the rehearsal: from outside, while it goes on."""
    assert process.stdout is not None
    for line in process.stdout:
        found.printed += line
        if line.startswith("   round 1: "):
            found.listening = {one: listening(network, one) for one in ("hub", *SITES)}
            for site, other in (SITES, SITES[::-1]):
                ours, theirs = network.hub_address(site), network.hub_address(other)
                asked = [f"{ours}:{port}" for port in (PORT, PRIVATE, METRICS, 22)] + [
                    f"{theirs}:{PORT}",
                    f"{network.address(other)}:{PORT}",
                ]
                found.reached[site] = reached(network, site, *asked)
            bury = f"{HOST}:{PORT}"
            network.pull("bury")
            stop = time.monotonic() + PULLED_S
            found.unplugged = reached(network, "bury", bury)
            threading.Event().wait(max(0.0, stop - time.monotonic()))
            network.plug("bury")
            found.after = reached(network, "bury", bury)
    assert process.wait(60) == 0, found.printed


def test_five_rounds_across_namespaces_give_the_adapter_of_a_simulation(seen: Seen) -> None:
    (apart,) = re.findall(r"the two shared adapters differ by at most (\S+)", seen.printed)
    assert float(apart) < 1e-5
    for command in ("coordinator init", "coordinator enrol", "coordinator bundle", "site join", "coordinator run", "site approve"):
        assert f"$ rainhill {command}" in seen.printed
    assert f"--host {HOST}\n" in seen.printed


def test_a_cable_that_is_pulled_for_some_seconds_costs_no_round(seen: Seen) -> None:
    assert not seen.unplugged and seen.after == {f"{HOST}:{PORT}"}
    rounds = re.findall(r"round (\d): (\d) of (\d) sites, ([\d.]+) s(.*)", seen.printed)
    assert [(number, answered, asked, late) for number, answered, asked, _, late in rounds] == [
        (str(one), "2", "2", "") for one in range(1, 6)
    ]
    assert max(float(seconds) for *_, seconds, _ in rounds[1:]) > PULLED_S / 2


def test_a_hospital_listens_at_nothing(seen: Seen) -> None:
    assert {site: seen.listening[site] for site in SITES} == {site: [] for site in SITES}


def test_a_hospital_reaches_the_public_port_and_nothing_else(seen: Seen) -> None:
    # They are there, for the coordinator's own machine.
    assert {f"0.0.0.0:{PORT}", f"127.0.0.1:{PRIVATE}", f"127.0.0.1:{METRICS}"} <= set(seen.listening["hub"])
    assert [one for one in seen.listening["hub"] if not one.startswith("127.0.0.1:")] == [f"0.0.0.0:{PORT}"]
    assert seen.reached == {"bury": {f"192.0.2.1:{PORT}"}, "oldham": {f"192.0.2.5:{PORT}"}}


def test_nothing_is_left_of_the_namespaces(seen: Seen) -> None:
    assert not seen.left


def test_more_hospitals_than_there_are_addresses_are_refused() -> None:
    with (
        pytest.raises(RefusedError, match="65 hospitals, and there are addresses for 64"),
        namespaces.laid("hub", [f"s{n}" for n in range(65)]),
    ):
        raise AssertionError
