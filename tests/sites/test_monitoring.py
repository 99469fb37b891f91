"""A coordinator and a hospital that are watched: what each tells, and a real Prometheus that reads it and raises the alarm."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client import generate_latest

from client.chain import Event
from client.embedded import EMBEDDED
from client.flower.line import Contact
from client.home import SiteHome
from client.journal import Approved, Held, Left, Released, Said
from client.metrics import site_metrics
from client.offers import Offers
from client.privacy.events import Charged, Members
from client.privacy.ledger import Ledger
from client.trainer import Trainer
from rainhill import weights
from rainhill.exposed import Exposed
from rainhill.messages import UNTOLD, Plan, Refusal
from rainhill.offer import Offer, sealed_offer
from rainhill.recipe import Recipe
from server.asking import new_offer
from server.database import Database
from server.home import Home
from server.registry import Registry
from server.runs import Runs
from tests.server.conftest import free_port
from tests.server.offers import adapter, offer, recipe
from tests.sites.peers import Consortium, until

ROOT = Path(__file__).parents[2]
DEPLOY, RULES, TOLD = ROOT / "deploy", ROOT / "deploy" / "prometheus" / "rules.yml", ROOT / "tests" / "deploy" / "alerts.yml"
SITE = """name = "bury"
title = "Bury General"
[data]
manifest = "manifest.csv"
[data.split]
by = "patient"
[privacy]
epsilon = 8.0
[metrics]
port = {port}
epsilon = true
"""
SLOW_S = 240.0
"""For what takes a minute by itself, on a machine that has other things to do."""


@pytest.fixture(scope="session")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """A hospital that has joined; nothing runs yet."""
    one = Consortium(tmp_path_factory.mktemp("watched"), ["bury"])
    one.metrics_port, one.folders["bury"] = free_port(), one.hub.parent / "bury"
    one.folders["bury"].mkdir()
    (one.folders["bury"] / "bury.toml").write_text(SITE.format(port=free_port()))
    rows = [f"patient_{number},{number}.png,{number % 2}" for number in range(60)]
    (one.folders["bury"] / "manifest.csv").write_text("\n".join(["patient,image,effusion", *rows]) + "\n")
    for number in range(60):
        # Never read: nothing is trained here.
        (one.folders["bury"] / f"{number}.png").touch()
    one.begin()
    one.join("bury")
    yield one
    one.end()


@pytest.fixture
def home(world: Consortium, tmp_path: Path) -> SiteHome:
    """Of the same hospital, in another folder, where a test may write."""
    shutil.copytree(world.folders["bury"], tmp_path / "bury")
    return SiteHome.open(tmp_path / "bury" / "bury.toml")


def hub(world: Consortium) -> Home:
    return Home.open(world.hub / "coordinator")


def asked(**changes: object) -> Recipe:
    """What the hospital's own file allows."""
    base = {"model": "vit", "weights": "embedded:thorax_tiny", "sha256": weights.digest(EMBEDDED / "thorax_tiny")}
    about = {"base": base, "strategy": {"rule": "fedavg", "weights": "equal"}, "privacy": {"epsilon": 3.0, "delta": 1e-5}}
    return recipe(**(about | changes))


def offered(world: Consortium, offers: Offers, run: str, **changes: object) -> Offer:
    made = offer(run, sites=["bury"], made=datetime.now(UTC), recipe=asked(**changes))
    return offers.take(sealed_offer(made, hub(world).key()))


def samples(text: str) -> dict[str, float]:
    """As they are written, labels and all."""
    lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def told(exposed: Exposed) -> dict[str, float]:
    assert until(lambda: not any("does not answer within" in problem for problem in exposed.problems()))
    return samples(generate_latest(exposed).decode())


def names(text: str) -> set[str]:
    """Of all metrics, also of those that have no value now."""
    found = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        found |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return found


NOW = datetime.now(UTC)


def decided(one: Offer, **fields: object) -> dict[str, object]:
    return {"run": one.run, "recipe": one.recipe.sha256, "offer": one.sha256, **fields}


