"""Flower's grid over HTTP, which waits for no site that is slow to send: a reply is there when all its pieces are."""

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError, inflate_object_from_contents
from flwr.superlink.grid import HttpGrid

log = logging.getLogger(__name__)

AGAIN_S = (0.02, 0.5)
"""Before it is looked again whether a reply is whole: at first, and at most."""
LARGEST = 2**30
"""Bytes of one reply, whatever run it is of."""
TOO_LARGE = 1000
"""Ours, beside Flower's codes of errors: nothing more of such a reply is taken, and it counts as this error."""


@dataclass(kw_only=True)
class _Arriving:
    name: str
    answers: str
    """Id of the message that it is the reply to."""
    missing: list[str]
    """Ids of its pieces, in the order in which they are asked for."""
    proto: Any = field(repr=False)
    """What was said of it."""
    pause: float = AGAIN_S[0]
    due: float = 0.0
    """time.monotonic() before which it is left alone."""
    contents: dict[str, bytes] = field(default_factory=dict)
    size: int = 0


class LiveGrid(HttpGrid):
    """Of a SuperLink on this machine."""

    def __init__(self, address: str, *, root_certificates: bytes, token: str, room: int = LARGEST) -> None:
        """`room` is how many bytes a reply may have."""
        super().__init__(address, insecure=False, root_certificates=root_certificates, token=token)
        self._room = min(room, LARGEST)
        self._arriving: dict[str, _Arriving] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Raises ConnectionResetError where the SuperLink was started again between a message and its pieces, and knows nothing of it."""
        try:
            return super().push_messages(messages)
        except ObjectPushError as error:
            raise ConnectionResetError(f"the SuperLink lost a message that was being pushed: {error}") from error

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Those replies to these messages that are there whole; does not wait. Each is fetched when it is asked for."""
        asked = set(message_ids)
        # The SuperLink tells of a reply once.
        unheard = asked - {one.answers for one in self._arriving.values()}
        told = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=sorted(unheard))) if unheard else None
        for proto, tree in zip(told.messages_list, told.message_object_trees, strict=True) if told else ():
            # The message itself first: a site of ours sends it last, so that as long as it is not there nothing else is fetched.
            pieces = list(dict.fromkeys(one.object_id for one in iterate_object_tree(tree)))[::-1]
            name = proto.metadata.message_id
            self._arriving[name] = _Arriving(name=name, answers=proto.metadata.reply_to_message_id, missing=pieces, proto=proto)
        for one in list(self._arriving.values()):
            if one.answers in asked and time.monotonic() >= one.due and self._is_whole(one):
                yield self._taken(one)

    def _is_whole(self, one: _Arriving) -> bool:
        """After all of its pieces that have come were taken, or enough of them to see that it is too large."""
        while one.missing and one.size <= self._room:
            request = PullObjectRequest(node=self.node, run_id=self.run.run_id, object_id=one.missing[0])
            pulled: Any = self._runtime_client.PullObject(request)
            if not pulled.object_available:
                one.due = time.monotonic() + one.pause
                one.pause = min(2 * one.pause, AGAIN_S[1])
                return False
            piece = one.missing.pop(0)
            one.contents[piece] = pulled.object_content
            one.size += len(pulled.object_content)
        return True

    def _taken(self, one: _Arriving) -> Message:
        del self._arriving[one.name]
        self._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self.node, run_id=self.run.run_id, message_object_id=one.name)
        )
        if one.size > self._room:
            log.warning("a reply of node %d has more than %d bytes: it is not taken", one.proto.metadata.src_node_id, self._room)
            one.proto.ClearField("content")
            one.proto.error.code = TOO_LARGE
            return message_from_proto(one.proto)
        message = inflate_object_from_contents(one.name, one.contents)
        # Whoever fetches the next one may still know this one.
        one.contents.clear()
        assert isinstance(message, Message)
        message.metadata.__dict__["_message_id"] = one.name
        return message
