"""What a site's daemon says to a coordinator that has the consortium's key, and asks for whatever it likes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.desk import desk_of
from client.home import SiteHome
from client.journal import Left, Said
from client.policy import opens_in_s
from rainhill import signed, wire
from rainhill.adapter import Adapter
from rainhill.errors import CredentialError, RefusedError
from rainhill.messages import UNTOLD, Plan, Refusal, Update, Waiting
from rainhill.offer import opened_offer, sealed_offer
from rainhill.recipe import Recipe
from rainhill.standing import Standing, opened_standing
from tests.client.hospital import KEY, Asks, offers, rule

NONCE = bytes(range(16))


@dataclass
class Site:
    """A daemon's desk, whose training is a function."""

    file: Path
    asks: Asks
    trained: list[Plan] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        home = SiteHome.open(self.file)
        # As it was when the daemon began: what the file says afterwards it has to find out itself.
        self.desk = desk_of(home, self.train, lambda *_: {})

    def train(self, sealed: bytes, plan: Plan) -> Update | Refusal:
        offer = opened_offer(sealed, consortium="north_west", public=signed.public_key(KEY))
        assert offer.recipe.sha256 == plan.recipe
        self.trained.append(plan)
        self.meanwhile()
        return self.asks.update(plan)

    def stand(self, sealed: bytes, number: int = 0) -> Standing:
        public, offer = (
            self.desk.home.identity().signing_public,
            opened_offer(sealed, consortium="north_west", public=signed.public_key(KEY)),
        )
        blob = self.desk.stand(sealed, number, NONCE)
        return opened_standing(blob, site="bury", run=offer.run, offer=offer.sha256, nonce=NONCE, public=public)

    def ask(self, plan: Plan) -> Update | Refusal | Waiting:
        """As it comes over the wire."""
        return self.desk.answer(wire.plan_from_bytes(wire.plan_to_bytes(plan)))

    def says(self, text: str) -> None:
        with self.file.open("a") as file:
            file.write(text)

    def written(self, *kinds: type) -> list[Any]:
        return [event for event in self.desk.journal.events() if isinstance(event, kinds)]

    def waits(self, plan: Plan) -> str:
        said = self.ask(plan)
        assert isinstance(said, Waiting), said
        return said.reason

    def refuses(self, plan: Plan) -> str:
        said = self.ask(plan)
        assert isinstance(said, Refusal), said
        assert self.written(Said)[-1].reason == said.reason
        return said.reason


@pytest.fixture
def offered(site_file: Path, plain: Asks) -> Site:
    site = Site(site_file, plain)
    site.stand(plain.sealed())
    return site


@pytest.fixture
def approved(offered: Site) -> Site:
    offers(offered.file).approve("spring", by="Grace")
    return offered


def test_how_a_site_stands_is_signed_and_said_to_who_asked_now(offered: Site) -> None:
    sealed = offered.asks.sealed("autumn")
    public, offer = (
        offered.desk.home.identity().signing_public,
        opened_offer(sealed, consortium="north_west", public=signed.public_key(KEY)),
    )
    said = offered.desk.stand(sealed, 0, NONCE)
    told = {"site": "bury", "run": "autumn", "offer": offer.sha256, "nonce": NONCE}
    assert opened_standing(said, **told, public=public).state == "pending"
    with pytest.raises(CredentialError, match="is of nonce"):
        opened_standing(said, **told | {"nonce": bytes(16)}, public=public)
    with pytest.raises(CredentialError, match="is signed with key"):
        opened_standing(said, **told, public=signed.public_key(KEY))


def test_a_standing_is_short_however_many_reasons_there_are(site_file: Path, plain: Asks) -> None:
    site = Site(site_file, plain)
    site.says(f"[policy]\nrules = [{', '.join(repr(f'rule_{number}') for number in range(900))}]\n")
    said = site.stand(plain.sealed())
    assert said.state == "refused" and len(said.reason) == 2000


def test_a_plan_waits_for_a_person_and_trains_nothing_until_then(offered: Site) -> None:
    plan = offered.asks.plan()
    assert offered.waits(plan) == "waits for somebody at the site to approve it" and offered.trained == []
    offers(offered.file).approve("spring", by="Grace")
    assert isinstance(offered.ask(plan), Update) and len(offered.trained) == 1
    (left,) = offered.written(Left)
    assert left.approved_by == "Grace"


