"""A run from its offer to its last round over a real SuperLink, with hospitals that decide, stay away, come late and are killed."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from client.flower.app import at_work
from client.flower.live import live_app
from client.identity import Identity, new_identity
from client.secure import Masker, hide, respond
from rainhill import signed
from rainhill.adapter import Adapter
from rainhill.enrolment import SiteRequest
from rainhill.messages import Plan, Receipt, Refusal, Update, Waiting
from rainhill.offer import opened_offer
from rainhill.standing import Standing, State, sealed_standing
from rainhill.told import Gains, Interval, Levels, Told
from server.asking import new_offer
from server.database import Database
from server.flower import conduct, live
from server.flower.conduct import Conductor
from server.registry import Registry
from server.runs import Run, Runs
from server.tables import RECEIVED
from tests.server.offers import adapter, recipe
from tests.server.peers import Coordinator, node, until

SITES = ("bury", "oldham")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PRESENCE_S", 0.2)
    monkeypatch.setattr(live, "RETRY_S", 0.2)
    monkeypatch.setattr(conduct, "ASK_S", 0.3)
    monkeypatch.setattr(conduct, "AGAIN_S", (0.3, 0.3))
    monkeypatch.setattr(conduct, "DELIVER_AGAIN_S", 0.3)


class Hospital:
    """Decides when the test says so, and moves what it is sent by a number of its own."""

    def __init__(self, name: str, move: float) -> None:
        self.name, self.move, self.identity = name, move, new_identity()
        self.state: State = "approved"
        self.asked: list[int] = []
        self.stood: list[int] = []
        """Rounds before which it was asked how it stands."""
        self.refuses: int | None = None
        self.waits: int | None = None
        """The rounds in which it does, or once asks for time."""
        self.received: dict[str, Adapter] = {}
        self.before: Callable[[Plan], None] = lambda _: None
        self.masker: Masker | None = None
        self.told: Told | None = None

    def stand(self, sealed: bytes, number: int, nonce: bytes) -> bytes:
        self.stood.append(number)
        offer = opened_offer(sealed, consortium="north_west", public=signed.Envelope.from_bytes(sealed).key)
        said = Standing(site=self.name, run=offer.run, offer=offer.sha256, state=self.state, reason="as they wish", nonce=nonce.hex())
        return sealed_standing(said, self.identity.signing)

    def answer(self, plan: Plan) -> Update | Refusal | Waiting | Receipt:
        if plan.round > 3:
            self.received[plan.run] = plan.adapter
            return Receipt(run=plan.run, round=plan.round, site=self.name, adapter=plan.adapter.fingerprint(), told=self.told)
        self.asked.append(plan.round)
        self.before(plan)
        if plan.round == self.waits:
            self.waits = None
            return Waiting(run=plan.run, round=plan.round, site=self.name, reason="waits to be released", retry_s=0.1)
        if plan.round == self.refuses:
            self.state = "refused"
            return Refusal(run=plan.run, round=plan.round, site=self.name, reason="not any more")
        delta = Adapter({name: np.full_like(array, self.move * plan.round) for name, array in plan.adapter.items()})
        update = Update(run=plan.run, round=plan.round, site=self.name, delta=delta, patients=5, steps=4, loss=0.5)
        return hide(self.masker, plan, update) if self.masker else update

    def exchange(self, blob: bytes) -> bytes:
        assert self.masker is not None
        return respond(blob, self.masker)


class World:
    def __init__(self, folder: Path) -> None:
        self.coordinator = Coordinator(folder / "coordinator")
        self.home, self.folder = self.coordinator.home, folder
        self.database = Database.open(self.home.database_url)
        self.registry, self.runs = Registry(database=self.database), Runs(database=self.database)
        self.identities: dict[str, Identity] = {}

    def hospitals(self, *names: str) -> dict[str, Hospital]:
        """New ones, where there are some of these names already in their place, with new keys."""
        made = {name: Hospital(name, move) for name, move in zip(names or SITES, (0.5, -0.25, 0.125), strict=False)}
        known = {site.name for site in self.registry.sites()}
        for name, one in made.items():
            request = SiteRequest.model_validate(
                {
                    "name": name,
                    "title": name,
                    "node_key": one.identity.node_public,
                    "signing_key": one.identity.signing_public.hex(),
                    "made": "2026-11-22T12:00:00Z",
                    "software": "rainhill",
                    "protocols": (3,),
                }
            )
            (self.registry.rotate if name in known else self.registry.enrol)(request, by="ada")
        return made

    def offer(self, name: str, sites: Sequence[str] = SITES, masked: bool = False, **changes: object) -> Run:
        rounds = {"count": 3, "steps": 4, "deadline_s": 30, **changes}
        one = recipe(rounds=rounds, secure_aggregation={"bound": 4.0} if masked else None)
        offered, sealed = new_offer(self.home, self.registry, one, adapter=adapter(), run=name, sites=sites, days=7, by="ada")
        return self.runs.offer(offered, sealed, by="ada")

    @contextmanager
    def at(self, *hospitals: Hospital) -> Iterator[None]:
        """In contact while the block lasts."""
        with ExitStack() as stack:
            for one in hospitals:
                app = live_app(
                    one.name,
                    one.answer,
                    stand=one.stand,
                    exchange=one.exchange,
                    signing=one.identity.signing,
                    consortium=signed.public_key(self.home.key()),
                )
                memory = self.folder / f"{one.identity.signing_public.hex()}.node"
                stack.enter_context(node(self.coordinator, one.identity, at_work(app), memory=memory))
            yield

    @contextmanager
    def conducted(self, name: str) -> Iterator[threading.Thread]:
        stop = threading.Event()
        thread = threading.Thread(target=Conductor.open(self.home, name, stop).conduct)
        thread.start()
        try:
            yield thread
        finally:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()

    def state(self, name: str) -> str:
        return self.runs.run(name).state

    def result(self, name: str) -> Adapter:
        return Adapter.from_bytes(self.home.adapter_file(str(self.runs.run(name).result)).read_bytes())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    one = World(tmp_path_factory.mktemp("conduct"))
    one.coordinator.start()
    yield one
    one.coordinator.end()
    one.database.close()


def expected(hospitals: dict[str, Hospital]) -> Adapter:
    """By hand: three rounds of the mean of what each hospital moves by."""
    mean = sum(one.move for one in hospitals.values()) / len(hospitals)
    return Adapter({name: array + np.float32(6 * mean) for name, array in adapter().items()})


def close(one: Adapter, other: Adapter) -> bool:
    return set(one) == set(other) and all(np.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_a_run_is_offered_approved_conducted_and_its_result_brought_to_every_site(world: World) -> None:
    both = world.hospitals()
    for one in both.values():
        one.state = "pending"
    gain = Interval(value=0.05, low=-0.01, high=0.1)
    levels, gains = Levels(base=None, shared=gain, private=gain), Gains(shared=gain, private=None)
    both["bury"].told = Told(confidence=0.95, measure="label_f1", levels=levels, gain=gains)
    world.offer("spring")
    with world.at(*both.values()), world.conducted("spring") as thread:
        assert until(lambda: {one.state for one in world.runs.standings("spring").values()} == {"pending"})
        assert until(lambda: "yet to decide: bury, oldham" in world.runs.run("spring").words)
        both["bury"].state = "approved"
        assert until(lambda: "1 of 2 sites have approved it; yet to decide: oldham" in world.runs.run("spring").words)
        assert world.state("spring") == "offered" and both["bury"].asked == []
        both["oldham"].state = "approved"
        assert until(lambda: not thread.is_alive())
    assert world.state("spring") == "finished"
    assert [len(record.answered) for record in world.runs.rounds("spring")] == [2, 2, 2]
    result = world.result("spring")
    assert close(result, expected(both))
    assert {one.delivered for one in world.runs.standings("spring").values()} == {RECEIVED}
    assert all(one.received["spring"] == result for one in both.values())
    assert {name: one.told for name, one in world.runs.standings("spring").items()} == {name: one.told for name, one in both.items()}


def test_a_site_that_refuses_is_left_out_by_name_and_the_run_goes_on(world: World) -> None:
    both = world.hospitals()
    both["oldham"].state = "refused"
    world.offer("summer")
    with world.at(*both.values()), world.conducted("summer") as thread:
        assert until(lambda: not thread.is_alive())
    assert world.state("summer") == "finished"
    assert [dict(record.refused) for record in world.runs.rounds("summer")] == [{"oldham": "as they wish"}] * 3
    assert both["oldham"].asked == [] and both["oldham"].received == {}
    assert world.runs.standings("summer")["oldham"].delivered == "took no part"


def test_a_site_that_approved_is_asked_anew_how_it_stands_only_after_it_refused_a_plan(world: World) -> None:
    both = world.hospitals()
    both["oldham"].refuses = 2
    world.offer("lammas")
    with world.at(*both.values()), world.conducted("lammas") as thread:
        assert until(lambda: not thread.is_alive())
    assert [dict(record.refused) for record in world.runs.rounds("lammas")] == [{}, {"oldham": "not any more"}, {"oldham": "as they wish"}]
    assert (both["bury"].stood, both["oldham"].stood) == ([0], [0, 3]) and both["oldham"].asked == [1, 2]
    assert world.runs.standings("lammas")["oldham"].state == "refused"


def test_a_site_that_asked_for_time_in_the_last_round_waits_for_nothing_afterwards(world: World) -> None:
    both = world.hospitals()
    both["bury"].waits = 3
    world.offer("trinity")
    with world.at(*both.values()), world.conducted("trinity") as thread:
        assert until(lambda: not thread.is_alive())
    assert [len(record.answered) for record in world.runs.rounds("trinity")] == [2, 2, 2] and both["bury"].asked == [1, 2, 3, 3]
    assert {one.state for one in world.runs.standings("trinity").values()} == {"approved"}


def test_an_operator_begins_with_those_that_approved_and_a_late_one_joins_at_the_next_round(world: World) -> None:
    both = world.hospitals()
    both["oldham"].state = "pending"

    def approves(plan: Plan) -> None:
        if plan.round == 1:
            both["oldham"].state = "approved"

    both["bury"].before = approves
    world.offer("autumn")
    with world.at(*both.values()), world.conducted("autumn") as thread:
        assert until(lambda: "yet to decide: oldham" in world.runs.run("autumn").words)
        world.runs.begin("autumn", by="ada")
        assert until(lambda: not thread.is_alive())
    assert [set(record.answered) for record in world.runs.rounds("autumn")] == [{"bury"}, {"bury", "oldham"}, {"bury", "oldham"}]


def test_too_few_answers_are_waited_for_and_nothing_is_lost(world: World) -> None:
    both = world.hospitals()
    world.offer("winter", quorum=2, deadline_s=3)
    with world.conducted("winter") as thread, world.at(both["bury"]):
        with world.at(both["oldham"]):
            assert until(lambda: len(world.runs.rounds("winter")) >= 1)
        assert until(lambda: "the quorum is 2" in world.runs.run("winter").words)
        assert world.state("winter") == "running"
        with world.at(both["oldham"]):
            assert until(lambda: not thread.is_alive())
    assert close(world.result("winter"), expected(both))


def test_a_superlink_that_is_killed_costs_no_round_and_changes_nothing(world: World) -> None:
    both = world.hospitals()
    hit = threading.Event()
    both["bury"].before = lambda plan: (hit.set(), time.sleep(0.5))[0] if plan.round == 2 and not hit.is_set() else None
    world.offer("lent")
    with world.at(*both.values()), world.conducted("lent") as thread:
        assert hit.wait(60)
        world.coordinator.end(kill=True)
        time.sleep(1)
        world.coordinator.start()
        assert until(lambda: not thread.is_alive(), 120)
    assert [len(record.answered) for record in world.runs.rounds("lent")] == [2, 2, 2]
    assert close(world.result("lent"), expected(both))


def test_a_conductor_that_stops_is_followed_by_one_that_goes_on_at_the_next_unfinished_round(world: World) -> None:
    both = world.hospitals()
    hit = threading.Event()
    both["bury"].before = lambda plan: (hit.set(), time.sleep(1))[0] if plan.round == 2 and not hit.is_set() else None
    world.offer("harvest")
    with world.at(*both.values()):
        with world.conducted("harvest"):
            assert hit.wait(60)
        assert len(world.runs.rounds("harvest")) == 1
        with world.conducted("harvest") as thread:
            assert until(lambda: not thread.is_alive())
    assert both["oldham"].asked.count(1) == 1
    assert close(world.result("harvest"), expected(both))


def test_a_run_that_was_stopped_is_not_conducted_until_it_is_resumed(world: World) -> None:
    both = world.hospitals()
    world.offer("easter")
    world.runs.stop("easter", reason="a mistake", by="ada")
    with world.at(*both.values()):
        with world.conducted("easter") as thread:
            assert until(lambda: not thread.is_alive())
        assert world.state("easter") == "stopped" and both["bury"].asked == []
        world.runs.resume("easter", by="ada", now=datetime.now(UTC))
        with world.conducted("easter") as thread:
            assert until(lambda: not thread.is_alive())
    assert world.state("easter") == "finished"


def test_a_site_that_is_revoked_is_asked_no_more(world: World) -> None:
    both = world.hospitals()

    def revokes(plan: Plan) -> None:
        if plan.round == 2:
            world.registry.revoke("oldham", reason="its keys were seen", by="ada")

    both["bury"].before = revokes
    world.offer("advent")
    with world.at(*both.values()), world.conducted("advent") as thread:
        assert until(lambda: not thread.is_alive())
    last = world.runs.rounds("advent")[-1]
    assert last.answered == ("bury",) and last.refused == {"oldham": "was revoked"}
    assert world.runs.standings("advent")["oldham"].delivered == "was revoked"


def test_of_masked_updates_the_coordinator_learns_their_sum_alone(world: World, tmp_path: Path) -> None:
    three = world.hospitals("bury", "oldham", "wirral")
    run = world.offer("masked", tuple(three), masked=True)
    section = run.recipe.secure_aggregation
    assert section is not None
    pinned = {name: one.identity.signing_public for name, one in three.items()}
    for name, one in three.items():
        one.masker = Masker(
            site=name, folder=tmp_path / name, identity=one.identity.signing, pinned=pinned, section=section, weights="equal"
        )
    with world.at(*three.values()), world.conducted("masked") as thread:
        assert until(lambda: not thread.is_alive(), 240)
    assert world.state("masked") == "finished"
    assert [len(record.answered) for record in world.runs.rounds("masked")] == [3, 3, 3]
    result, plain = world.result("masked"), expected(three)
    assert max(float(np.abs(result[name] - plain[name]).max()) for name in plain) <= 3 * 4.0 / 2**17


def test_a_run_that_too_many_refuse_fails_and_says_so(world: World) -> None:
    both = world.hospitals()
    both["oldham"].state = "refused"
    world.offer("whitsun", quorum=2)
    with world.at(*both.values()), world.conducted("whitsun") as thread:
        assert until(lambda: not thread.is_alive())
    assert world.state("whitsun") == "failed"
    assert world.runs.run("whitsun").words == "1 of 2 sites have approved it, the quorum is 2"
