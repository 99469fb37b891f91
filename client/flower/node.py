"""The hospital's SuperNode: speaks Flower's fleet protocol, outbound only, and hands each message to what is installed here.

Flower's own fetches the coordinator's app and runs it. This one never asks for it: a site runs the code that it installed. It keeps trying
where the connection is lost, and polls quickly only while there is something to do.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from client.flower.line import Contact, Line, Where, words
from rainhill.errors import ProtocolError, RainhillError
from rainhill.messages import UNTOLD
from rainhill.offer import FRAME

if TYPE_CHECKING:
    from flwr.app import Message

log = logging.getLogger(__name__)

Work = Callable[["Message"], "Message"]
"""What is done with a message: its reply. It may take long, and several may be under way."""

IDLE_S = (0.1, 2.0)
"""Between two looks for a message: right after one or after a reply, and after a while without."""
BUSY_S = 4.0
"""The same while one is worked on: little else is asked meanwhile, and a look costs a kilobyte. Less than the 5 s after which either end
closes a connection that nothing goes over, as a new one costs more."""
AT_ONCE = 4
"""Messages under way: a fit, and what is asked meanwhile."""
MOST_OBJECTS = 512
"""Of one message: Flower cuts what is large into pieces of 5 MiB."""
LARGEST = 2**30
"""Bytes of one message, whatever run it is of."""


class Node:
    """One per process, as its line."""

    def __init__(
        self,
        where: Where,
        work: Work,
        *,
        stop: threading.Event,
        contact: Contact | None = None,
        memory: Path | None = None,
        room: Callable[[], int] = lambda: LARGEST,
    ) -> None:
        """`memory` is a file for Flower's number of this node: who was killed is let in again at once by it, and after a minute without.

        `room` says how many bytes a message may have, of all that this site was asked so far.
        """
        self.contact = contact or Contact()
        self._line = Line(where, stop=stop, contact=self.contact, memory=memory)
        self._work = work
        self._stop = stop
        self._wake = threading.Event()
        """A reply was sent, after which more may come at once; or the node is to stop."""
        self._room = room

    def run(self) -> None:
        """Until `stop` is set. What fails is tried again, with growing pauses."""
        beat = threading.Thread(target=self._beat, daemon=True)
        beat.start()
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="message") as pool:
            self._look(pool)
        beat.join()
        self._line.leave()

    def _beat(self) -> None:
        self._line.beat()
        # Which ends when the node is to stop.
        self._wake.set()

    def _look(self, pool: ThreadPoolExecutor) -> None:
        """For messages, one after the other."""
        idle, under_way = IDLE_S[0], list[Future[None]]()
        while not self._stop.is_set():
            pulled = self._line.pull()
            if pulled is None:
                return
            if pulled.messages_list:
                under_way.append(pool.submit(self._handle, pulled.messages_list[0], pulled.message_object_trees[0]))
                idle = IDLE_S[0]
                continue
            under_way = [one for one in under_way if not one.done()]
            if self._wake.wait(BUSY_S if under_way else idle):
                self._wake.clear()
                idle = IDLE_S[0]
            else:
                idle = min(1.2 * idle, IDLE_S[1])

    def _handle(self, proto: Any, tree: Any) -> None:
        try:
            message = self._received(proto, tree)
            if message is not None:
                self._send(self._worked(message))
                self._wake.set()
        except (httpx.HTTPError, ProtocolError) as error:
            self.contact.dropped += 1
            log.warning("a message was dropped: %s", words(error))
        except Exception:
            # Of a message that is not what it should be, or of our own: the node goes on.
            self.contact.dropped += 1
            log.exception("a message was dropped")

    def _worked(self, message: "Message") -> "Message":
        """The reply; where there is none, an error without the words of what went wrong, which may name a patient's file."""
        from flwr.app import Error, Message
        from flwr.common.constant import ErrorCode

        try:
            return self._work(message)
        except Exception as error:
            # A full disk, or what somebody else sent, is told in a line.
            foreseen = isinstance(error, RainhillError | OSError)
            log.warning("a message of type %s failed: %s", message.metadata.message_type, error, exc_info=None if foreseen else error)
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
        size, room = 0, FRAME
        for piece in pieces:
            content = self._piece(partial(PullObjectRequest, run_id=run, object_id=piece))
            if content is None:
                return None
            contents[piece] = content
            size += len(content)
            if size > room:
                # Asked only now: most messages are small.
                room = min(max(FRAME, self._room()), LARGEST)
            if size > room:
                raise ProtocolError(f"a message of more than {room} bytes, which no run that was offered here can want")
        self._line.call(
            lambda: self._line.client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(node=self._line.node(), run_id=run, message_object_id=name)
            )
        )  # fmt: skip
        message: Message = inflate_object_from_contents(name, contents)  # type: ignore[assignment]
        message.metadata.__dict__["_message_id"] = name
        return message

    def _piece(self, request: Callable[..., Any]) -> bytes | None:
        pause = IDLE_S[0]
        while not self._stop.is_set():
            pulled = self._line.call(lambda: self._line.client.PullObject(request(node=self._line.node())))
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
        pushed = self._line.call(
            lambda: self._line.client.PushMessages(
                PushMessagesRequest(
                    node=self._line.node(), messages_list=[proto], message_object_trees=[tree], clientapp_runtime_list=[0.0]
                )
            )
        )
        if pushed is None:
            return
        for name in pushed.objects_to_push:
            request = PushObjectRequest(
                node=self._line.node(),
                run_id=reply.metadata.run_id,
                object_id=name,
                session_id=pushed.session_id,
                object_content=objects[name].deflate(),
            )
            self._line.call(partial(self._line.client.PushObject, request))