def left(one: Offer, number: int, size: int) -> Left:
    about = {"run": one.run, "round": number, "recipe": one.recipe.sha256, "plan": "3" * 64, "to": "north_west"}
    return Left.model_validate(
        {
            **about,
            "approved_by": "Grace",
            "update": "2" * 64,
            "size": size,
            "tensors": {},
            "norm": 1.0,
            "numbers": {"patients": 31.0, "loss": 0.25},
            "epsilon": 3.0,
        }
    )


def test_what_waits_what_left_and_what_was_said_is_told_from_the_journal(world: Consortium, home: SiteHome) -> None:
    offers = Offers.open(home)
    exposed = site_metrics(home, Contact(), Trainer(site_file=home.file))
    spring, _ = offered(world, offers, "spring"), offered(world, offers, "winter")
    # The hospital's file does not allow it: nobody there is waited for.
    offered(world, offers, "autumn", privacy=None)
    found = told(exposed)
    assert found["rainhill_site_approvals_waiting"] == 2 and 0 < found["rainhill_site_approval_waiting_seconds"] < 600
    approved = decided(spring, by="Grace", rounds=3, until=NOW + timedelta(days=9), repeats=0, envelope=False)
    held = {"run": "spring", "round": 3, "update": "3" * 64}
    home.held.mkdir()
    (home.held / "spring.round-000003.0123456789abcdef.safetensors").write_bytes(b"")
    events: list[Event] = [
        Approved.model_validate(approved),
        left(spring, 1, 1000),
        # Lost on its way, and the same again.
        left(spring, 1, 1000),
        left(spring, 2, 500),
        Said(run="spring", round=4, reason="no patient is left whose budget allows another round"),
        Held.model_validate(held),
        # Its round is over, and its file gone.
        Held.model_validate({**held, "round": 2}),
    ]
    offers.journal.append(*events)
    assert until(lambda: told(exposed)["rainhill_site_approvals_waiting"] == 1)
    found = told(exposed)
    assert found['rainhill_site_rounds_answered_total{run="spring"}'] == 2
    assert (found["rainhill_site_updates_left_total"], found["rainhill_site_bytes_left_total"]) == (3, 2500)
    assert found["rainhill_site_refusals_said_total"] == 1 and found["rainhill_site_held_updates"] == 1
    # Its first entry and three offers besides.
    assert found["rainhill_site_journal_entries"] == 11
    offers.journal.append(Released.model_validate({**held, "by": "Grace"}))
    assert until(lambda: told(exposed)["rainhill_site_held_updates"] == 0) and told(exposed)["rainhill_site_held_seconds"] == 0
    offers.journal.head.write_text("{}")
    assert until(lambda: told(exposed)['rainhill_site_ready{part="journal"}'] == 0)
    assert "rainhill_site_updates_left_total" not in told(exposed)
    assert any(problem.startswith("journal: ") and "holds no seq and hash" in problem for problem in exposed.problems())


def test_epsilon_is_told_where_the_sites_file_says_so_and_of_one_patient_only(home: SiteHome) -> None:
    ledger = Ledger.open(home.state, site="bury")
    some, most = Members.of(["0" * 16, "1" * 16]), Members.of(["1" * 16])
    about = {"run": "spring", "recipe": "0" * 64, "cohort": "films", "what": "update", "delta": 1e-5, "draw": "1" * 64, "plan": "2" * 64}
    terms = {"noise_multiplier": 1.1, "sample_rate": 0.03, "steps": 10}
    charges = [
        Charged.model_validate({**about, **terms, "round": number, "members": one.digest}) for number, one in enumerate((some, most))
    ]
    ledger.append(some, most, *charges)
    found = told(site_metrics(home, Contact(), Trainer(site_file=home.file)))
    assert found["rainhill_site_ledger_entries"] == 5 and 0 < found["rainhill_site_epsilon_spent"] < 8
    assert found["rainhill_site_epsilon_spent"] + found["rainhill_site_epsilon_left"] == pytest.approx(8)
    home.file.write_text(home.file.read_text().replace("epsilon = true", "epsilon = false"))
    found = told(site_metrics(SiteHome.open(home.file), Contact(), Trainer(site_file=home.file)))
    assert found["rainhill_site_ledger_entries"] == 5 and not any("epsilon" in name for name in found)


