"""What was said over a tapped line: HTTP calls, Flower's objects in them, and Rainhill's messages in those. RFC 9112; Flower 1.41."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from perf._tap import WAYS, Connection, Way
from rainhill import wire
from rainhill.errors import ProtocolError

if TYPE_CHECKING:
    from flwr.app import Message

FLEET = "/v1/fleet/"


@dataclass(frozen=True, kw_only=True)
class Half:
    """A request, or what was answered to one."""

    at: float
    """time.time(), of its first byte."""
    first: str
    """Its first line."""
    body: bytes
    size: int
    """Bytes of all of it."""


@dataclass(frozen=True, kw_only=True)
class Call:
    asked: Half
    answered: Half | None
    """None where the line was cut before."""

    @property
    def name(self) -> str:
        """Such as `push-object`."""
        return self.asked.first.split(" ")[1].removeprefix(FLEET)

    def size(self, way: Way) -> int:
        half = self.asked if way == "up" else self.answered
        return half.size if half else 0


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A message of Flower's that crossed whole, and the calls that brought its pieces."""

    way: Way
    kind: str
    """Flower's type of it."""
    blob: bytes
    """What it holds: a stamped message of ours, or an offer with what was said to it."""
    calls: tuple[Call, ...]

    @property
    def at(self) -> float:
        return min(call.asked.at for call in self.calls)


def calls_of(connection: Connection) -> list[Call]:
    """ProtocolError for what is no HTTP/1.1."""
    asked, answered = (list(_halves(connection, way)) for way in WAYS)
    return [Call(asked=half, answered=answered[n] if n < len(answered) else None) for n, half in enumerate(asked)]


def carried(calls: list[Call]) -> Iterator[Carried]:
    """All messages that crossed, in both directions."""
    from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PullObjectResponse, PushObjectRequest

    brought: dict[tuple[Way, str], tuple[bytes, list[Call]]] = {}
    trees: list[tuple[Way, object, Call]] = []
    for call in calls:
        body = call.answered.body if call.answered else b""
        if call.name == "push-object":
            up = PushObjectRequest.FromString(call.asked.body)
            brought.setdefault(("up", up.object_id), (up.object_content, []))[1].append(call)
        elif call.name == "pull-object":
            name = PullObjectRequest.FromString(call.asked.body).object_id
            content = PullObjectResponse.FromString(body).object_content
            before, known = brought.get(("down", name), (b"", []))
            brought["down", name] = content or before, [*known, call]
        elif call.name == "confirm-message-received":
            name = ConfirmMessageReceivedRequest.FromString(call.asked.body).message_object_id
            content, known = brought.get(("down", name), (b"", []))
            brought["down", name] = content, [*known, call]
        elif call.name == "push-messages":
            trees += [("up", tree, call) for tree in PushMessagesRequest.FromString(call.asked.body).message_object_trees]
        elif call.name == "pull-messages":
            trees += [("down", tree, call) for tree in PullMessagesResponse.FromString(body).message_object_trees]
    for way, tree, call in trees:
        yield from _whole(way, tree, call, brought)


def _whole(way: Way, tree: object, call: Call, brought: dict[tuple[Way, str], tuple[bytes, list[Call]]]) -> Iterator[Carried]:
    from flwr.app import Message
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    names = list(dict.fromkeys(one.object_id for one in iterate_object_tree(tree)))  # type: ignore[arg-type]
    # A piece that was not there yet was brought empty.
    found = {name: brought[way, name] for name in names if brought.get((way, name), (b"",))[0]}
    if len(found) < len(names):
        return
    message = inflate_object_from_contents(names[-1], {name: content for name, (content, _) in found.items()})
    assert isinstance(message, Message)
    with_it = tuple(dict.fromkeys([call, *(one for _, carriers in found.values() for one in carriers)]))
    yield Carried(way=way, kind=message.metadata.message_type, blob=_held(message), calls=with_it)


def _held(message: "Message") -> bytes:
    if message.has_error():
        return b""
    content = message.content
    if content.array_records:
        return wire.from_record(content)
    values = (value for record in content.config_records.values() for value in record.values())
    return b"".join(value for value in values if isinstance(value, bytes))


def _halves(connection: Connection, way: Way) -> Iterator[Half]:
    data, at = connection.said(way), 0
    pieces = [piece for piece in connection.clear if piece.way == way]
    starts = list(accumulate((len(piece.data) for piece in pieces), initial=0))
    while at < len(data):
        start = data.find(b"\r\n\r\n", at) + 4
        if start < 4:
            return
        first, *lines = data[at : start - 4].decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body, end = _body(data, start, fields)
        if end > len(data):
            # The line was cut.
            return
        yield Half(at=pieces[bisect_right(starts, at) - 1].at, first=first, body=body, size=end - at)
        at = end


def _body(data: bytes, start: int, fields: dict[str, str]) -> tuple[bytes, int]:
    """The body, and where it ends."""
    if fields.get("transfer-encoding", "").lower() == "chunked":
        return _chunks(data, start)
    if "content-encoding" in fields:
        raise ProtocolError(f"a body in encoding {fields['content-encoding']}, which nothing here writes")
    end = start + int(fields.get("content-length", "0"))
    return data[start:end], end


def _chunks(data: bytes, start: int) -> tuple[bytes, int]:
    """RFC 9112, section 7.1."""
    body = b""
    while True:
        line = data.find(b"\r\n", start)
        if line < 0:
            return body, len(data) + 1
        size, start = int(data[start:line].partition(b";")[0], 16), line + 2
        body += data[start : start + size]
        start += size + 2
        if size == 0:
            return body, start
