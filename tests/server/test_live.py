"""Rounds over the network: sites that need time, fail, come late or are killed, and what is signed by nobody who may."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from flwr.app import Message
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.superlink.grid import HttpGrid

from client.flower.app import at_work
from client.flower.line import Contact
from client.flower.live import live_app
from client.identity import new_identity
from rainhill import signed, wire
from rainhill.adapter import Adapter
from rainhill.errors import RefusedError
from rainhill.messages import Plan, Refusal, Update, Waiting
from server.flower import live
from server.flower.link import admit_only, opened_grid
from server.flower.live import Member, collect_live
from server.flower.live_grid import LiveGrid
from tests.server.peers import WITHIN_S, Coordinator, node, until

SITE = str(Path(__file__).with_name("live_site.py"))
Answer = Callable[[Plan], Update | Refusal | Waiting]
Answers = dict[str, Update | Refusal]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PRESENCE_S", 0.2)
    monkeypatch.setattr(live, "RETRY_S", 0.2)


def nothing_offered(sealed: bytes, number: int, nonce: bytes) -> bytes:
    raise RefusedError("nobody is offered anything here")


class Consortium:
    """A coordinator and two hospitals with keys, which are members of a run."""

    def __init__(self, folder: Path) -> None:
        self.coordinator = Coordinator(folder / "coordinator")
        self.key = self.coordinator.home.key()
        self.public = signed.public_key(self.key)
        self.sites = {name: new_identity() for name in ("bury", "oldham")}
        for name, identity in self.sites.items():
            identity.keep(folder / name)
        self.folder = folder
        self.heard: Counter[str] = Counter()
        """Site -> messages that it was brought."""

    def start(self) -> None:
        self.coordinator.start()
        self.members()

    def members(self) -> dict[str, Member]:
        nodes = admit_only(self.coordinator.link, {name: one.node_public.encode() for name, one in self.sites.items()})
        return {name: Member(node=nodes[name], signing_key=one.signing_public) for name, one in self.sites.items()}

    def node(
        self, site: str, answer: Answer, *, signing: bytes | None = None, lose: Callable[[httpx.Response], None] | None = None
    ) -> AbstractContextManager[Contact]:
        app = live_app(site, answer, stand=nothing_offered, signing=signing or self.sites[site].signing, consortium=self.public)
        work = at_work(app)

        def heard(message: Message) -> Message:
            self.heard[site] += 1
            return work(message)

        return node(self.coordinator, self.sites[site], heard, memory=self.folder / site / "node", lose=lose)

    def ask(
        self,
        *,
        number: int = 1,
        deadline_s: float = WITHIN_S,
        key: bytes | None = None,
        members: dict[str, Member] | None = None,
        waits: Callable[[str, str], None] = lambda site, reason: None,
    ) -> Answers:
        plans = {site: plan_of(site, number) for site in self.sites}
        with opened_grid(self.coordinator.link) as grid:
            collect = collect_live(
                grid, self.members() if members is None else members, key=key or self.key, deadline_s=deadline_s, waits=waits
            )
            return {answer.site: answer for answer in collect(plans)}

    def process(self, site: str, *, seconds: float) -> "subprocess.Popen[bytes]":
        about = {
            "site": site,
            "identity": str(self.folder / site),
            "consortium": self.public.hex(),
            "address": self.coordinator.address,
            "ca": str(self.coordinator.home.ca),
            "worked": str(self.folder / f"{site}-worked"),
            "seconds": str(seconds),
        }
        return subprocess.Popen([sys.executable, SITE, json.dumps(about)], cwd=Path(__file__).parents[2])

    def worked(self, site: str) -> list[str]:
        path = self.folder / f"{site}-worked"
        return path.read_text().split() if path.exists() else []


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    one = Consortium(tmp_path_factory.mktemp("live"))
    one.start()
    yield one
    one.coordinator.end()


def plan_of(site: str, number: int = 1) -> Plan:
    weights = {"layer.lora_A": np.full((2, 3), number, np.float32), "layer.lora_B": np.ones((3, 2), np.float32)}
    return Plan(run="spring", recipe="0" * 64, round=number, site=site, adapter=Adapter(weights))


def updated(plan: Plan) -> Update:
    return Update(run=plan.run, round=plan.round, site=plan.site, delta=plan.adapter, patients=5, steps=1, loss=0.5)


def test_every_site_is_asked_and_each_answer_is_its_own(consortium: Consortium) -> None:
    with consortium.node("bury", updated), consortium.node("oldham", updated):
        found = consortium.ask()
    assert set(found) == {"bury", "oldham"}
    for site, answer in found.items():
        assert isinstance(answer, Update) and answer.delta == plan_of(site).adapter


def test_a_site_is_asked_in_a_version_that_it_speaks_or_refused_with_what_to_do(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions: list[int] = []
    read = wire.live_answer_from_bytes

    def noted(blob: bytes) -> Update | Refusal | Waiting:
        versions.append(wire.version_of(blob))
        return read(blob)

    monkeypatch.setattr(wire, "live_answer_from_bytes", noted)
    members = consortium.members()
    members = {"bury": replace(members["bury"], protocols=(1, 2)), "oldham": replace(members["oldham"], protocols=(1,))}
    with consortium.node("bury", updated), consortium.node("oldham", updated):
        found = consortium.ask(members=members)
    assert isinstance(found["bury"], Update) and found["bury"] == updated(plan_of("bury"))
    assert versions == [2]
    refused = found["oldham"]
    assert isinstance(refused, Refusal) and refused.reason.endswith("update Rainhill at the site: pip install -U rainhill")


def test_a_site_that_needs_time_says_so_to_an_older_coordinator_as_a_refusal(consortium: Consortium) -> None:
    def waits(plan: Plan) -> Waiting:
        return Waiting(run=plan.run, round=plan.round, site=plan.site, reason="waits for approval", retry_s=0.5)

    members = {site: replace(member, protocols=(2,)) for site, member in consortium.members().items()}
    with consortium.node("bury", waits), consortium.node("oldham", updated):
        found = consortium.ask(members=members)
    refused = found["bury"]
    assert isinstance(refused, Refusal) and refused.reason.startswith("kind = 'waiting': version 2 of the wire form has no way to say it")


def test_a_site_that_asks_for_time_is_asked_again_and_not_before_it_wants(consortium: Consortium) -> None:
    times: list[float] = []

    def decides(plan: Plan) -> Update | Waiting:
        times.append(time.monotonic())
        if len(times) < 3:
            return Waiting(run=plan.run, round=plan.round, site=plan.site, reason="waits for approval", retry_s=0.5)
        return updated(plan)

    told: list[tuple[str, str]] = []
    with consortium.node("bury", decides), consortium.node("oldham", updated):
        found = consortium.ask(waits=lambda *said: told.append(said))
    assert isinstance(found["bury"], Update) and len(times) == 3
    assert told == [("bury", "waits for approval")] * 2
    assert min(np.diff(times)) >= 0.5


def test_who_is_still_waiting_or_not_there_at_the_deadline_is_left_out_by_name_and_reason(consortium: Consortium) -> None:
    def never(plan: Plan) -> Waiting:
        return Waiting(run=plan.run, round=plan.round, site=plan.site, reason="waits for approval", retry_s=0.5)

    with consortium.node("bury", never):
        assert until(lambda: consortium.coordinator.contact(consortium.sites)["bury"])
        found = consortium.ask(deadline_s=8)
    reasons = {site: answer.reason for site, answer in found.items() if isinstance(answer, Refusal)}
    assert reasons == {"bury": "waits for approval; waited 8 s", "oldham": "is not in contact; waited 8 s"}


def test_a_site_that_comes_late_is_asked_when_it_is_there(consortium: Consortium) -> None:
    found: Answers = {}
    thread = threading.Thread(target=lambda: found.update(consortium.ask()))
    with consortium.node("oldham", updated):
        thread.start()
        time.sleep(2)
        assert found == {}
        with consortium.node("bury", updated):
            thread.join()
    assert all(isinstance(found[site], Update) for site in ("bury", "oldham"))


@pytest.mark.parametrize("how", [httpx.ReadTimeout, httpx.RemoteProtocolError, 502])
def test_a_plan_whose_delivery_was_lost_on_the_way_is_brought_again(consortium: Consortium, how: type[httpx.TransportError] | int) -> None:
    lost: list[int] = []

    def lose(response: httpx.Response) -> None:
        if response.request.url.path.endswith("pull-messages") and not lost and len(response.read()) > 100:
            lost.append(len(response.content))
            if isinstance(how, int):
                # As a proxy says of it.
                response.status_code = how
            else:
                raise how("lost on the way", request=response.request)

    with consortium.node("bury", updated, lose=lose), consortium.node("oldham", updated):
        answers = consortium.ask(deadline_s=45)
    assert len(lost) == 1
    assert all(isinstance(answer, Update) for answer in answers.values()), answers


def test_a_site_that_is_killed_at_work_is_asked_again_when_it_is_back(consortium: Consortium) -> None:
    found: Answers = {}
    first = consortium.process("bury", seconds=600)
    again = None
    try:
        with consortium.node("oldham", updated):
            thread = threading.Thread(target=lambda: found.update(consortium.ask()))
            thread.start()
            assert until(lambda: consortium.worked("bury") == ["1"])
            first.kill()
            first.wait()
            again = consortium.process("bury", seconds=0)
            thread.join(WITHIN_S)
    finally:
        for process in (first, again):
            if process is not None:
                process.kill()
                process.wait()
    assert isinstance(found["bury"], Update)
    assert consortium.worked("bury") == ["1", "1"]


def test_an_answer_with_another_sites_signature_is_none(consortium: Consortium) -> None:
    stranger = new_identity()
    with consortium.node("bury", updated, signing=stranger.signing), consortium.node("oldham", updated):
        found = consortium.ask()
    bury = found["bury"]
    assert isinstance(bury, Refusal) and bury.reason.startswith("answer 1: was changed, or was not signed with key")
    assert isinstance(found["oldham"], Update)


def test_an_answer_in_anothers_name_is_none(consortium: Consortium) -> None:
    with consortium.node("bury", lambda plan: replace(updated(plan), site="oldham")), consortium.node("oldham", updated):
        found = consortium.ask()
    bury = found["bury"]
    assert isinstance(bury, Refusal) and bury.reason == "its answer is of oldham for round 1 of run spring"


def test_a_plan_that_the_consortium_has_not_signed_is_not_worked_on(consortium: Consortium, caplog: pytest.LogCaptureFixture) -> None:
    worked: list[Plan] = []

    def notes(plan: Plan) -> Update:
        worked.append(plan)
        return updated(plan)

    with consortium.node("bury", notes), consortium.node("oldham", notes):
        found = consortium.ask(key=signed.new_key())
    assert worked == []
    assert {answer.reason for answer in found.values() if isinstance(answer, Refusal)} == {"its process failed (Flower error 2), 3 times"}
    assert "plan 1: was changed, or was not signed with key" in caplog.text


@pytest.mark.parametrize("error", [ValueError("patient SECRET123"), RefusedError("patient SECRET123")])
def test_what_went_wrong_at_a_site_stays_there(consortium: Consortium, caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    def fails(plan: Plan) -> Update:
        raise error

    with consortium.node("bury", fails), consortium.node("oldham", updated):
        bury = consortium.ask()["bury"]
    assert isinstance(bury, Refusal) and bury.reason == "an error at the site, written to its own log"
    assert "SECRET123" in caplog.text


def test_a_site_that_is_no_member_is_refused_by_name(consortium: Consortium) -> None:
    only = {"oldham": consortium.members()["oldham"]}
    with consortium.node("oldham", updated):
        found = consortium.ask(members=only)
    bury = found["bury"]
    assert isinstance(bury, Refusal) and bury.reason == "takes no part in this run"


def test_an_answer_to_a_run_that_is_over_is_dropped_and_the_next_run_is_answered(consortium: Consortium) -> None:
    """What Flower then says, a 403, is no word on the site's key."""
    began, go = threading.Event(), threading.Event()

    def slowly(plan: Plan) -> Update:
        began.set()
        go.wait(WITHIN_S)
        return updated(plan)

    with consortium.node("bury", slowly) as contact, consortium.node("oldham", updated):
        late = threading.Thread(target=consortium.ask, kwargs={"deadline_s": 3})
        late.start()
        assert began.wait(WITHIN_S)
        late.join()
        known = contact.node
        go.set()
        assert until(lambda: contact.dropped == 1)
        assert (contact.failures, contact.reason, contact.node) == (0, "", known)
        assert isinstance(consortium.ask(number=2)["bury"], Update)
    assert contact.dropped == 1