def test_a_plan_of_a_refused_run_is_refused_in_the_sites_words(approved: Site) -> None:
    offers(approved.file).decline("spring", by="Grace", reason="our scanners are being changed")
    assert approved.refuses(approved.asks.plan()) == "our scanners are being changed" and approved.trained == []


def test_a_site_that_has_paused_waits_until_it_goes_on(approved: Site) -> None:
    approved.desk.home.paused.touch()
    assert approved.waits(approved.asks.plan()) == "the site has paused" and approved.trained == []
    approved.desk.home.paused.unlink()
    assert isinstance(approved.ask(approved.asks.plan()), Update)


def test_outside_its_hours_a_site_waits_and_changed_hours_count_at_once(approved: Site) -> None:
    now = datetime.now()
    opens, closes = (f"{now + timedelta(hours=hours):%H:%M}" for hours in (2, 3))
    approved.says(f'[policy]\nhours = "{opens}-{closes}"\n')
    said = approved.ask(approved.asks.plan())
    assert isinstance(said, Waiting) and said.reason == f"trains from {opens}" and said.retry_s == 900 and approved.trained == []
    approved.file.write_text(approved.file.read_text().replace(f"{opens}-{closes}", ""))
    assert isinstance(approved.ask(approved.asks.plan()), Update)


def test_a_daemon_that_runs_heeds_what_the_sites_file_says_by_now(approved: Site) -> None:
    approved.says('[policy]\nrules = ["ffa"]\n')
    assert approved.refuses(approved.asks.plan()) == "rule fedavg, the site allows ffa"
    assert approved.stand(approved.asks.sealed("autumn")).state == "refused"


def test_a_file_that_cannot_be_read_meanwhile_lets_nothing_out_and_tells_nothing(approved: Site, caplog: pytest.LogCaptureFixture) -> None:
    approved.says("[policy\n")
    assert approved.refuses(approved.asks.plan()) == UNTOLD and approved.trained == []
    assert "bury.toml: not valid TOML" in caplog.text


def test_an_approval_that_is_taken_back_during_a_fit_lets_its_update_not_leave(approved: Site) -> None:
    approved.meanwhile = lambda: offers(approved.file).decline("spring", by="Grace", reason="not any more")
    assert approved.refuses(approved.asks.plan()) == "not any more"
    assert len(approved.trained) == 1 and approved.written(Left) == []


def test_a_site_that_pauses_during_a_fit_keeps_the_update(approved: Site) -> None:
    approved.meanwhile = approved.desk.home.paused.touch
    assert approved.waits(approved.asks.plan()) == "the site has paused"
    assert len(approved.trained) == 1 and approved.written(Left) == []


def test_two_plans_at_once_get_no_more_updates_than_were_approved(offered: Site) -> None:
    """A node works on several messages at once, and each finds one round left before it trains."""
    offers(offered.file).approve("spring", by="Grace", rounds=1)
    both = threading.Barrier(2)
    offered.meanwhile = lambda: both.wait(30)
    said: list[Update | Refusal | Waiting] = []
    plans = [offered.asks.plan(1), offered.asks.plan(2)]
    threads = [threading.Thread(target=lambda plan=plan: said.append(offered.ask(plan))) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(one).__name__ for one in said) == ["Update", "Waiting"] and len(offered.written(Left)) == 1