def test_the_line_and_the_training_process_are_told(home: SiteHome) -> None:
    trainer, contact = Trainer(site_file=home.file), Contact()
    exposed = site_metrics(home, contact, trainer)
    found = told(exposed)
    assert found["rainhill_site_in_contact"] == 0 and "rainhill_site_silent_seconds" not in found
    assert exposed.problems() == ["line: is not in contact yet"]
    contact.node, contact.last, contact.failures, contact.certificate_until = 1, time.time() - 60, 3, time.time() + 12.5 * 86400
    plan = Plan(run="spring", recipe="0" * 64, round=1, site="bury", adapter=adapter())
    try:
        # Not offered by this consortium: the process says so, and is there.
        assert trainer.answer(b"nothing", plan) == Refusal(run="spring", round=1, site="bury", reason=UNTOLD)
        assert until(lambda: told(exposed)["rainhill_site_training_running"] == 1)
        found = told(exposed)
        assert found["rainhill_site_in_contact"] == 1 and 60 <= found["rainhill_site_silent_seconds"] < 600
        assert found["rainhill_site_line_failures_total"] == 3 and exposed.problems() == []
        assert found['rainhill_site_certificate_days_left{certificate="coordinator"}'] == 12
        assert found['rainhill_site_certificate_days_left{certificate="authority"}'] == 3649
        assert found["rainhill_site_training_starts_total"] == 1 and found["rainhill_site_last_fit_seconds"] > 0
        assert found["rainhill_site_training_peak_bytes"] > 50 * 2**20 and found["rainhill_site_disk_free_bytes"] > 0
    finally:
        trainer.close()


