"""The hospital's SuperNode: speaks Flower's fleet protocol, outbound only, and hands each message to what is installed here.

Flower's own fetches the coordinator's app and runs it. This one never asks for it: a site runs the code that it installed. It keeps trying
where the connection is lost, and polls quickly only while there is something to do.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from rainhill.errors import ProtocolError
from rainhill.files import write_whole
from rainhill.messages import UNTOLD

if TYPE_CHECKING:
    from flwr.app import Message

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

Work = Callable[["Message"], "Message"]
"""What is done with a message: its reply. It may take long, and several may be under way."""

HEARTBEAT_S = 30.0
IDLE_S = (0.1, 2.0)
"""Between two looks for a message: right after one, and after a while without."""
RETRY_S = (0.25, 15.0)
"""Before a call that failed is made again: at first, and at most."""
CALL_S, LEAVE_S = 10.0, 2.0
"""For the coordinator to say a word, in a call and in the last one."""
AT_ONCE = 4
"""Messages under way: a fit, and what is asked meanwhile."""
MOST_OBJECTS = 512
"""Of one message: Flower cuts what is large into pieces of 5 MiB."""
LARGEST = 2**30
"""Bytes of one message."""


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
    reason: str = ""
    """Of the last failure."""


class Node:
    """One per process: Flower takes a second activation of the same key for a restart, and messages under way for lost."""

    def __init__(
        self, where: Where, work: Work, *, stop: threading.Event, contact: Contact | None = None, memory: Path | None = None
    ) -> None:
        """`memory` is a file for Flower's number of this node: who was killed is let in again at once by it, and after a minute without."""
        self._where = where
        self._memory = memory
        self._before: int | None = None
        """Flower's number of this node, as of the last time that it was let in."""
        self._work = work
        self._stop = stop
        self.contact = contact or Contact()
        self._client = _client(where)

    def run(self) -> None:
        """Until `stop` is set. What fails is tried again, with growing pauses."""
        beat = threading.Thread(target=self._beat, daemon=True)
        beat.start()
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="message") as pool:
            self._look(pool)
        beat.join()
        self.leave()

    def leave(self) -> None:
        """Says so to the coordinator, if it can be told."""
        from flwr.proto.fleet_pb2 import DeactivateNodeRequest

        if self.contact.node is not None:
            # Not long: whoever stops the daemon waits.
            self._client._client.timeout = LEAVE_S
            try:
                self._client.DeactivateNode(DeactivateNodeRequest(node_id=self.contact.node))
            except httpx.HTTPError as error:
                log.info("the coordinator was not told that this site leaves: %s", _words(error))
        self._client.close()

    def _look(self, pool: ThreadPoolExecutor) -> None:
        """For messages, one after the other."""
        from flwr.proto.fleet_pb2 import PullMessagesRequest

        idle = IDLE_S[0]
        while not self._stop.is_set():
            pulled = self._call(lambda: self._client.PullMessages(PullMessagesRequest(node=self._node())), always=True)
            if pulled is None:
                return
            if pulled.messages_list:
                pool.submit(self._handle, pulled.messages_list[0], pulled.message_object_trees[0])
                idle = IDLE_S[0]
            else:
                self._stop.wait(idle)
                idle = min(1.2 * idle, IDLE_S[1])

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S / 3):
            if self.contact.node is not None:
                self._call(self._send_heartbeat, always=True)

    def _send_heartbeat(self) -> Any:
        from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest

        return self._client.SendNodeHeartbeat(SendNodeHeartbeatRequest(node=self._node(), heartbeat_interval=HEARTBEAT_S))

    def _node(self) -> Any:
        """Flower's name of this node, which it is given when it is activated."""
        from flwr.proto.fleet_pb2 import ActivateNodeRequest
        from flwr.proto.node_pb2 import Node as FlowerNode
        from flwr.supercore.primitives.asymmetric import public_key_to_bytes

        if self.contact.node is None:
            self._forget_the_one_before()
            key = public_key_to_bytes(self._where.key.public_key())
            activated = self._client.ActivateNode(ActivateNodeRequest(public_key=key, heartbeat_interval=HEARTBEAT_S))
            self.contact.node = self._before = activated.node_id
            if self._memory is not None:
                write_whole(self._memory, str(activated.node_id).encode(), private=True)
            log.info("connected to %s", self._where.address)
        return FlowerNode(node_id=self.contact.node)

    def _forget_the_one_before(self) -> None:
        """Of this site, if it ended without a word: as long as Flower takes it to be there, it lets no other in."""
        from flwr.proto.fleet_pb2 import DeactivateNodeRequest

        try:
            if self._before is None and self._memory is not None and self._memory.exists():
                self._before = int(self._memory.read_text())
            if self._before is not None:
                self._client.DeactivateNode(DeactivateNodeRequest(node_id=self._before))
        except (httpx.HTTPStatusError, ValueError) as error:
            # It is not known any more, or not there.
            log.debug("%s", error)

    def _call(self, call: Callable[[], Answer], *, always: bool = False) -> Answer | None:
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

    def _failed(self, error: Exception, pause: float) -> None:
        self.contact.failures += 1
        self.contact.reason = _words(error)
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in _NOT_KNOWN:
            # By this key, or for this clock: begins anew.
            self.contact.node = None
        log.warning("%s: %s; trying again in %.1f s", self._where.address, self.contact.reason, pause)

    def _handle(self, proto: Any, tree: Any) -> None:
        try:
            message = self._received(proto, tree)
            if message is not None:
                self._send(self._worked(message))
        except httpx.HTTPStatusError as error:
            log.warning("a message was dropped: %s", _words(error))
        except Exception:
            # Of a message that is not what it should be, or of our own: the node goes on.
            log.exception("a message was dropped")

    def _worked(self, message: "Message") -> "Message":
        """The reply; where there is none, an error without the words of what went wrong, which may name a patient's file."""
        from flwr.app import Error, Message
        from flwr.common.constant import ErrorCode

        try:
            return self._work(message)
        except Exception:
            log.exception("a message of type %s failed", message.metadata.message_type)
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, UNTOLD), reply_to=message)

    def _received(self, proto: Any, tree: Any) -> "Message | None":
        """With all its pieces, which the coordinator then forgets."""
        from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
        from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
        from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

        run, name = proto.metadata.run_id, proto.metadata.message_id
        pieces = list(dict.fromkeys(one.object_id for one in iterate_object_tree(tree)))
        if len(pieces) > MOST_OBJECTS:
            raise ProtocolError(f"a message of {len(pieces)} objects, at most {MOST_OBJECTS} are taken")
        contents: dict[str, bytes] = {}
        for piece in pieces:
            content = self._piece(partial(PullObjectRequest, run_id=run, object_id=piece))
            if content is None:
                return None
            contents[piece] = content
            if sum(map(len, contents.values())) > LARGEST:
                raise ProtocolError(f"a message of more than {LARGEST} bytes")
        self._call(
            lambda: self._client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(node=self._node(), run_id=run, message_object_id=name)
            )
        )  # fmt: skip
        message: Message = inflate_object_from_contents(name, contents)  # type: ignore[assignment]
        message.metadata.__dict__["_message_id"] = name
        return message

    def _piece(self, request: Callable[..., Any]) -> bytes | None:
        pause = IDLE_S[0]
        while not self._stop.is_set():
            pulled = self._call(lambda: self._client.PullObject(request(node=self._node())))
            if pulled is None:
                return None
            if not pulled.object_found:
                raise ProtocolError("a message, of which the coordinator does not have a part")
            if pulled.object_available:
                return bytes(pulled.object_content)
            self._stop.wait(pause)
            pause = min(2 * pause, IDLE_S[1])
        return None

    def _send(self, reply: "Message") -> None:
        from flwr.app.message import remove_content_from_message
        from flwr.common.serde import message_to_proto
        from flwr.proto.fleet_pb2 import PushMessagesRequest
        from flwr.proto.message_pb2 import PushObjectRequest
        from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

        reply.metadata.__dict__["_message_id"] = reply.object_id
        proto, tree, objects = message_to_proto(remove_content_from_message(reply)), get_object_tree(reply), get_all_nested_objects(reply)
        pushed = self._call(
            lambda: self._client.PushMessages(
                PushMessagesRequest(node=self._node(), messages_list=[proto], message_object_trees=[tree], clientapp_runtime_list=[0.0])
            )
        )
        if pushed is None:
            return
        for name in pushed.objects_to_push:
            request = PushObjectRequest(
                node=self._node(),
                run_id=reply.metadata.run_id,
                object_id=name,
                session_id=pushed.session_id,
                object_content=objects[name].deflate(),
            )
            self._call(partial(self._client.PushObject, request))


