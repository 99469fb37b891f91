"""A site's line to the coordinator: Flower's fleet protocol over HTTPS, outbound, to one address, tried again until it holds."""

import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx

from client.clock import both_clocks, shown_by
from client.flower.bounded import TOO_LARGE, bounded
from rainhill.files import write_whole

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

HEARTBEAT_S = 30.0
RETRY_S = (0.25, 15.0)
"""Before a call that failed is made again: at first, and at most."""
CALL_S, LEAVE_S = 10.0, 2.0
"""For the coordinator to say a word, in a call and in the last one."""
REFUSED, KEY = "rainhill-refused", "key"
"""A header of the coordinator's guard, and what it says where it does not know the site's key."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """The coordinator, as this site knows it."""

    address: str
    """HOST:PORT."""
    trusted: bytes
    """PEM of the authorities that its certificate is checked against."""
    key: Any = field(repr=False)
    """The site's EC private key, as `cryptography` has it."""


@dataclass(kw_only=True)
class Contact:
    """What is known of the connection; read by metrics and by the site's page."""

    node: int | None = None
    last: float | None = None
    """Seconds since the epoch: when the coordinator last answered a call."""
    failures: int = 0
    dropped: int = 0
    """Messages that were not what they should be, or could not be taken whole."""
    reason: str = ""
    """Of the last failure."""
    ahead_s: float | None = None
    """Of this machine's clock before the coordinator's, to a second, as of its last answer."""
    certificate_until: float | None = None
    """Seconds since the epoch: when the certificate expires that the coordinator last showed."""


class Line:
    """One per process: Flower takes a second activation of the same key for a restart, and messages under way for lost."""

    def __init__(self, where: Where, *, stop: threading.Event, contact: Contact, memory: Path | None) -> None:
        self._where = where
        self._stop = stop
        self._memory = memory
        self._before: int | None = None
        """Flower's number of this node, as of the last time that it was let in."""
        self._entering = threading.Lock()
        self.contact = contact
        self.client = _client(where)
        self.client._client.event_hooks["response"] += [bounded, self._certificate, self._clock]

    def beat(self) -> None:
        """Until `stop` is set, says that the site is there."""
        while not self._stop.wait(HEARTBEAT_S / 3):
            if self.contact.node is not None:
                self.call(self._send_heartbeat, always=True)

    def node(self) -> Any:
        """Flower's name of this node, which it is given when it is activated."""
        from flwr.proto.node_pb2 import Node

        with self._entering:
            known = self.contact.node
            return Node(node_id=self._enter() if known is None else known)

    def call(self, call: Callable[[], Answer], *, always: bool = False) -> Answer | None:
        """What the coordinator answers, however often it has to be asked; None where the site stops before.

        Of one message, whose run may be over, what is refused is not asked again; `always` is for calls that a site lives by.
        """
        pause = RETRY_S[0]
        while not self._stop.is_set():
            try:
                answer = call()
            except (httpx.HTTPError, OSError, ValueError) as error:
                if not always and _is_final(error):
                    raise
                self._failed(error, pause)
                self._stop.wait(pause)
                pause = min(2 * pause, RETRY_S[1])
            else:
                self.contact.last, self.contact.reason = time.time(), ""
                return answer
        return None

    def pull(self) -> Any:
        """What the coordinator wants done next, if anything; None where the site stops before.

        The SuperLink tells of a message once. Where an answer was lost that may have held one, the site enters anew, and is asked again.
        """
        from flwr.proto.fleet_pb2 import PullMessagesRequest

        def once() -> Any:
            try:
                return self.client.PullMessages(PullMessagesRequest(node=self.node()))
            except httpx.HTTPError as error:
                if _may_have_answered(error):
                    self.contact.node = None
                raise

        return self.call(once, always=True)

    def leave(self) -> None:
        """Says so to the coordinator, if it can be told."""
        from flwr.proto.fleet_pb2 import DeactivateNodeRequest

        if self.contact.node is not None:
            # Not long: whoever stops the daemon waits.
            self.client._client.timeout = LEAVE_S
            try:
                self.client.DeactivateNode(DeactivateNodeRequest(node_id=self.contact.node))
            except httpx.HTTPError as error:
                log.info("the coordinator was not told that this site leaves: %s", words(error))
        self.client.close()

    def _certificate(self, response: httpx.Response) -> None:
        stream = response.extensions.get("network_stream")
        shown = stream and stream.get_extra_info("ssl_object")
        ends = ((shown and shown.getpeercert()) or {}).get("notAfter")
        if ends:
            self.contact.certificate_until = float(ssl.cert_time_to_seconds(ends))

    def _clock(self, response: httpx.Response) -> None:
        theirs = shown_by(response.headers.get("date"))
        if theirs is not None:
            self.contact.ahead_s = round(time.time() - theirs.timestamp() - 0.5, 1)

    def _send_heartbeat(self) -> Any:
        from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest

        return self.client.SendNodeHeartbeat(SendNodeHeartbeatRequest(node=self.node(), heartbeat_interval=HEARTBEAT_S))

    def _enter(self) -> int:
        from flwr.proto.fleet_pb2 import ActivateNodeRequest
        from flwr.supercore.primitives.asymmetric import public_key_to_bytes

        self._forget_the_one_before()
        key = public_key_to_bytes(self._where.key.public_key())
        activated = self.client.ActivateNode(ActivateNodeRequest(public_key=key, heartbeat_interval=HEARTBEAT_S))
        number = int(activated.node_id)
        self.contact.node = self._before = number
        if self._memory is not None:
            write_whole(self._memory, f"{number} {self._memory.parent.stat().st_ino}".encode(), private=True)
        log.info("connected to %s", self._where.address)
        return number

    def _forget_the_one_before(self) -> None:
        """Of this site, if it ended without a word: as long as Flower takes it to be there, it lets no other in."""
        from flwr.proto.fleet_pb2 import DeactivateNodeRequest

        try:
            if self._before is None and self._memory is not None:
                self._before = _remembered(self._memory)
            if self._before is not None:
                self.client.DeactivateNode(DeactivateNodeRequest(node_id=self._before))
        except httpx.HTTPStatusError as error:
            # It is not known any more.
            log.debug("%s", error)

    def _failed(self, error: Exception, pause: float) -> None:
        self.contact.failures += 1
        self.contact.reason = words(error)
        if isinstance(error, httpx.HTTPStatusError) and _not_known(error.response):
            # By this key, or for this clock: begins anew.
            self.contact.node = None
        log.warning("%s: %s; trying again in %.1f s", self._where.address, self.contact.reason, pause)