def test_the_rules_and_the_configuration_hold_and_each_alert_fires_when_it_should(promtool: str) -> None:
    for command in (["check", "rules", RULES], ["check", "config", RULES.with_name("prometheus.yml")], ["test", "rules", TOLD]):
        done = subprocess.run([promtool, *map(str, command)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    rules = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    tested = {
        one["alertname"] for test in yaml.safe_load(TOLD.read_text())["tests"] for one in test["alert_rule_test"] if one["exp_alerts"]
    }
    assert rules == tested


class Prometheus:
    def __init__(self, folder: Path, targets: dict[str, int], rules: str) -> None:
        program = shutil.which("prometheus")
        if program is None:
            pytest.skip("Prometheus is not installed (Debian: prometheus)")
        port = free_port()
        self.base = f"http://127.0.0.1:{port}"
        text = (DEPLOY / "prometheus" / "prometheus.yml").read_text().replace("interval: 15s", "interval: 2s")
        for before, after in (("9445", targets["coordinator"]), ("9446", targets["site"])):
            assert text.count(f"127.0.0.1:{before}") == 1
            text = text.replace(f"127.0.0.1:{before}", f"127.0.0.1:{after}")
        (folder / "prometheus.yml").write_text(text)
        (folder / "rules.yml").write_text(rules)
        self.log = folder / "prometheus.log"
        with self.log.open("w") as log:
            command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
            self.process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)

    def ask(self, query: str) -> list[float]:
        try:
            answer = httpx.get(f"{self.base}/api/v1/query", params={"query": query}, timeout=30).raise_for_status()
        except httpx.HTTPError:
            return []
        return [float(one["value"][1]) for one in answer.json()["data"]["result"]]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def watched(world: Consortium, tmp_path: Path) -> Iterator[tuple[Prometheus, Callable[[str], httpx.Response]]]:
    """All runs, and is watched; whoever asks gets the coordinator's page, or the site's."""
    ports = {"coordinator": world.metrics_port, "site": SiteHome.open(world.folders["bury"] / "bury.toml").config.metrics.port}
    rules, shortened = re.subn(r"for: 10m\b", "for: 2s", RULES.read_text())
    assert shortened == 2
    one = Prometheus(tmp_path, ports, rules)
    try:
        world.serve("hub", "bury")
        yield one, lambda path: httpx.get(f"http://127.0.0.1:{ports[path.split('/')[0]]}/{path.split('/')[1]}", timeout=30)
    finally:
        one.end()


def test_a_site_that_is_killed_during_a_run_raises_the_alarm(
    world: Consortium, watched: tuple[Prometheus, Callable[[str], httpx.Response]]
) -> None:
    prometheus, page = watched
    assert until(lambda: prometheus.ask('up{job=~"rainhill-.+"}') == [1, 1], SLOW_S), prometheus.log.read_text() + world.log()
    assert until(lambda: prometheus.ask('rainhill_coordinator_site_in_contact{site="bury"}') == [1], SLOW_S), world.log()
    assert until(lambda: prometheus.ask("rainhill_site_in_contact") == [1], SLOW_S)
    for side in ("coordinator", "site"):
        assert until(lambda side=side: page(f"{side}/readyz").text == "ready\n", SLOW_S), page(f"{side}/readyz").text
    # As the handshake showed it.
    assert until(lambda: prometheus.ask('rainhill_site_certificate_days_left{certificate="coordinator"}') == [397])
    assert until(lambda: "epsilon_left" in page("site/metrics").text and "calls_refused" in page("coordinator/metrics").text)
    _check_names(page("coordinator/metrics").text, page("site/metrics").text)

    registry = Registry(database=Database.open(hub(world).database_url))
    made, sealed = new_offer(hub(world), registry, asked(), adapter=adapter(), run="spring", sites=["bury"], days=9, by="ada")
    runs = Runs(database=registry.database)
    runs.offer(made, sealed, by="ada")
    assert until(lambda: prometheus.ask("rainhill_site_approvals_waiting") == [1], SLOW_S), world.log()
    runs.begin("spring")
    assert until(lambda: prometheus.ask('rainhill_coordinator_run_state{run="spring",state="running"}') == [1], SLOW_S)
    assert until(lambda: prometheus.ask('rainhill_coordinator_run_standing{run="spring",standing="pending"}') == [1])
    firing = 'ALERTS{alertname="RainhillSiteLostContact",alertstate="firing",site="bury"}'
    assert prometheus.ask(firing) == []
    daemon = world.running.pop("bury")
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    assert until(lambda: prometheus.ask(firing) == [1], SLOW_S), world.log()
    assert prometheus.ask('up{job="rainhill-site"}') == [0] and page("coordinator/readyz").status_code == 200

    # And the SuperLink: its end is told, and that it was started again.
    child = int(re.findall(r"SuperLink runs as process (\d+)", world.log())[-1])
    os.kill(child, signal.SIGKILL)
    assert until(lambda: prometheus.ask('rainhill_coordinator_process_restarts_total{process="SuperLink"}') == [1], SLOW_S), world.log()
    assert until(lambda: page("coordinator/readyz").text == "ready\n", SLOW_S)
    world.stop("hub")
    registry.database.close()
    assert "Traceback" not in world.log()


def _check_names(coordinator: str, site: str) -> None:
    """That all which rules and dashboard name is there; and that a hospital tells nothing but what is listed here."""
    known = names(coordinator) | names(site)
    dashboard = json.loads((DEPLOY / "grafana" / "rainhill.json").read_text())
    drawn = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    rules = [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    for expression in (*drawn, *rules):
        assert set(re.findall(r"rainhill_\w+", expression)) <= known, expression
    # Nothing that is told is left out of the picture.
    everything = set(re.findall(r"rainhill_\w+", " ".join(drawn)))
    assert known - everything == {"rainhill_coordinator_round_seconds_sum", "rainhill_coordinator_round_seconds_count"}
    assert {name.removeprefix("rainhill_site_") for name in names(site)} == {
        "ready",
        "in_contact",
        "silent_seconds",
        "line_failures_total",
        "messages_dropped_total",
        "clock_ahead_seconds",
        "certificate_days_left",
        "info",
        "training_starts_total",
        "training_running",
        "last_fit_seconds",
        "training_peak_bytes",
        "disk_free_bytes",
        "paused",
        "rounds_answered_total",
        "updates_left_total",
        "bytes_left_total",
        "refusals_said_total",
        "approvals_waiting",
        "approval_waiting_seconds",
        "held_updates",
        "held_seconds",
        "journal_entries",
        "ledger_entries",
        "epsilon_spent",
        "epsilon_left",
    }