def test_two_runs_at_once_get_one_repeat_between_them(approved: Site) -> None:
    offers(approved.file).approve("spring", by="Grace", repeats=1)
    states: list[str] = []
    sealed = [approved.asks.sealed(run) for run in ("autumn", "winter", "summer")]
    threads = [threading.Thread(target=lambda one=one: states.append(approved.stand(one).state)) for one in sealed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(states) == ["approved", "pending", "pending"]


def test_of_a_run_that_was_never_offered_not_even_other_runs_names_are_told(approved: Site) -> None:
    assert approved.refuses(approved.asks.plan(run="sprin")) == UNTOLD and approved.trained == []


def test_a_lost_answer_is_given_again_and_another_plan_of_the_round_is_not(offered: Site) -> None:
    offers(offered.file).approve("spring", by="Grace", rounds=1)
    assert isinstance(offered.ask(offered.asks.plan()), Update) and isinstance(offered.ask(offered.asks.plan()), Update)
    assert offered.waits(offered.asks.plan(2)) == "was approved for 1 rounds, which are done"


def test_what_the_door_refuses_is_in_the_journal_and_its_words_stay_here(approved: Site, caplog: pytest.LogCaptureFixture) -> None:
    approved.says("[policy]\nmax_update_norm = 1e-6\n")
    assert approved.refuses(approved.asks.plan()) == UNTOLD
    assert approved.written(Left) == [] and "the update has l2 norm" in caplog.text


def beyond(plan: Plan, asks: Asks) -> dict[str, tuple[Plan, str]]:
    """Plans that ask for what nobody approved, each signed by who may."""
    adapter = plan.adapter
    a, b = (next(name for name in adapter if name.endswith(factor)) for factor in ("lora_A", "lora_B"))
    wider = Adapter({**adapter, a: np.zeros((9, adapter[a].shape[1]), np.float32), b: np.zeros((adapter[b].shape[0], 9), np.float32)})
    fewer = Adapter({name: array for name, array in adapter.items() if name != "head.bias"})
    later = asks.plan(2)
    moved = asks.plan(1, seed=1).adapter

    def of(**changes: Any) -> Plan:
        return replace(plan, rule=rule(plan, **changes))

    return {
        "one factor only": (of(send=frozenset({"A"})), "plan asks send ['A'], the recipe has ['A', 'B']"),
        "train one factor": (of(train=frozenset({"B"})), "plan asks train ['B'], the recipe has ['A', 'B']"),
        "a pull": (of(mu=0.5), "plan asks mu 0.5, the recipe has 0.0"),
        "the gradient": (of(variate=True), "plan asks variate True, the recipe has False"),
        "kept tensors": (of(keep=("head.*",)), "plan asks keep ('head.*',), the recipe has ()"),
        "kept first": (of(kept_first=3), "plan asks kept_first 3, the recipe has 0"),
        "turns": (of(alternate=True), "plan asks alternate True, the recipe has False"),
        "a push": (
            of(correction=Adapter({a: np.ones_like(adapter[a])})),
            f"plan asks correction {{'{a}': {adapter[a].shape}}}, the recipe has None",
        ),
        "a choice": (replace(plan, choices=(moved,)), "plan offers 1 further adapters to choose from, the recipe has 0"),
        "another rank": (replace(plan, adapter=wider), f"plan's adapter: {a} is (9, 16), offered was (2, 16)"),
        "a tensor less": (replace(plan, adapter=fewer), "plan's adapter: head.bias is not there, offered was (2,)"),
        "a tensor more": (
            replace(plan, adapter=Adapter({**adapter, "norm:x": np.zeros(3, np.float32)})),
            "plan's adapter: norm:x is (3,), offered was none",
        ),
        "another beginning": (replace(plan, adapter=moved), f"round 1 begins from adapter {moved.fingerprint()[:12]}, offered was"),
        "another recipe": (replace(plan, recipe="0" * 64), "plan is for recipe 000000000000, offered was"),
        "round 1000": (replace(later, round=1000), "plan is for round 1000, the recipe has 2"),
        "round 0": (replace(later, round=0), "plan is for round 0, the recipe has 2"),
    }


@pytest.fixture(scope="module")
def plans(plain: Asks) -> dict[str, tuple[Plan, str]]:
    return beyond(plain.plan(), plain)


def test_a_plan_that_asks_for_more_than_the_recipe_is_refused_with_both_values(approved: Site, plans: dict[str, tuple[Plan, str]]) -> None:
    for what, (plan, said) in plans.items():
        assert said in approved.refuses(plan), what
    assert approved.trained == [] and approved.written(Left) == []


def test_a_plan_for_round_1000_does_not_make_a_site_forget_what_it_holds(approved: Site) -> None:
    approved.says("[policy]\nhold = true\n")
    assert "waits for somebody" in approved.waits(approved.asks.plan())
    approved.refuses(replace(approved.asks.plan(2), round=1000))
    assert len(list(approved.desk.home.held.iterdir())) == 1


STRATEGIES: list[dict[str, Any]] = [
    {"rule": "alternating"},
    {"rule": "fedavg", "server_optimizer": "scaffold"},
    {"rule": "fedavg", "server_optimizer": {"name": "fedprox", "mu": 0.1}},
    {"rule": "fedavg", "personal": {"name": "ifca", "clusters": 3}},
    {"rule": "fedavg", "personal": {"name": "fedrep", "head_steps": 2}},
    {"rule": "fedex"},
    {"rule": "flora"},
    {"rule": "fedsvd"},
    {"rule": "fedsb"},
    {"rule": "hetlora"},
    {"rule": "double_sketch"},
]


@pytest.mark.parametrize("section", STRATEGIES, ids=lambda section: "+".join(str(one) for one in section.values()))
def test_plans_that_a_real_coordinator_makes_are_within_bounds_in_every_round(plain: Asks, section: dict[str, Any]) -> None:
    from client.bounds import refuse_beyond
    from strategies import from_recipe

    ranks = {"lora": plain.recipe.lora.model_dump() | {"ranks": {"bury": 1}}} if section["rule"] == "hetlora" else {}
    tree = plain.recipe.model_dump() | ranks | {"strategy": section, "rounds": plain.recipe.rounds.model_dump() | {"count": 4}}
    recipe = Recipe.model_validate(tree)
    strategy = from_recipe(recipe)
    adapter = strategy.first(plain.first)
    asks, state = Asks(recipe=recipe, first=adapter), strategy.init(adapter)
    offer = asks.offer()
    for number in range(1, 4):
        updates = []
        for site in ("bury", "oldham", "calder", "denton"):
            sent = strategy.down(adapter, state, site)
            told = {"rule": strategy.local(sent, state, site), "choices": strategy.choices(adapter, state, site)}
            plan = Plan(run="spring", recipe=recipe.sha256, round=number, site=site, adapter=sent, **told)
            refuse_beyond(wire.plan_from_bytes(wire.plan_to_bytes(plan)), offer)
            rng = np.random.default_rng([number, *site.encode()])
            moved = Adapter({name: (array + rng.normal(0, 0.01, array.shape)).astype(np.float32) for name, array in sent.items()})
            delta = strategy.encode(sent, moved, plan.rule, number)
            variate = sent.only(plan.rule.sends) if plan.rule.variate else None
            about = {"run": "spring", "round": number, "patients": 9, "steps": 4, "loss": 0.5}
            updates.append(Update(site=site, delta=delta, variate=variate, **about))
        adapter, state = strategy.step(adapter, updates, state)
    with pytest.raises(RefusedError):
        refuse_beyond(replace(plan, rule=rule(plan, mu=0.7)), offer)


minutes = st.integers(0, 24 * 60 - 1)


def clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


@given(minutes, minutes, st.integers(0, 86_399))
def test_a_site_trains_within_its_hours_and_outside_of_them_when_they_begin(start: int, end: int, second: int) -> None:
    hours, now = f"{clock(start)}-{clock(end)}", datetime(2026, 5, 1) + timedelta(seconds=second)
    wait_s = opens_in_s(hours, now)
    # Going forward from the beginning: over midnight where the end is before it.
    into, long = (second - 60 * start) % 86_400, (60 * (end - start)) % 86_400
    if start == end or into < long:
        assert wait_s == 0
    else:
        opens = now + timedelta(seconds=wait_s)
        assert 0 < wait_s < 86_400 and f"{opens:%H:%M:%S}" == f"{clock(start)}:00" and opens_in_s(hours, opens) == 0


@given(st.integers(0, 86_399))
def test_a_site_that_names_no_hours_always_trains(second: int) -> None:
    assert opens_in_s("", datetime(2026, 5, 1) + timedelta(seconds=second)) == 0


def test_the_offer_that_a_site_approved_is_the_one_that_trains(approved: Site) -> None:
    """Another of the same name, signed and all, is not even taken."""
    with pytest.raises(RefusedError, match="was offered as"):
        approved.desk.stand(sealed_offer(approved.asks.offer(by="eve"), KEY), 1, NONCE)
    assert isinstance(approved.ask(approved.asks.plan()), Update)
