"""A coordinator's SuperLink and hospitals' nodes for the tests that want real ones."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from flwr.app import Message

from client.flower.line import Contact, Where
from client.flower.node import Node
from client.identity import Identity
from server.flower.link import Link, connected
from server.home import begin
from server.serve import link_of, superlink
from tests.server.conftest import free_port

WITHIN_S = 60.0


def until(condition: Callable[[], bool], within_s: float = WITHIN_S) -> bool:
    stop = time.monotonic() + within_s
    while not condition() and time.monotonic() < stop:
        time.sleep(0.05)
    return condition()


class Coordinator:
    """A coordinator's folder and its SuperLink, which the test may kill."""

    def __init__(self, folder: Path) -> None:
        address = {"host": "localhost", "bind": "127.0.0.1", "port": free_port(), "private_port": free_port()}
        self.home = begin(folder, {"name": "north_west", "address": address})
        self.log = folder.parent / "superlink.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def link(self) -> Link:
        return link_of(self.home)

    @property
    def address(self) -> str:
        return f"localhost:{self.home.config.address.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(superlink(self.home).command, stderr=log)
        assert until(self.answers), self.log.read_text()

    def answers(self) -> bool:
        try:
            connected(self.link, {})
        except (httpx.HTTPError, OSError):
            return False
        return True

    def contact(self, sites: Mapping[str, Identity]) -> dict[str, bool]:
        """Whether each of these is connected."""
        return connected(self.link, {name: one.node_public.encode() for name, one in sites.items()})

    def end(self, *, kill: bool = False) -> None:
        if self.process is not None:
            (self.process.kill if kill else self.process.terminate)()
            self.process.wait()

    def where(self, identity: Identity) -> Where:
        return Where(address=self.address, trusted=self.home.ca.read_bytes(), key=identity.node)


@contextmanager
def node(
    coordinator: Coordinator,
    identity: Identity,
    work: Callable[[Message], Message],
    *,
    memory: Path | None = None,
    lose: Callable[[httpx.Response], None] | None = None,
) -> Iterator[Contact]:
    """`lose` sees each of the coordinator's answers first, and raises where it is to be lost on the way."""
    stop = threading.Event()
    one = Node(coordinator.where(identity), work, stop=stop, memory=memory)
    if lose is not None:
        one._line.client._client.event_hooks["response"].insert(0, lose)
    thread = threading.Thread(target=one.run)
    thread.start()
    try:
        yield one.contact
    finally:
        stop.set()
        thread.join()
