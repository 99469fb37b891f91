"""The SuperLink and the SuperNode of ours, over TLS on loopback: a real one of Flower's, and real processes that are killed."""

import re
import ssl
import subprocess
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copytree

import httpx
import numpy as np
import pytest
from flwr.app import Message

from client.flower.app import at_work, greeter
from client.flower.line import KEY, REFUSED, Where
from client.flower.node import Node
from client.identity import Identity, new_identity
from rainhill import wire
from server.flower import link as links
from server.flower.greet import Greeted, greet
from server.flower.grid import exchanged
from server.flower.link import admit_only, opened_grid
from server.home import Home, begin, secret_of
from server.registry import Site
from server.serve import superlink
from tests.server.peers import WITHIN_S, Coordinator, node, until

NOT_KNOWN = "the coordinator does not know this site's key: it is not enrolled yet, or was revoked"


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    one = Coordinator(tmp_path_factory.mktemp("consortium") / "coordinator")
    one.start()
    yield one
    one.end()


def backwards(message: Message) -> Message:
    return Message(wire.to_record(wire.from_record(message.content)[::-1]), reply_to=message)


def asked(coordinator: Coordinator, nodes: dict[str, int], blob: bytes, *, deadline_s: float = WITHIN_S) -> dict[str, bytes | int]:
    """What each node answers: bytes, or the code of Flower's error."""
    names = {number: name for name, number in nodes.items()}
    with opened_grid(coordinator.link) as grid:
        replies = dict(exchanged(grid, {number: wire.to_record(blob) for number in names}, "train", within_s=deadline_s))
    return {names[number]: reply.error.code if reply.has_error() else wire.from_record(reply.content) for number, reply in replies.items()}


def test_what_the_coordinator_asks_two_sites_is_answered_by_both(coordinator: Coordinator) -> None:
    sites = {"bury": new_identity(), "oldham": new_identity()}
    nodes = admit_only(coordinator.link, {name: one.node_public.encode() for name, one in sites.items()})
    # Several of the pieces that Flower cuts a message into.
    blob = np.random.default_rng(0).bytes(12 * 2**20)
    with node(coordinator, sites["bury"], backwards) as bury, node(coordinator, sites["oldham"], backwards):
        assert until(lambda: coordinator.contact(sites) == {"bury": True, "oldham": True})
        assert asked(coordinator, nodes, blob) == {"bury": blob[::-1], "oldham": blob[::-1]}
        assert bury.reason == "" and bury.last is not None
    # Both have said that they leave.
    assert coordinator.contact(sites) == {"bury": False, "oldham": False}


def enrolled(name: str, identity: Identity) -> Site:
    now = datetime.now(UTC)
    return Site(
        name=name,
        title="",
        software="",
        protocols=(3,),
        enrolled=now,
        since=now,
        node_key=identity.node_public,
        signing_key=identity.signing_public,
        revoked=None,
        reason="",
    )


def greets(site: str, signing: bytes) -> Callable[[Message], Message]:
    return at_work(greeter(lambda _: site, signing))


def test_who_is_greeted_says_what_it_runs_and_proves_who_it_is(coordinator: Coordinator) -> None:
    bury, oldham, wirral = new_identity(), new_identity(), new_identity()
    sites = {"bury": enrolled("bury", bury), "oldham": enrolled("oldham", oldham), "wirral": enrolled("wirral", wirral)}
    admit_only(coordinator.link, {name: one.node_key.encode() for name, one in sites.items()})

    # Oldham's node says that it is Bury, and has only its own key to sign with; Wirral is not there.
    with node(coordinator, bury, greets("bury", bury.signing)), node(coordinator, oldham, greets("bury", oldham.signing)):
        assert until(
            lambda: (
                coordinator.contact({"bury": bury, "oldham": oldham, "wirral": wirral}) == {"bury": True, "oldham": True, "wirral": False}
            )
        )
        found = greet(coordinator.link, sites)
    assert set(found) == {"bury", "oldham"}
    said = found["bury"]
    assert isinstance(said, Greeted) and said.software.startswith("rainhill ") and abs(said.ahead_s) < 5
    assert "is not who it says: oldham: its greeting is of bury" in str(found["oldham"])
    with node(coordinator, oldham, greets("oldham", bury.signing)):
        assert until(lambda: coordinator.contact({"oldham": oldham})["oldham"])
        assert "is not who it says: greeting 1: is signed with key" in str(greet(coordinator.link, sites)["oldham"])


