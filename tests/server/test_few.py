"""Large requests are worked on a few at a time, and nobody who is slow keeps another from it. Sites and Flower are functions passed in."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from server.flower.few import Few, Receive, Scope, Send, whole

Message = MutableMapping[str, Any]
PUSH: Scope = {"type": "http", "path": "/v1/fleet/push-object"}


class Flower:
    """Answers with the length of what it was sent, some time after."""

    def __init__(self) -> None:
        self.working, self.most, self.done = 0, 0, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.working += 1
        self.most = max(self.most, self.working)
        body = await whole(receive)
        await asyncio.sleep(0.01)
        self.working -= 1
        self.done += 1
        await send({"type": "http.response.body", "body": str(len(body or b"")).encode()})


async def asked(app: Few, *parts: Message, scope: Scope = PUSH, stuck: asyncio.Event | None = None) -> list[Message]:
    """What was answered; a site that is `stuck` takes its answer when that is set."""
    waiting, answered = list(parts), []

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        if stuck is not None:
            await stuck.wait()
        answered.append(message)

    await app(scope, receive, send)
    return answered


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def test_few_large_requests_are_worked_on_at_a_time_and_each_is_answered_with_its_own() -> None:
    flower = Flower()

    async def all_at_once() -> list[list[Message]]:
        app = Few(app=flower, places=asyncio.Semaphore(2))
        return await asyncio.gather(*(asked(app, part(b"x", more=True), part(b"y" * number)) for number in range(9)))

    answers = asyncio.run(all_at_once())
    assert [one["body"] for (one,) in answers] == [str(1 + number).encode() for number in range(9)]
    assert flower.most == 2


def test_other_requests_wait_for_nobody() -> None:
    flower = Flower()

    async def all_at_once() -> None:
        app = Few(app=flower, places=asyncio.Semaphore(1))
        await asyncio.gather(*(asked(app, part(b""), scope={"type": "http", "path": "/v1/fleet/pull-messages"}) for _ in range(5)))

    asyncio.run(all_at_once())
    assert flower.most == 5


def test_a_site_that_is_slow_to_take_its_answer_holds_no_place() -> None:
    flower = Flower()

    async def both() -> None:
        app, stuck = Few(app=flower, places=asyncio.Semaphore(1)), asyncio.Event()
        slow = asyncio.create_task(asked(app, part(b"slow"), stuck=stuck))
        assert await asyncio.wait_for(asked(app, part(b"other")), 10)
        assert not slow.done()
        stuck.set()
        assert await slow

    asyncio.run(both())


def test_a_site_that_is_slow_to_send_holds_no_place() -> None:
    flower = Flower()

    async def both() -> None:
        app, sent = Few(app=flower, places=asyncio.Semaphore(1)), asyncio.Event()

        async def slowly() -> Message:
            await sent.wait()
            return part(b"slow")

        async def nowhere(message: Message) -> None:
            pass

        slow = asyncio.create_task(app(PUSH, slowly, nowhere))
        await asyncio.sleep(0)
        assert await asyncio.wait_for(asked(app, part(b"other")), 10)
        sent.set()
        await slow

    asyncio.run(both())
    assert flower.done == 2


def test_a_request_whose_sender_has_gone_is_not_worked_on() -> None:
    flower = Flower()
    assert asyncio.run(asked(Few(app=flower), part(b"x", more=True), {"type": "http.disconnect"})) == []
    assert flower.done == 0
