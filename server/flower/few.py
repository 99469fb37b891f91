"""An ASGI application before another, which lets few large requests at a time through to it: Flower makes several copies of each."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LARGE = frozenset({"/v1/fleet/pull-object", "/v1/fleet/push-object"})
"""Calls with pieces of up to 5 MiB."""
AT_ONCE = 4
"""Python works on one at a time anyway; the others would hold memory meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Few:
    """Who is slow to send a request or to take its answer holds no place."""

    app: App
    paths: frozenset[str] = LARGE
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in self.paths:
            await self.app(scope, receive, send)
            return
        body = await whole(receive)
        if body is None:
            return
        unread = [body]

        async def request() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": unread.pop(), "more_body": False} if unread else await receive()

        async with AsyncExitStack() as place:
            await place.enter_async_context(self.places)

            async def answer(message: MutableMapping[str, Any]) -> None:
                await place.aclose()
                await send(message)

            await self.app(scope, request, answer)


async def whole(receive: Receive) -> bytes | None:
    """A request's body; None where its sender has gone before it was all there."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