def test_an_error_at_a_site_crosses_as_a_sentence_that_tells_nothing(coordinator: Coordinator, caplog: pytest.LogCaptureFixture) -> None:
    site = new_identity()
    nodes = admit_only(coordinator.link, {"bury": site.node_public.encode()})

    def fails(message: Message) -> Message:
        raise ValueError("patient SECRET123")

    with node(coordinator, site, fails), opened_grid(coordinator.link) as grid:
        assert until(lambda: coordinator.contact({"bury": site})["bury"])
        ((_, reply),) = exchanged(grid, {nodes["bury"]: wire.to_record(b"x")}, "train", within_s=WITHIN_S)
    assert reply.error.reason == "an error at the site, written to its own log"
    assert "SECRET123" in caplog.text
    assert "SECRET123" not in coordinator.log.read_text()


def test_a_site_that_is_not_enrolled_is_not_heard_until_it_is_and_no_more_once_it_is_revoked(coordinator: Coordinator) -> None:
    site, other = new_identity(), new_identity()
    admit_only(coordinator.link, {"oldham": other.node_public.encode()})
    with node(coordinator, site, backwards) as contact:
        assert until(lambda: contact.failures > 0)
        assert contact.reason == NOT_KNOWN
        nodes = admit_only(coordinator.link, {"oldham": other.node_public.encode(), "bury": site.node_public.encode()})
        assert until(lambda: coordinator.contact({"bury": site})["bury"])
        assert asked(coordinator, {"bury": nodes["bury"]}, b"once") == {"bury": b"ecno"}
        admit_only(coordinator.link, {"oldham": other.node_public.encode()})
        assert until(lambda: contact.reason == NOT_KNOWN)
        assert coordinator.contact({"oldham": other}) == {"oldham": False}


def test_a_site_that_was_taken_out_is_let_in_again_with_the_same_key(coordinator: Coordinator) -> None:
    """A database that was empty for a moment must not lock a consortium out for good."""
    site = new_identity()
    keys = {"bury": site.node_public.encode()}
    first = admit_only(coordinator.link, keys)
    with node(coordinator, site, backwards) as contact:
        assert until(lambda: coordinator.contact({"bury": site})["bury"])
        admit_only(coordinator.link, {})
        assert until(lambda: contact.reason == NOT_KNOWN)
        assert admit_only(coordinator.link, keys) == first
        assert until(lambda: contact.reason == "")
        assert asked(coordinator, first, b"again") == {"bury": b"niaga"}


def test_a_copy_of_a_sites_folder_does_not_push_out_the_daemon_that_runs(coordinator: Coordinator, tmp_path: Path) -> None:
    site = new_identity()
    nodes = admit_only(coordinator.link, {"bury": site.node_public.encode()})
    (tmp_path / "first").mkdir()
    with node(coordinator, site, backwards, memory=tmp_path / "first" / "node"):
        assert until(lambda: coordinator.contact({"bury": site})["bury"])
        copytree(tmp_path / "first", tmp_path / "copy")
        with node(coordinator, site, lambda _: pytest.fail("the copy was asked"), memory=tmp_path / "copy" / "node") as copy:
            assert until(lambda: copy.reason.startswith("another daemon is in contact with this site's key"))
            assert asked(coordinator, nodes, b"abc") == {"bury": b"cba"} and copy.node is None


@contextmanager
def answering(home: Home, status: int, location: str = "", endless: str = "") -> Iterator[tuple[str, list[str]]]:
    """Something at the coordinator's name, with its certificate, that is not the coordinator: its address, and what it was asked.

    With a header in `endless` each answer goes on as long as somebody reads it.
    """
    asked_for: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked_for.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            if endless:
                self.send_header(*endless.split(": "))
                self.end_headers()
                sent = 0
                with suppress(OSError):
                    while sent < 2**30:
                        sent += self.wfile.write(b"10000\r\n" + bytes(2**16) + b"\r\n")
                asked_for.append(f"{sent} bytes were taken")
                self.close_connection = True
                return
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home.certificate, home.server_key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"localhost:{server.server_port}", asked_for
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("status", [400, 404, 451, 500])
def test_a_site_goes_on_asking_whatever_it_is_answered(coordinator: Coordinator, status: int) -> None:
    with answering(coordinator.home, status) as (address, asked_for):
        stop = threading.Event()
        one = Node(Where(address=address, trusted=coordinator.home.ca.read_bytes(), key=new_identity().node), backwards, stop=stop)
        thread = threading.Thread(target=one.run)
        thread.start()
        assert until(lambda: len(asked_for) >= 3)
        assert thread.is_alive() and one.contact.reason == f"HTTP {status} to /v1/fleet/activate-node"
        stop.set()
        thread.join()


