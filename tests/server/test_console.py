"""The operator's console in a real browser: over a database filled by the real code, a real SuperLink, and a hospital in contact with it."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Page as Tab

from client.identity import Identity, new_identity
from rainhill.enrolment import SiteRequest
from rainhill.exposed import exposing
from rainhill.listening import MetricsConfig
from rainhill.messages import RoundRecord
from rainhill.supervise import Child
from rainhill.told import Gains, Interval, Levels, Told
from server.console import OPERATOR, VIEWER
from server.console.accounts import accounts_of
from server.console.contact import line_of
from server.console.curves import curves_of
from server.console.pages import console_of
from server.console.watch import Contact
from server.console.words import lasting, number
from server.database import Database
from server.flower.link import admit_only
from server.flower.presence import Presence
from server.history import Kept
from server.home import CoordinatorConfig
from server.metrics import coordinator_metrics
from server.registry import Registry
from server.runs import Runs
from server.tables import RECEIVED
from tests.browser import PASSWORD, PHONE, axe, browser, overflow, page, served, sign_in
from tests.server.conftest import free_port
from tests.server.offers import enrol, offer, recipe, sealed
from tests.server.peers import Coordinator, node, until

__all__ = ["browser", "page"]

ASKED = ("bury", "oldham", "wirral")
TOLD = Told(
    confidence=0.95,
    measure="auroc",
    levels=Levels(
        base=Interval(value=0.71, low=0.66, high=0.76),
        shared=Interval(value=0.80, low=0.75, high=0.84),
        private=Interval(value=0.83, low=0.79, high=0.87),
    ),
    gain=Gains(shared=Interval(value=0.09, low=-0.01, high=0.13), private=Interval(value=0.12, low=0.06, high=0.16)),
)
PAGES = ("/", "/sites", "/sites/bury", "/sites/wigan", "/runs", "/runs/spring-2", "/runs/winter-1", "/runs/spring-2/rounds/60", "/log")


class World:
    """Four hospitals, of which one is in contact and one was revoked; a run under way, one that failed, one that waits, one that is over."""

    def __init__(self, folder: Path) -> None:
        self.coordinator = Coordinator(folder / "coordinator")
        self.coordinator.start()
        home = self.coordinator.home
        self.metrics_port = free_port()
        about = {"metrics": {"port": self.metrics_port}, "console": {"port": free_port()}, "title": "North West imaging"}
        config = CoordinatorConfig.model_validate(home.config.model_dump() | about)
        self.home = replace(home, config=config)
        for name, role in (("ada", OPERATOR), ("vic", VIEWER)):
            accounts_of(self.home).add(name, role=role, password=PASSWORD)
        self.registry = Registry(database=Database.open(self.home.database_url))
        self.runs = Runs(database=self.registry.database)
        self.bury = new_identity()
        self._enrol(self.bury)
        enrol(self.registry, "oldham", "wirral", "wigan")
        self.registry.revoke("wigan", reason="it has left the consortium", by="ada")
        self._runs()
        admit_only(self.coordinator.link, {"bury": self.bury.node_public.encode()})

    def _enrol(self, identity: Identity) -> None:
        request = {
            "name": "bury",
            "title": "Bury General",
            "node_key": identity.node_public,
            "signing_key": identity.signing_public.hex(),
            "made": datetime.now(UTC),
            "software": "rainhill 0.1.0",
            "protocols": (3,),
        }
        self.registry.enrol(SiteRequest.model_validate(request), by="grace")

    def _runs(self) -> None:
        now = datetime.now(UTC)
        private = {"epsilon": 8, "delta": 1e-5, "max_grad_norm": 0.3}
        longer = recipe(title="Findings of the chest", privacy=private, rounds={"count": 80, "steps": 6, "quorum": 2})
        for days, name, asked in ((40, "winter-1", recipe()), (3, "spring-1", recipe()), (2, "spring-2", longer), (0, "summer-1", longer)):
            made = offer(name, sites=ASKED, made=now - timedelta(days=days), recipe=asked)
            self.runs.offer(made, sealed(made), by="ada")
        for name in ("winter-1", "spring-2"):
            self.runs.begin(name)
            for site in ASKED:
                self.runs.stand(name, site, "approved", "")
        for done in range(1, 4):
            self.runs.record("winter-1", _record(done), adapter="3" * 64)
        self.runs.finish("winter-1", "4" * 64)
        self.runs.deliver("winter-1", "bury", RECEIVED, TOLD)
        for done in range(1, 61):
            self.runs.record("spring-2", _record(done, epsilon=7.5), adapter=f"{done:064x}")
        self.runs.says("spring-2", "round 60 of 80 is done")
        self.runs.fail("spring-1", "0 of 3 sites have approved it, the quorum is 1")
        self.runs.stand("summer-1", "oldham", "pending", "somebody has yet to look at it")
        self.runs.stand("summer-1", "bury", "approved", "")


def _record(done: int, *, epsilon: float | None = None) -> RoundRecord:
    """Wirral withholds its numbers, and was away in each tenth round."""
    answered = ("bury", "oldham") if done % 10 == 0 else ASKED
    told = {"bury": 0.7 - 0.004 * done, "oldham": 0.72 - 0.003 * done}
    return RoundRecord(
        round=done,
        asked=ASKED,
        answered=answered,
        refused={} if len(answered) == 3 else {"wirral": "is not in contact; waited 30 s <b>"},
        down_bytes=dict.fromkeys(ASKED, 3 * 2**20),
        up_bytes=dict.fromkeys(answered, 2**20),
        losses=told,
        evaluations={"bury": {"auroc": 0.7 + 0.002 * done}},
        seconds=12.0 + done % 7,
        log={"energy": 0.9},
        epsilons=dict.fromkeys(answered, epsilon) if epsilon else {},
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    one = World(tmp_path_factory.mktemp("console"))
    children = [Child(name="SuperLink", command=[], starts=3)]
    exposed = coordinator_metrics(one.home, one.coordinator.link, one.registry, children)
    with ExitStack() as stack:
        stack.callback(one.coordinator.end)
        stack.enter_context(exposing(exposed, MetricsConfig(port=one.metrics_port)))
        contact = stack.enter_context(node(one.coordinator, one.bury, lambda message: message))
        assert until(lambda: contact.node is not None)
        yield one


@pytest.fixture(scope="module")
def origin(world: World) -> Iterator[str]:
    with served(console_of(world.home)) as address:
        yield address


def test_a_viewer_finds_what_needs_somebody_and_follows_it_to_its_round(origin: str, page: Tab) -> None:
    sign_in(page, origin, "vic")
    needs = page.locator(".needs")
    needs.get_by_text("The process SuperLink had to be started again 2 times").wait_for()
    assert needs.get_by_role("link", name="Run spring-1 has failed: 0 of 3 sites have approved it, the quorum is 1").is_visible()
    # Not of what has only just come to its end.
    assert "winter-1" not in needs.inner_text()
    assert "1 of 3" in page.locator(".card").first.inner_text() and "3 enrolled, 1 revoked" in page.locator(".card").first.inner_text()
    waits = page.get_by_role("region", name="Who is waited for")
    assert (
        waits.get_by_role("row", name="oldham").filter(has_text="somebody has yet to look at it").filter(has_text="summer-1").is_visible()
    )
    assert waits.get_by_role("row", name="bury").count() == 0
    page.get_by_role("region", name="Active runs").get_by_role("link", name="spring-2").click()
    page.get_by_role("heading", name="Findings of the chest").wait_for()
    text = page.locator("main").inner_text()
    for words in (
        "60 of 80",
        "epsilon 8 at delta 1e-05, over all 80 rounds together",
        "wirral: at most epsilon 7.5",
        "Round 60: 2 of 3 sites in 16.0 s",
        "Withheld by wirral.",
        "Released by the site's policy",
    ):
        assert words in text, words
    sites = page.get_by_role("region", name="Sites of the run").get_by_role("row", name="wirral")
    assert "54 of 60" in sites.inner_text() and "180.0 MiB" in sites.inner_text() and "54.0 MiB" in sites.inner_text()
    assert page.get_by_role("img", name="bury: 0.696 in round 1, 0.46 in round 60").count() == 1
    # Nothing to be done here is offered to who may not do it.
    assert page.locator("main form").count() == 0
    page.get_by_role("link", name="Older rounds").click()
    page.get_by_role("region", name="Rounds").get_by_role("link", name="10", exact=True).click()
    page.get_by_role("heading", name="Round 10 of spring-2").wait_for()
    row = page.get_by_role("row", name="wirral")
    assert "left out" in row.inner_text() and "is not in contact; waited 30 s <b>" in row.inner_text()
    assert (
        "withheld" in page.get_by_role("row", name="oldham").inner_text()
        and "AUROC 0.72" in page.get_by_role("row", name="bury").inner_text()
    )


def test_a_recipe_is_shown_whole_and_against_the_run_before_it(origin: str, page: Tab) -> None:
    sign_in(page, origin, "vic")
    page.goto(f"{origin}/runs/spring-2")
    changes = page.get_by_role("region", name="What is another than before")
    row = changes.get_by_role("row", name="rounds.count")
    assert row.locator("del").inner_text() == "3" and row.locator("ins").inner_text() == "80"
    assert changes.get_by_role("link", name="spring-1").is_visible() and changes.get_by_role("row", name="lora.rank").count() == 0
    page.get_by_text("The recipe in full").click()
    toml = page.locator("#recipe pre").inner_text()
    assert 'title = "Findings of the chest"' in toml and "[rounds]\nbalance = 0.0\ncount = 80\n" in toml
    page.goto(f"{origin}/runs/summer-1")
    page.get_by_text("The same, key by key, as in spring-2").wait_for()
    page.goto(f"{origin}/runs/winter-1")
    page.get_by_text("No run before it had a recipe of this name").wait_for()


def test_what_a_run_came_to_is_shown_of_the_sites_that_tell_it(origin: str, page: Tab) -> None:
    sign_in(page, origin, "vic")
    page.goto(f"{origin}/runs/winter-1")
    page.get_by_text("What it came to at oldham, wirral is not told").wait_for()
    rows = page.get_by_role("region", name="What it brought bury").get_by_role("row").all_inner_texts()
    assert [text.split("\t")[0] for text in rows] == [
        "Model",
        "the base model alone",
        "with the shared adapter",
        "with the site's own part too",
    ]
    assert rows[0].split("\t")[1] == "AUROC" and page.get_by_text("AUROC, mean over findings, 95 % intervals").is_visible()
    assert "0.710 [0.660, 0.760]" in rows[1]
    assert "+0.090 [-0.010, +0.130]" in rows[2] and rows[2].endswith("not distinguishable")
    assert "+0.120 [+0.060, +0.160]" in rows[3] and rows[3].endswith("better")


def test_a_site_is_told_of_with_its_keys_and_who_saw_to_them(world: World, origin: str, page: Tab) -> None:
    sign_in(page, origin, "vic")
    page.get_by_role("link", name="Sites", exact=True).click()
    bury = page.get_by_role("row", name="bury")
    bury.get_by_text("in contact", exact=True).wait_for()
    assert world.registry.site("bury").fingerprint in bury.inner_text() and "63 of 63" in bury.inner_text()
    assert "never in contact" in page.get_by_role("row", name="oldham").inner_text()
    assert "it has left the consortium" in page.get_by_role("row", name="wigan").inner_text()
    bury.get_by_role("link", name="bury").click()
    page.get_by_role("heading", name="Bury General").wait_for()
    assert "by grace" in page.locator("dl").inner_text() and "rainhill 0.1.0, wire 3" in page.locator("dl").inner_text()
    assert page.get_by_role("region", name="Runs that it is asked in").get_by_role("row", name="winter-1").is_visible()
    page.goto(f"{origin}/sites/wigan")
    page.get_by_text("by ada: it has left the consortium").wait_for()


def test_an_operator_stops_resumes_and_begins_a_run_under_their_own_name(world: World, origin: str, page: Tab) -> None:
    made = offer("autumn-1", sites=ASKED, made=datetime.now(UTC))
    world.runs.offer(made, sealed(made), by="grace")
    sign_in(page, origin, "ada")
    page.goto(f"{origin}/runs/autumn-1")
    page.get_by_text("Stop this run").click()
    page.get_by_label("Reason").fill("the scanner <is> away")
    page.get_by_role("heading", name="What is asked").click()
    # What happens meanwhile is shown, and what was typed stays.
    world.runs.stand("autumn-1", "bury", "approved", "by Dr Ó Néill")
    page.get_by_text("by Dr Ó Néill").wait_for()
    page.get_by_role("button", name="Stop autumn-1").click()
    page.get_by_role("status").get_by_text("autumn-1 is stopped").wait_for()
    page.get_by_text("stopped", exact=True).wait_for()
    assert (world.runs.run("autumn-1").state, world.runs.run("autumn-1").words) == ("stopped", "the scanner <is> away")
    page.get_by_role("button", name="Resume autumn-1").click()
    page.get_by_role("status").get_by_text("autumn-1 is offered again").wait_for()
    page.get_by_role("button", name="Begin autumn-1").click()
    page.get_by_role("status").get_by_text("autumn-1 begins").wait_for()
    assert world.runs.run("autumn-1").state == "running"
    # What does not fit is not done, and said with both states.
    page.goto(f"{origin}/runs/autumn-1")
    page.get_by_text("Stop this run").click()
    page.get_by_label("Reason").fill("too late")
    world.runs.fail("autumn-1", "no room on the disk")
    page.get_by_role("button", name="Stop autumn-1").click()
    page.get_by_role("alert").get_by_text("autumn-1: is failed; only one that is offered or running becomes stopped").wait_for()
    page.get_by_role("link", name="Log", exact=True).click()
    acts = [row.inner_text() for row in page.get_by_role("row").filter(has_text="autumn-1").all()]
    assert [(act.split("\t")[1:3]) for act in acts] == [["ada", "began"], ["ada", "resumed"], ["ada", "stopped"], ["grace", "offered"]]
    assert "the scanner <is> away" in acts[2]


def test_a_viewer_does_nothing_and_a_wrong_name_is_answered_by_the_nearest(world: World, origin: str, page: Tab) -> None:
    sign_in(page, origin, "vic")
    csrf = page.locator("input[name=csrf]").first.get_attribute("value")
    refused = page.request.post(f"{origin}/runs/summer-1/begin", form={"csrf": str(csrf)}, headers={"Origin": origin})
    assert refused.status == 403 and "vic is viewer here, and this is for operator" in refused.text()
    assert world.runs.run("summer-1").state == "offered"
    for path, words in (
        ("/runs/spring-22", "there is no run &#39;spring-22&#39;, did you mean &#39;spring-2&#39;?"),
        ("/sites/burry", "no site &#39;burry&#39; is enrolled, did you mean &#39;bury&#39;?"),
        ("/runs/spring-2/rounds/61", "has no round &#39;61&#39; that is done; 60 of 80 are"),
        ("/runs/spring-2/rounds/%C2%B2", "has no round"),
        ("/runs?skip=-1", "skip = &#39;-1&#39; is no number of lines"),
    ):
        answer = page.request.get(origin + path)
        assert answer.status == 404 and words in answer.text(), path
    assert "Older" not in page.request.get(f"{origin}/runs?skip=5000").text()


def test_every_page_is_for_everybody(origin: str, page: Tab) -> None:
    sign_in(page, origin, "ada")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        for path in PAGES if scheme == "light" else PAGES[:6]:
            page.goto(origin + path)
            assert axe(page) == [], path
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    for path in PAGES:
        page.goto(origin + path)
        assert overflow(page) == 0, path


def test_what_a_run_came_to_by_what_it_writes_is_shown_as_that(world: World, origin: str, page: Tab) -> None:
    made = offer("drafts-1", sites=ASKED, made=datetime.now(UTC))
    world.runs.offer(made, sealed(made), by="grace")
    world.runs.begin("drafts-1")
    for done in (1, 2):
        kept = replace(_record(done), evaluations={"bury": {"label_f1": 0.5 + 0.125 * done}})
        world.runs.record("drafts-1", kept, adapter="3" * 64)
    world.runs.finish("drafts-1", "4" * 64)
    world.runs.deliver("drafts-1", "bury", RECEIVED, TOLD.model_copy(update={"measure": "label_f1"}))
    sign_in(page, origin, "vic")
    page.goto(f"{origin}/runs/drafts-1")
    page.get_by_text("Label F1 of drafts, 95 % intervals").wait_for()
    brought = page.get_by_role("region", name="What it brought bury")
    assert brought.get_by_role("row").all_inner_texts()[0].split("\t")[1] == "Label F1"
    assert brought.get_by_role("img", name="the base model alone: label F1 with its interval").is_visible()
    assert page.get_by_role("heading", name="Label F1 on validation patients").is_visible()
    assert page.get_by_text("label F1 0.75").is_visible() and "AUROC" not in page.content() and "label_f1" not in page.content()


def test_that_the_superlink_does_not_answer_is_said_plainly(world: World, page: Tab) -> None:
    about = world.home.config.model_dump() | {"console": {"port": free_port()}, "metrics": {"port": 0}}
    about["address"]["private_port"] = free_port()
    with served(console_of(replace(world.home, config=CoordinatorConfig.model_validate(about)))) as origin:
        sign_in(page, origin, "vic")
        page.get_by_text("The SuperLink does not answer,").wait_for()
        assert "not known" in page.locator(".card").first.inner_text()
        page.goto(f"{origin}/sites")
        assert "not known" in page.get_by_role("row", name="bury").inner_text()


def test_a_site_that_is_silent_is_told_with_how_long(world: World) -> None:
    now, site = datetime.now(UTC), world.registry.site("oldham")
    gone = line_of(site, Contact(sites={"oldham": Presence(here=False, silent_s=12_000)}), now)
    assert (gone.words, gone.kind, gone.since) == ("silent for 3 h 20 min", "bad", now - timedelta(seconds=12_000))
    assert line_of(site, Contact(problem="refused"), now).words == "not known"
    assert line_of(world.registry.site("wigan"), Contact(), now).words == "revoked"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (7200, "2 h"), (172_799, "47 h 59 min"), (172_800, "2 days")],
)
def test_a_time_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert lasting(seconds) == words


def test_a_curve_is_drawn_on_one_scale_and_breaks_where_a_loss_is_no_number() -> None:
    now = datetime.now(UTC)
    values = [{"bury": 4.0, "oldham": 1.0}, {"bury": float("inf"), "oldham": 2.0}, {"bury": 2.0}]
    rounds = [
        Kept(record=replace(_record(done), losses=losses, evaluations={}), adapter="1" * 64, time=now)
        for done, losses in enumerate(values, 1)
    ]
    loss, traffic = curves_of(rounds)
    bury, oldham = loss.panels
    assert bury.strokes[0].points == ("6.0,10.0", "274.0,76.7") and (bury.low, bury.high, bury.first, bury.last) == ("1", "4", 1, 3)
    assert oldham.strokes[0].points == ("6.0,110.0 274.0,76.7",) and oldham.words == "oldham: 1 in round 1, 2 in round 2"
    assert [stroke.dash for stroke in traffic.panels[1].strokes] == ["", "6 4"] and traffic.panels[1].high == "9.0 MiB"
    assert curves_of(rounds[:1]) == [] and number(float("nan")) == "no number"