def try_key(where: Where, memory: Path) -> str:
    """Why the coordinator does not let this site's key in; empty where it does. Not to be called while the site's daemon runs."""
    one = Node(where, lambda message: message, stop=threading.Event(), memory=memory)
    try:
        one._node()
    except (httpx.HTTPError, OSError, ValueError) as error:
        return _words(error)
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
    return client


_NOT_KNOWN = frozenset({httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN})
_LATER = frozenset({*_NOT_KNOWN, httpx.codes.PRECONDITION_FAILED, httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS})


def _is_final(error: Exception) -> bool:
    """Whether to ask again is of no use: the run is over, or the coordinator does not take it. A key not known may yet be enrolled."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.is_client_error and error.response.status_code not in _LATER


def _words(error: Exception) -> str:
    """Without what the other side wrote, but for a status."""
    if not isinstance(error, httpx.HTTPStatusError):
        return str(error) or type(error).__name__
    path, status = error.request.url.path, error.response.status_code
    if status == httpx.codes.FORBIDDEN:
        return "the coordinator does not know this site's key: it is not enrolled yet, or was revoked"
    if status == httpx.codes.UNAUTHORIZED:
        return "the coordinator does not take this site's signature: this machine's clock is wrong, or the coordinator's"
    if path.endswith("/activate-node") and status == httpx.codes.PRECONDITION_FAILED:
        return "another daemon is in contact with this site's key, or one ended without a word within the last minute"
    return f"HTTP {status} to {path}"