@pytest.mark.parametrize("endless", ["Transfer-Encoding: chunked", "Content-Length: 1073741824", "Content-Encoding: gzip"])
def test_a_site_reads_no_answer_without_end(coordinator: Coordinator, endless: str) -> None:
    with answering(coordinator.home, 200, endless=endless) as (address, asked_for):
        stop = threading.Event()
        one = Node(Where(address=address, trusted=coordinator.home.ca.read_bytes(), key=new_identity().node), backwards, stop=stop)
        thread = threading.Thread(target=one.run)
        thread.start()
        assert until(lambda: one.contact.failures >= 2)
        assert thread.is_alive() and one.contact.reason == "an answer of more than 8388608 bytes, or one that is packed"
        stop.set()
        thread.join()
        taken = [int(said.split()[0]) for said in asked_for if said.endswith("were taken")]
    # What the network holds beside it.
    assert taken and max(taken) < 2**26


def test_a_site_does_not_go_where_it_is_sent(coordinator: Coordinator) -> None:
    with (
        answering(coordinator.home, 404) as (elsewhere, reached),
        answering(coordinator.home, 307, f"https://{elsewhere}/inside") as (address, asked_for),
    ):
        stop = threading.Event()
        one = Node(Where(address=address, trusted=coordinator.home.ca.read_bytes(), key=new_identity().node), backwards, stop=stop)
        thread = threading.Thread(target=one.run)
        thread.start()
        assert until(lambda: len(asked_for) >= 2)
        stop.set()
        thread.join()
    assert reached == []


def test_whoever_asks_for_nonsense_writes_neither_the_log_nor_the_disk_full(coordinator: Coordinator, outside: httpx.Client) -> None:
    before = coordinator.log.stat().st_size
    for number in range(50):
        outside.get(f"/evil%0a2026-11-22%20WARNING%20bury%20was%20revoked%1b[31m{number}{'x' * 5000}")
    written = coordinator.log.read_bytes()[before:]
    assert b"evil" not in written and len(written) < 1000


def test_a_coordinator_whose_certificate_another_authority_made_is_not_spoken_to(coordinator: Coordinator, tmp_path: Path) -> None:
    stranger = begin(tmp_path / "stranger", {"name": "stranger", "address": {"host": "localhost"}})
    site, heard = new_identity(), []
    admit_only(coordinator.link, {"bury": site.node_public.encode()})
    stop = threading.Event()
    where = Where(address=coordinator.address, trusted=stranger.ca.read_bytes(), key=site.node)
    one = Node(where, lambda message: heard.append(message) or message, stop=stop)
    thread = threading.Thread(target=one.run)
    thread.start()
    assert until(lambda: "CERTIFICATE_VERIFY_FAILED" in one.contact.reason)
    stop.set()
    thread.join()
    assert heard == []


def test_an_authority_that_the_site_trusts_besides_is_enough(coordinator: Coordinator, tmp_path: Path) -> None:
    """A proxy that opens TLS shows a certificate of the hospital's own authority."""
    stranger, site = begin(tmp_path / "stranger", {"name": "stranger", "address": {"host": "localhost"}}), new_identity()
    nodes = admit_only(coordinator.link, {"bury": site.node_public.encode()})
    both = stranger.ca.read_bytes() + b"\n" + coordinator.home.ca.read_bytes()
    stop = threading.Event()
    one = Node(Where(address=coordinator.address, trusted=both, key=site.node), backwards, stop=stop)
    thread = threading.Thread(target=one.run)
    thread.start()
    assert until(lambda: coordinator.contact({"bury": site})["bury"])
    assert asked(coordinator, nodes, b"through") == {"bury": b"hguorht"}
    stop.set()
    thread.join()


@pytest.fixture(scope="module")
def outside(coordinator: Coordinator) -> Iterator[httpx.Client]:
    """Somebody who reaches the public port."""
    trusted = ssl.create_default_context(cafile=str(coordinator.home.ca))
    with httpx.Client(base_url=f"https://localhost:{coordinator.home.config.address.port}", verify=trusted) as client:
        yield client


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/list-nodes",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/v1/runtime/get-nodes",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/fleet/get-fab",
        "/v1/fleet/../control/list-nodes",
        "/v1/fleet//pull-messages",
        "/docs",
        "/openapi.json",
        "/",
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_nothing_but_a_sites_calls_is_open_to_the_network(outside: httpx.Client, coordinator: Coordinator, path: str, method: str) -> None:
    shown = {"authorization": f"Bearer {secret_of(coordinator.home).decode()}", "content-type": "application/protobuf"}
    answer = outside.request(method, path, headers=shown, content=b"")
    assert (answer.status_code, answer.json()) == (403, {"refused": "not a call of a site"})