def _remembered(path: Path) -> int | None:
    """What a daemon of this very folder wrote. In a copy of the folder it is the number of one that may be running."""
    try:
        number, folder = (int(word) for word in path.read_text().split())
    except (OSError, ValueError):
        return None
    return number if folder == path.parent.stat().st_ino else None


def try_key(where: Where, memory: Path) -> str:
    """Why the coordinator does not let this site's key in; empty where it does. Not to be called while the site's daemon runs."""
    one = Line(where, stop=threading.Event(), contact=Contact(), memory=memory)
    try:
        one.node()
    except (httpx.HTTPError, OSError, ValueError) as error:
        return words(error)
    finally:
        one.leave()
    return ""


def _client(where: Where) -> Any:
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    client = FleetHttpClient.from_server_address(
        where.address,
        insecure=False,
        root_certificates=where.trusted,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(where.key, where.key.public_key()),
        ],
    )
    # One address: an answer that sends elsewhere is none.
    client._client.follow_redirects = False
    client._client.timeout = CALL_S
    # What is packed may unpack to anything.
    client._client.headers["accept-encoding"] = "identity"
    return client


_LATER = frozenset({httpx.codes.PRECONDITION_FAILED, httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS})


def _not_known(response: httpx.Response) -> bool:
    """By this key, or for this clock. Flower's own 403 is of a message whose run is over, and says nothing of the site."""
    return response.status_code == httpx.codes.UNAUTHORIZED or response.headers.get(REFUSED) == KEY


def _may_have_answered(error: httpx.HTTPError) -> bool:
    """Whether the call may have come to the coordinator, and only its answer was lost, by it or by a proxy on the way."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.is_server_error
    return not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def _is_final(error: Exception) -> bool:
    """Whether to ask again is of no use: the run is over, or the coordinator does not take it. A key not known may yet be enrolled."""
    if isinstance(error, httpx.RemoteProtocolError) and str(error) == TOO_LARGE:
        return True
    if not isinstance(error, httpx.HTTPStatusError) or _not_known(error.response):
        return False
    return error.response.is_client_error and error.response.status_code not in _LATER


def words(error: Exception) -> str:
    """Without what the other side wrote, but for a status."""
    if not isinstance(error, httpx.HTTPStatusError):
        said = str(error) or type(error).__name__
        of_time = "certificate has expired" in said or "certificate is not yet valid" in said
        return f"{said}; this machine's clock shows {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC" if of_time else said
    path, status = error.request.url.path, error.response.status_code
    if error.response.headers.get(REFUSED) == KEY:
        return "the coordinator does not know this site's key: it is not enrolled yet, or was revoked"
    if status == httpx.codes.FORBIDDEN:
        return f"HTTP {status} to {path}: of a run that is over, or by something between this site and the coordinator"
    if status == httpx.codes.UNAUTHORIZED:
        theirs = shown_by(error.response.headers.get("date"))
        both = f": {both_clocks(datetime.now(UTC), theirs)}" if theirs else ""
        return f"the coordinator does not take this site's signature: this machine's clock is wrong, or the coordinator's{both}"
    if path.endswith("/activate-node") and status == httpx.codes.PRECONDITION_FAILED:
        return "another daemon is in contact with this site's key, or one ended without a word within the last minute"
    return f"HTTP {status} to {path}"
