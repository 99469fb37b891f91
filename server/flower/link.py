"""The coordinator's own side of its SuperLink: which sites may connect, and a grid for the rounds of one run.

A Flower run is over when its ServerApp or its SuperLink is; a run of ours lives through several of them.
"""

import hashlib
import io
import logging
import ssl
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from rainhill.messages import SiteId
from server.flower.superlink import ADMITTED, BEARER

if TYPE_CHECKING:
    from flwr.serverapp import Grid

log = logging.getLogger(__name__)

APP = {
    "pyproject.toml": """[project]
name = "rainhill"
version = "1.0.0"
description = "A marker: sites run the Rainhill that they installed, and never this."
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41.0,<2.0"]

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.flwr.app]
publisher = "rainhill"
fab-format-version = 1
flwr-version-target = "1.41.0"

[tool.flwr.app.components]
serverapp = "rainhill_marker:app"
clientapp = "rainhill_marker:app"
""",
    "LICENSE": "Apache-2.0\n",
    "rainhill_marker.py": "app = None\n",
}


@dataclass(frozen=True, kw_only=True)
class Link:
    """Where the SuperLink is reached from this machine."""

    port: int
    """Its private one, on 127.0.0.1."""
    ca: Path
    secret: bytes = field(repr=False)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


class _ShowSecret:
    """An interceptor of Flower's client."""

    def __init__(self, secret: bytes) -> None:
        self._shown = BEARER + secret.decode()

    def intercept(self, context: Any, call_next: Any) -> httpx.Response:
        context.request.headers["authorization"] = self._shown
        response: httpx.Response = call_next(context)
        return response


def import_flower() -> None:
    """Before several threads use it: of two that import it at once one finds it half imported, and fails."""
    import flwr.server  # noqa: F401


@contextmanager
def control_of(link: Link) -> Iterator[Any]:
    from flwr.supercore.control.control_http_client import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    client = ControlHttpClient.from_server_address(
        link.address,
        insecure=False,
        root_certificates=link.ca.read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="rainhill"), _ShowSecret(link.secret)],
    )
    try:
        yield client
    finally:
        client.close()


def admit_only(link: Link, keys: Mapping[SiteId, bytes]) -> dict[SiteId, int]:
    """Has the SuperLink hear just these sites, by their node keys (PEM, EC P-384), and gives the node of each.

    To Flower a key that was taken out once is taken for good. So it is told of keys only, and the guard before it forgets them.
    """
    from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest

    trusted = ssl.create_default_context(cadata=link.ca.read_bytes().decode("ascii"))
    shown = {"authorization": BEARER + link.secret.decode()}
    with httpx.Client(verify=trusted, headers=shown) as client:
        client.put(f"https://{link.address}{ADMITTED}", json=[pem.decode() for pem in keys.values()]).raise_for_status()
    with control_of(link) as control:
        known = {bytes(node.public_key): node.node_id for node in control.ListNodes(ListNodesRequest()).nodes_info}
        for site, pem in keys.items():
            if pem not in known:
                known[pem] = control.RegisterNode(RegisterNodeRequest(public_key=pem, name=site)).node_id
    return {site: known[pem] for site, pem in keys.items()}


def connected(link: Link, keys: Mapping[SiteId, bytes]) -> dict[SiteId, bool]:
    """Whether each of these sites, by their node keys, is in contact with the SuperLink."""
    from flwr.proto.control_pb2 import ListNodesRequest

    with control_of(link) as control:
        nodes = control.ListNodes(ListNodesRequest()).nodes_info
    online = {bytes(node.public_key) for node in nodes if node.status == "online"}
    return {site: pem in online for site, pem in keys.items()}


@contextmanager
def opened_grid(link: Link, *, room: int = 2**30) -> Iterator["Grid"]:
    """A Flower run of its own, in which this process is the ServerApp. `room` is how many bytes a reply may have."""
    from flwr.common.serde import run_from_proto
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.proto.fab_pb2 import Fab
    from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest, PushTaskOutputRequest
    from flwr.supercore.heartbeat import HeartbeatSender
    from flwr.supercore.task_identity import TaskIdentity

    from server.flower.live_grid import LiveGrid

    digest, content = bundled(APP)
    with control_of(link) as control:
        started = control.StartRun(StartRunRequest(fab=Fab(hash_str=digest, content=content)))
    token = _token(link, started.run_id, AcquireTaskRequest(supported_task_types=["flwr-serverapp"]))
    grid = LiveGrid(link.address, root_certificates=link.ca.read_bytes(), token=token, room=room)
    client = grid._runtime_client
    beat = HeartbeatSender(lambda: _beaten(client))
    done = False
    try:
        beat.start()
        given = client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = given.task_id, given.run.run_id, given.context.node_id
        grid.set_run(run_from_proto(given.run))
        yield grid
        done = True
    finally:
        if beat.is_running:
            beat.stop()
        try:
            grid._retry_invoker.max_tries = 1
            client.PushTaskOutput(PushTaskOutputRequest(sub_status="completed" if done else "stopped", details=""))
        except httpx.HTTPError as error:
            log.warning("the SuperLink was not told that a run is over: %s", error)
        grid.close()


def bundled(files: Mapping[str, str]) -> tuple[str, bytes]:
    """A Flower App Bundle: the sha256 that it goes by, and its bytes."""
    listing = [f"{name},{hashlib.sha256(text.encode()).hexdigest()},{8 * len(text.encode())}" for name, text in files.items()]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (*files.items(), (".info/CONTENT", "\n".join(listing))):
            # Of no time, so that the same files are the same bytes.
            archive.writestr(zipfile.ZipInfo(name), text)
    return hashlib.sha256(content.getvalue()).hexdigest(), content.getvalue()


def _token(link: Link, run: int, request: Any, *, within_s: float = 30.0) -> str:
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
    from flwr.supercore.runtime import RuntimeHttpClient

    client = RuntimeHttpClient.from_server_address(
        server_address=link.address,
        insecure=False,
        root_certificates=link.ca.read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperExec"),
            SuperExecAuthHttpInterceptor(master_secret=link.secret, protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"})),
        ],
    )
    stop = time.monotonic() + within_s
    try:
        while time.monotonic() < stop:
            taken = client.AcquireTask(request)
            # One of an earlier run, that nobody took: it ends by itself when no heartbeat comes.
            if taken.token and taken.task.run_id == run:
                return str(taken.token)
            time.sleep(0.05)
    finally:
        client.close()
    raise TimeoutError(f"the SuperLink gave no task for run {run} within {within_s:g} s")


def _beaten(client: Any) -> bool:
    """Flower's own would end this process where the run is over; here the rounds find that out by themselves."""
    from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest

    try:
        return bool(client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success)
    except httpx.HTTPError:
        return False
