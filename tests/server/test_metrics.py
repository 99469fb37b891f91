"""What the coordinator tells Prometheus, from a real database, a real SuperLink and what it refuses."""

import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
from flwr.app import Message
from prometheus_client.parser import text_string_to_metric_families

from client.identity import new_identity
from rainhill import wire
from rainhill.adapter import Adapter
from rainhill.errors import ConfigError, CredentialError, DatabaseError, ProtocolError
from rainhill.exposed import WITHIN_S, Exposed, Part, Seen, exposing
from rainhill.listening import MetricsConfig
from rainhill.messages import UNTOLD, Plan, Update
from rainhill.supervise import Child
from rainhill.toml import parse
from server.database import Database
from server.flower.link import Link, admit_only
from server.flower.presence import presence, refused_calls
from server.home import CoordinatorConfig
from server.metrics import coordinator_metrics
from server.reasons import reason_of
from server.registry import Registry
from server.runs import Runs
from server.tally import Tally
from tests.server.conftest import Postgres, free_port
from tests.server.offers import enrol, offer, record, sealed
from tests.server.peers import Coordinator, node, until

Samples = dict[str, dict[tuple[str, ...], float]]


class Page:
    """What is answered at a port."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"

    def settled(self) -> Samples:
        """Once a slow machine has looked at all parts."""
        assert until(lambda: "does not answer within" not in self.get("/readyz")[1])
        return self.samples()

    def samples(self) -> Samples:
        """Name -> values of the labels, in the order of their names -> value."""
        answer = httpx.get(f"{self.base}/metrics", timeout=30)
        assert answer.status_code == 200
        found: Samples = {}
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
        return found

    def get(self, path: str) -> tuple[int, str]:
        answer = httpx.get(f"{self.base}{path}", timeout=30)
        return answer.status_code, answer.text


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    one = Coordinator(tmp_path_factory.mktemp("consortium") / "coordinator")
    one.start()
    yield one
    one.end()


def with_runs(registry: Registry) -> Runs:
    """Two sites and two runs: one that is running after two rounds, one that failed."""
    enrol(registry, "bury", "oldham", "wigan")
    registry.revoke("wigan", reason="it has left", by="ada")
    runs = Runs(database=registry.database)
    for name in ("spring-1", "winter-1"):
        made = offer(name)
        runs.offer(made, sealed(made), by="ada")
    runs.begin("spring-1")
    runs.stand("spring-1", "bury", "approved", "")
    runs.record("spring-1", record(1), adapter="2" * 64)
    runs.record("spring-1", record(2, answered=("bury",), refused={"oldham": "has lost contact; waited 30 s"}), adapter="3" * 64)
    runs.fail("winter-1", "0 of 2 sites have approved it, the quorum is 1")
    return runs


def test_sites_runs_and_rounds_are_told_from_the_database(tmp_path: Path, coordinator: Coordinator) -> None:
    registry = Registry(database=Database.open(f"sqlite:///{tmp_path / 'a.sqlite'}"))
    runs, port = with_runs(registry), free_port()
    exposed = coordinator_metrics(coordinator.home, coordinator.link, registry, [Child(name="SuperLink", command=[], starts=3)])
    with exposing(exposed, MetricsConfig(port=port)):
        page = Page(port)
        assert until(lambda: page.get("/readyz") == (200, "ready\n")), page.get("/readyz")
        found = page.settled()
        assert found["rainhill_coordinator_sites"] == {("enrolled",): 2, ("revoked",): 1}
        assert found["rainhill_coordinator_runs"] == {("offered",): 0, ("running",): 1, ("finished",): 0, ("failed",): 1, ("stopped",): 0}
        assert found["rainhill_coordinator_run_state"] == {("spring-1", "running"): 1, ("winter-1", "failed"): 1}
        # Of a run that is over nobody's standing is told.
        assert found["rainhill_coordinator_run_standing"] == {("spring-1", "bury", "approved"): 1, ("spring-1", "oldham", "away"): 1}
        assert found["rainhill_coordinator_run_rounds_done"] == {("spring-1",): 2, ("winter-1",): 0}
        assert found["rainhill_coordinator_run_rounds_asked"] == {("spring-1",): 3, ("winter-1",): 3}
        assert found["rainhill_coordinator_run_last_round_seconds"] == {("spring-1",): 12.5}
        assert found["rainhill_coordinator_run_deadline_seconds"][("spring-1",)] == 3600
        assert abs(found["rainhill_coordinator_run_progress_timestamp_seconds"][("spring-1",)] - time.time()) < 120
        assert found["rainhill_coordinator_bytes_total"][("down", "bury")] == 6 * 2**20
        assert found["rainhill_coordinator_bytes_total"][("up", "oldham")] == 2**20
        assert found["rainhill_coordinator_refusals_total"] == {("contact", "oldham"): 1}
        assert found["rainhill_coordinator_round_seconds_count"] == {(): 2} and found["rainhill_coordinator_round_seconds_sum"] == {(): 25}
        assert found["rainhill_coordinator_round_seconds_bucket"][("10",)] == 0
        assert found["rainhill_coordinator_round_seconds_bucket"][("30",)] == 2
        assert found["rainhill_coordinator_process_restarts_total"] == {("SuperLink",): 2}
        assert found["rainhill_coordinator_process_running"] == {("SuperLink",): 0}
        assert found["rainhill_coordinator_certificate_days_left"] == {("server",): 397, ("authority",): 3649}
        assert (
            set(found["rainhill_coordinator_ready"].values()) == {1}
            and page.get("/healthz") == (200, "alive\n")
            and page.get("/")[0] == 404
        )
        # Neither what a site said nor what a model can do.
        text = page.get("/metrics")[1]
        assert "waited" not in text and "auroc" not in text and "loss" not in text
        runs.stop("spring-1", reason="for now", by="ada")
        assert until(lambda: page.settled()["rainhill_coordinator_run_state"].get(("spring-1", "stopped")) == 1)


def test_a_round_that_is_done_again_is_counted_once(tmp_path: Path) -> None:
    registry = Registry(database=Database.open(f"sqlite:///{tmp_path / 'a.sqlite'}"))
    runs, tally = with_runs(registry), Tally(registry.database)
    assert [number for _, number in tally.rounds()] == [1, 2] and tally.resumed() == {}
    runs.record("spring-1", record(2), adapter="4" * 64)
    assert [dict(done.refused) for done in tally.rounds().values()] == [{}, {}]
    runs.stop("spring-1", reason="for now", by="ada")
    runs.resume("spring-1", by="ada", now=datetime.now(UTC))
    assert tally.resumed()["spring-1"] > tally.rounds()["spring-1", 2].time


def backwards(message: Message) -> Message:
    return Message(wire.to_record(wire.from_record(message.content)[::-1]), reply_to=message)


def outside(coordinator: Coordinator) -> httpx.Client:
    return httpx.Client(
        verify=ssl.create_default_context(cadata=coordinator.home.ca.read_text()), base_url=f"https://{coordinator.address}"
    )


def test_who_is_in_contact_and_what_was_refused_is_told_by_the_superlink(coordinator: Coordinator) -> None:
    bury, oldham = new_identity(), new_identity()
    keys = {"bury": bury.node_public.encode(), "oldham": oldham.node_public.encode()}
    admit_only(coordinator.link, keys)
    with node(coordinator, bury, backwards):
        assert until(lambda: presence(coordinator.link, keys)["bury"].here)
        found = presence(coordinator.link, keys)
        assert found["bury"].silent_s is not None and found["bury"].silent_s < 60
        assert (found["oldham"].here, found["oldham"].silent_s) == (False, None)
    left = presence(coordinator.link, keys)["bury"]
    # It has said that it leaves, of which Flower keeps no more than that it was there.
    assert not left.here and left.silent_s is not None and 0 <= left.silent_s < 180
    before = refused_calls(coordinator.link)
    with outside(coordinator) as client:
        client.get("/v1/control/list-nodes")
        client.post("/v1/fleet/pull-messages", content=b"")
        # Whoever is outside is not told either.
        assert client.get("/counts").status_code == 403
    after = refused_calls(coordinator.link)
    assert {kind: after[kind] - before[kind] for kind in after} == {"secret": 0, "call": 2, "key": 1, "length": 0, "size": 0, "time": 0}
    private = Link(port=coordinator.link.port, ca=coordinator.link.ca, secret=b"guessed")
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        refused_calls(private)


def test_a_superlink_that_is_gone_is_told_and_hides_nothing_else(tmp_path: Path) -> None:
    one = Coordinator(tmp_path / "coordinator")
    registry, port = Registry(database=Database.open(one.home.database_url)), free_port()
    with_runs(registry)
    with exposing(coordinator_metrics(one.home, one.link, registry, []), MetricsConfig(port=port)):
        page = Page(port)
        assert until(lambda: page.settled()["rainhill_coordinator_sites"] == {("enrolled",): 2, ("revoked",): 1})
        found = page.settled()
        assert found["rainhill_coordinator_ready"] == {("database",): 1, ("superlink",): 0, ("certificates",): 1, ("processes",): 1}
        assert "rainhill_coordinator_site_in_contact" not in found
        status, words = page.get("/readyz")
        assert status == 503 and words.startswith("superlink: does not answer") and words.count("\n") == 1
        one.home.certificate.write_bytes(one.home.ca.read_bytes())
        assert until(lambda: "certificates: " in page.get("/readyz")[1])
        assert page.settled()["rainhill_coordinator_certificate_days_left"][("server",)] > 3000


def test_a_database_that_is_gone_is_told_within_two_seconds(postgres: Postgres, coordinator: Coordinator) -> None:
    registry, port = Registry(database=Database.open(postgres.url)), free_port()
    with exposing(coordinator_metrics(coordinator.home, coordinator.link, registry, []), MetricsConfig(port=port)):
        page = Page(port)
        assert until(lambda: page.settled()["rainhill_coordinator_ready"][("database",)] == 1)
        postgres.stop()
        try:
            assert until(lambda: page.settled()["rainhill_coordinator_ready"][("database",)] == 0)
            status, words = page.get("/readyz")
            assert status == 503 and words.startswith("database: ") and words.count("\n") == 1
            assert page.settled()["rainhill_coordinator_certificate_days_left"]
        finally:
            postgres.start()
        assert until(lambda: page.settled()["rainhill_coordinator_ready"][("database",)] == 1)
    registry.database.close()


def test_a_part_that_hangs_holds_up_no_scrape_and_is_looked_at_once() -> None:
    go_on, looks = threading.Event(), []

    def hang() -> Seen:
        looks.append(1)
        go_on.wait(60)
        return Seen()

    port = free_port()
    with exposing(Exposed("it", [Part("slow", hang), Part("quick", Seen)]), MetricsConfig(port=port)):
        page = Page(port)
        for _ in range(3):
            started = time.monotonic()
            assert page.samples()["it_ready"] == {("slow",): 0, ("quick",): 1}
            # With room for a busy machine.
            assert time.monotonic() - started < 10 * WITHIN_S
        assert page.get("/readyz") == (503, "slow: does not answer within 1.5 s\n") and page.get("/healthz")[0] == 200
        assert len(looks) == 1
        go_on.set()
        assert until(lambda: page.samples()["it_ready"][("slow",)] == 1)


def test_an_error_is_told_on_one_line_and_one_of_ours_only_by_its_kind(caplog: pytest.LogCaptureFixture) -> None:
    def gone() -> Seen:
        raise DatabaseError("a\nb" + "x" * 500)

    def wrong() -> Seen:
        return Seen(metrics=[{}["patient 12"]])

    problems = Exposed("it", [Part("one", gone), Part("two", wrong)]).problems()
    assert len(problems[0]) == 300 and problems[0].startswith("'one: a\\nb") and problems[1] == "two: KeyError, told in the log"


def test_a_port_that_is_taken_is_named_and_no_two_are_one() -> None:
    port = free_port()
    with exposing(Exposed("it", []), MetricsConfig(port=port)):
        with pytest.raises(OSError, match=f"cannot listen at 127.0.0.1:{port}: Address already in use"):
            exposing(Exposed("it", []), MetricsConfig(port=port)).__enter__()
        with exposing(Exposed("it", []), MetricsConfig(port=0)):
            pass
    about = {"name": "north_west", "address": {"host": "localhost", "private_port": 9445}}
    with pytest.raises(ConfigError, match="metrics.port and address.private_port are both 9445"):
        parse(about, CoordinatorConfig, origin="test")
    with pytest.raises(ConfigError, match="metrics.bind = 'here'"):
        parse({**about, "metrics": {"port": 1, "bind": "here"}}, CoordinatorConfig, origin="test")


WEIGHTS = {"layer.lora_A": np.ones((2, 3), np.float32)}
PLAN = Plan(run="spring", recipe="0" * 64, round=1, site="bury", adapter=Adapter(WEIGHTS))


def update(**changes: object) -> Update:
    about = {"run": "spring", "round": 1, "site": "bury", "delta": PLAN.adapter, "patients": 5, "steps": 1, "loss": 0.5}
    return Update(**(about | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"round": 2},
        {"choice": 3},
        {"patients": 0},
        {"delta": Adapter({})},
        {"delta": Adapter({**WEIGHTS, "head.bias": np.ones(1, np.float32)})},
        {"delta": Adapter({"layer.lora_A": np.ones((2, 2), np.float32)})},
        {"delta": Adapter({"layer.lora_A": np.full((2, 3), np.nan, np.float32)})},
        {"delta": Adapter({"layer.lora_A": np.full((2, 3), 1e30, np.float32)})},
    ],
)
def test_what_does_not_hold_is_of_one_kind_whatever_is_wrong_with_it(changes: dict[str, object]) -> None:
    with pytest.raises(ProtocolError) as error:
        wire.check_answer(update(**changes), PLAN, {"layer.lora_A": (2, 3)})
    assert reason_of(str(error.value)) == "invalid"


def test_nor_does_what_is_no_answer_or_not_the_sites() -> None:
    from rainhill.stamp import ANSWER, stamped, unstamped

    own, other = new_identity(), new_identity()
    for blob in (b"", stamped(b"x", other.signing, purpose=ANSWER)):
        with pytest.raises(CredentialError) as error:
            unstamped(blob, own.signing_public, purpose=ANSWER)
        assert reason_of(str(error.value)) == "invalid"
    with pytest.raises(ProtocolError) as wrong:
        wire.live_answer_from_bytes(b"no message")
    assert reason_of(str(wrong.value)) == "invalid"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("is not in contact; waited 30 s", "contact"),
        ("has not been in contact since the run was offered", "contact"),
        ("has not answered; waited 30 s", "silent"),
        ("no answer to exchange 2 of secure aggregation", "silent"),
        ("waits for somebody at the site to approve it", "waiting"),
        ("its update waits for somebody at the site to release it; waited 30 s", "waiting"),
        ("trains from 19:00; waited 30 s", "waiting"),
        ("was approved for 3 rounds, which are done", "waiting"),
        ("its process failed (Flower error 1), 3 times", "failed"),
        (UNTOLD, "failed"),
        ("was revoked", "not_asked"),
        ("the board of 12 March has said no", "site"),
        ("", "site"),
    ],
)
def test_what_is_said_in_place_of_an_update_is_one_of_a_few_kinds(words: str, reason: str) -> None:
    assert reason_of(words) == reason
