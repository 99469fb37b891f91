"""Network namespaces of Linux for a rehearsal: the coordinator in one, each hospital in another, and a cable from each to the coordinator.

ip-netns(8). Between two hospitals there is no route, and the coordinator forwards nothing. Where nft(8) is there, a packet filter besides
lets through calls to the coordinator's public port and nothing else.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from rainhill.errors import RefusedError, RehearsalError

HOST, PORT = "rainhill.example.org", 9443
"""What hospitals dial: the documents' name, and the port where nobody says."""
LINKS = IPv4Network("192.0.2.0/24")
"""TEST-NET-1 of RFC 5737, a /30 for each cable: nobody's."""
ETC = Path("/etc/netns")
"""Files of a folder by a namespace's name stand in its /etc."""
FORWARD_NOTHING = ("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
"""A namespace may begin with what the machine does."""
UP, DOWN = "up0", "site{}"
"""A cable's ends: at the hospital, and at the coordinator."""


@dataclass(frozen=True, kw_only=True)
class Network:
    hub: str
    sites: tuple[str, ...]
    mark: str
    """What the namespaces' names begin with: they are the machine's."""

    def name(self, one: str) -> str:
        return f"{self.mark}-{one}"

    def within(self, one: str) -> tuple[str, ...]:
        """What a command is begun by that is to run there."""
        return ("ip", "netns", "exec", self.name(one))

    def address(self, site: str) -> IPv4Address:
        """The hospital's end of its cable."""
        return self._ends(site)[1]

    def hub_address(self, site: str) -> IPv4Address:
        """The coordinator's."""
        return self._ends(site)[0]

    def pull(self, site: str) -> None:
        """Its cable, at the coordinator: the hospital's end loses its carrier."""
        _ip("-n", self.name(self.hub), "link", "set", self._link(site), "down")

    def plug(self, site: str) -> None:
        _ip("-n", self.name(self.hub), "link", "set", self._link(site), "up")

    def lay(self) -> None:
        for one in (self.hub, *self.sites):
            _ip("netns", "add", self.name(one))
            _ip("-n", self.name(one), "link", "set", "lo", "up")
            _run(*self.within(one), *FORWARD_NOTHING)
        for site in self.sites:
            self._cable(site)
        if shutil.which("nft"):
            self._filter()

    def clear(self) -> None:
        """What is there of it goes, cables with their namespaces."""
        for one in (self.hub, *self.sites):
            with suppress(RehearsalError):
                _ip("netns", "delete", self.name(one))
            shutil.rmtree(ETC / self.name(one), ignore_errors=True)
        with suppress(OSError):
            # Where nobody else has anything there.
            ETC.rmdir()

    def _cable(self, site: str) -> None:
        hub, own, link = self.name(self.hub), self.name(site), self._link(site)
        _ip("link", "add", link, "netns", hub, "type", "veth", "peer", "name", UP, "netns", own)
        for name, end, address in ((hub, link, self.hub_address(site)), (own, UP, self.address(site))):
            _ip("-n", name, "address", "add", f"{address}/30", "dev", end)
            _ip("-n", name, "link", "set", end, "up")
        hosts = ETC / own / "hosts"
        hosts.parent.mkdir(parents=True)
        hosts.write_text(f"127.0.0.1 localhost\n{self.hub_address(site)} {HOST}\n")

    def _filter(self) -> None:
        _nft(self.within(self.hub), "input", f"tcp dport {PORT} accept")
        for site in self.sites:
            _nft(self.within(site), "input", f"tcp sport {PORT} accept")
            _nft(self.within(site), "output", f"ip daddr {self.hub_address(site)} tcp dport {PORT} accept")

    def _link(self, site: str) -> str:
        return DOWN.format(self.sites.index(site))

    def _ends(self, site: str) -> tuple[IPv4Address, IPv4Address]:
        first = LINKS.network_address + 4 * self.sites.index(site)
        return first + 1, first + 2


@contextmanager
def laid(hub: str, sites: Sequence[str]) -> Iterator[Network]:
    """For as long as the block lasts. RefusedError where this machine or its user cannot."""
    if why := lacking():
        raise RefusedError(f"network namespaces: {why}")
    most = LINKS.num_addresses // 4
    if len(sites) > most:
        raise RefusedError(f"network namespaces: {len(sites)} hospitals, and there are addresses for {most}")
    network = Network(hub=hub, sites=tuple(sites), mark=f"rainhill-{os.getpid()}")
    try:
        network.lay()
        yield network
    finally:
        network.clear()


def lacking() -> str:
    """Why there can be none here; empty where there can."""
    if shutil.which("ip") is None:
        return "there is no `ip`: iproute2 has it"
    trial = f"rainhill-{os.getpid()}-trial"
    try:
        _ip("netns", "add", trial)
    except RehearsalError as error:
        return str(error)
    try:
        _run("ip", "netns", "exec", trial, *FORWARD_NOTHING)
    except RehearsalError as error:
        return str(error)
    finally:
        _ip("netns", "delete", trial)
    return ""


def _nft(within: Sequence[str], hook: str, *accepted: str) -> None:
    rules = "; ".join(["meta oifname lo accept" if hook == "output" else "meta iifname lo accept", *accepted])
    chain = f"chain {hook} {{ type filter hook {hook} priority filter; policy drop; {rules}; }}"
    _run(*within, "nft", f"table inet rainhill {{\n{chain}\n}}\n")


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)  # noqa: S603 - our own words
    if done.returncode:
        raise RehearsalError(f"`{' '.join(command)}`: {done.stderr.strip() or f'ended with {done.returncode}'}")