def test_a_plan_that_is_asked_for_twice_is_worked_on_once(consortium: Consortium) -> None:
    """A coordinator that was restarted asks again while the site is still at work."""
    began, go, worked, before = threading.Event(), threading.Event(), [], consortium.heard["bury"]

    def slowly(plan: Plan) -> Update:
        worked.append(plan.round)
        at_once.append(len(worked))
        began.set()
        go.wait(WITHIN_S)
        worked.pop()
        return updated(plan)

    at_once: list[int] = []
    with consortium.node("bury", slowly), consortium.node("oldham", updated):
        assert until(lambda: all(consortium.coordinator.contact(consortium.sites).values()))
        left_alone = threading.Thread(target=consortium.ask, kwargs={"deadline_s": 1})
        left_alone.start()
        assert began.wait(WITHIN_S)
        left_alone.join()
        found: Answers = {}
        again = threading.Thread(target=lambda: found.update(consortium.ask()))
        again.start()
        assert until(lambda: consortium.heard["bury"] - before >= 2)
        # From when it is there to when it is known to be the same.
        time.sleep(1)
        go.set()
        again.join()
    # One that comes when the first is done is worked on anew, and gives the same.
    assert isinstance(found["bury"], Update) and max(at_once) == 1


def test_a_site_that_has_just_answered_looks_at_once_whether_there_is_more(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.flower.node.IDLE_S", (6.0, 6.0))
    # Not what a slow machine has it look for while it works.
    monkeypatch.setattr("client.flower.node.BUSY_S", 60.0)
    began: list[float] = []
    first, go = threading.Event(), threading.Event()

    def works(plan: Plan) -> Update:
        began.append(time.monotonic())
        if plan.round == 1:
            first.set()
            go.wait(WITHIN_S)
        return updated(plan)

    members = {"bury": consortium.members()["bury"]}
    with consortium.node("bury", works):
        asked = [threading.Thread(target=consortium.ask, kwargs={"number": number, "members": members}) for number in (1, 2)]
        asked[0].start()
        assert first.wait(WITHIN_S)
        # Its next look, which finds nothing, is long over when the second plan is brought; the one after it is far away.
        time.sleep(1)
        asked[1].start()
        time.sleep(2)
        assert len(began) == 1
        answered = time.monotonic()
        go.set()
        for thread in asked:
            thread.join()
    assert len(began) == 2 and began[1] - answered < 2.5


def test_a_message_that_the_superlink_lost_while_it_was_pushed_is_a_connection_that_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Flower says it where the SuperLink is started again between a message and its pieces; the conductor waits and asks anew."""

    def lost(grid: object, messages: object) -> list[str]:
        raise ObjectPushError("a" * 64, 7, "session")

    monkeypatch.setattr(HttpGrid, "push_messages", lost)
    grid = LiveGrid.__new__(LiveGrid)
    with pytest.raises(ConnectionResetError, match="lost a message that was being pushed"):
        grid.push_messages([])