def test_a_sites_call_without_its_key_or_without_its_signature_is_refused(coordinator: Coordinator, outside: httpx.Client) -> None:
    pem = new_identity().node_public.encode()
    headers = {"content-type": "application/protobuf", "flwr-public-key": b64encode(pem).decode()}
    answer = outside.post("/v1/fleet/pull-messages", content=b"")
    assert (answer.status_code, answer.json()["refused"]) == (403, "not the key of an enrolled site")
    assert answer.headers[REFUSED] == KEY
    assert outside.post("/v1/fleet/pull-messages", content=b"", headers=headers).status_code == 403
    admit_only(coordinator.link, {"bury": pem})
    # Known, and not signed with it.
    assert outside.post("/v1/fleet/pull-messages", content=b"", headers=headers).status_code == 401


def test_requests_that_are_too_large_or_of_no_length_are_refused_before_they_are_read(
    coordinator: Coordinator, outside: httpx.Client
) -> None:
    pem = new_identity().node_public.encode()
    admit_only(coordinator.link, {"bury": pem})
    outside.headers["flwr-public-key"] = b64encode(pem).decode()
    large = outside.post("/v1/fleet/push-object", content=bytes(8 * 2**20 + 1))
    assert (large.status_code, large.json()["refused"]) == (413, "a request of more than 8388608 bytes")
    unknown = outside.post("/v1/fleet/push-object", content=iter([b"a", b"b"]))
    assert (unknown.status_code, unknown.json()["refused"]) == (411, "a request without its length")


@pytest.mark.parametrize("shown", [None, "Bearer wrong", "wrong"])
def test_on_loopback_an_operators_call_needs_the_secret(coordinator: Coordinator, shown: str | None) -> None:
    trusted = ssl.create_default_context(cafile=str(coordinator.home.ca))
    headers = {"content-type": "application/protobuf"} | ({"authorization": shown} if shown else {})
    with httpx.Client(base_url=f"https://{coordinator.link.address}", verify=trusted) as client:
        assert client.put("/admitted", content=b"[]", headers=headers).status_code == 401
        for path in ("/v1/control/list-nodes", "/v1/control/start-run"):
            assert client.post(path, content=b"", headers=headers).status_code == 401
        # An executor proves itself by the same secret, in Flower's own way.
        assert client.post("/v1/runtime/acquire-task", content=b"", headers=headers).status_code == 401


def test_an_app_that_the_coordinator_ships_is_never_fetched_and_never_run(
    coordinator: Coordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoy would leave a file, wherever it is imported; and a package of the same name is what the site has installed."""
    trace = tmp_path / "it ran"
    decoy = f"open({str(trace)!r}, 'w').close()\napp = None\n"
    monkeypatch.setattr(links, "APP", links.APP | {"rainhill_marker.py": decoy, "client/__init__.py": decoy, "client/app.py": decoy})
    assert b"client/app.py" in links.bundled(links.APP)[1]
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    site = new_identity()
    nodes = admit_only(coordinator.link, {"bury": site.node_public.encode()})
    with node(coordinator, site, backwards):
        assert until(lambda: coordinator.contact({"bury": site})["bury"])
        assert asked(coordinator, nodes, b"installed") == {"bury": b"dellatsni"}
    assert not trace.exists()
    assert not (tmp_path / "flwr").exists()


def test_a_superlink_that_is_killed_and_forgets_all_is_told_again_and_sites_come_back_by_themselves(tmp_path: Path) -> None:
    coordinator, site = Coordinator(tmp_path / "coordinator"), new_identity()
    keys = {"bury": site.node_public.encode()}
    coordinator.start()
    try:
        nodes = admit_only(coordinator.link, keys)
        with node(coordinator, site, backwards) as contact:
            assert until(lambda: coordinator.contact({"bury": site})["bury"])
            assert asked(coordinator, nodes, b"before") == {"bury": b"erofeb"}
            coordinator.end(kill=True)
            assert until(lambda: contact.reason != "")
            for path in coordinator.home.folder.glob("flower.sqlite*"):
                path.unlink()
            coordinator.start()
            nodes = admit_only(coordinator.link, keys)
            assert until(lambda: coordinator.contact({"bury": site})["bury"])
            assert asked(coordinator, nodes, b"after") == {"bury": b"retfa"}
    finally:
        coordinator.end()


def test_a_port_that_is_taken_is_told_in_one_line(coordinator: Coordinator) -> None:
    done = subprocess.run(superlink(coordinator.home).command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 2
    address = coordinator.home.config.address
    assert re.search(rf"cannot listen at 127.0.0.1:{address.port}: Address already in use", done.stderr)
    assert "Traceback" not in done.stderr
