"""Flower's grid over HTTP, which waits for no site that is slow to send: a reply is there when all its pieces are."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.superlink.grid import HttpGrid

log = logging.getLogger(__name__)

LARGEST = 2**30
"""Bytes of one reply; of one that is larger nothing more is taken, and it counts as none."""


@dataclass(kw_only=True)
class _Arriving:
    name: str
    answers: str
    """Id of the message that it is the reply to."""
    missing: list[str]
    contents: dict[str, bytes] = field(default_factory=dict)
    size: int = 0


class LiveGrid(HttpGrid):
    """Of a SuperLink on this machine."""

    def __init__(self, address: str, *, root_certificates: bytes, token: str) -> None:
        super().__init__(address, insecure=False, root_certificates=root_certificates, token=token)
        self._arriving: dict[str, _Arriving] = {}

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Those replies to these messages that are there whole; does not wait."""
        asked = set(message_ids)
        # The SuperLink tells of a reply once.
        unheard = asked - {one.answers for one in self._arriving.values()}
        told = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=sorted(unheard))) if unheard else None
        for proto, tree in zip(told.messages_list, told.message_object_trees, strict=True) if told else ():
            pieces = list(dict.fromkeys(one.object_id for one in iterate_object_tree(tree)))
            name = proto.metadata.message_id
            self._arriving[name] = _Arriving(name=name, answers=proto.metadata.reply_to_message_id, missing=pieces)
        whole = [one for one in self._arriving.values() if one.answers in asked and self._is_whole(one)]
        return [self._taken(one) for one in whole]

    def _is_whole(self, one: _Arriving) -> bool:
        """After all of its pieces that have come were taken."""
        while one.missing and one.size <= LARGEST:
            request = PullObjectRequest(node=self.node, run_id=self.run.run_id, object_id=one.missing[0])
            pulled: Any = self._runtime_client.PullObject(request)
            if not pulled.object_available:
                return False
            piece = one.missing.pop(0)
            one.contents[piece] = pulled.object_content
            one.size += len(pulled.object_content)
        return not one.missing

    def _taken(self, one: _Arriving) -> Message:
        del self._arriving[one.name]
        self._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self.node, run_id=self.run.run_id, message_object_id=one.name)
        )
        message = inflate_object_from_contents(one.name, one.contents)
        assert isinstance(message, Message)
        message.metadata.__dict__["_message_id"] = one.name
        return message
