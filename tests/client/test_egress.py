"""The one door: what may leave, what is written before it does, and what waits for a person."""

import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.egress import Door, decide_held, held_updates
from client.journal import Approved, Held, Left, Released, Withheld
from client.offers import Offers
from rainhill import wire
from rainhill.adapter import Adapter
from rainhill.compression import lossy
from rainhill.errors import LedgerError, ProtocolError, RainhillError, RefusedError
from rainhill.messages import Evaluation, Plan, Refusal, Update, Waiting
from rainhill.recipe import Recipe
from tests.client.hospital import Asks, offers

HOLD = "[policy]\nhold = true\n"


@dataclass(frozen=True)
class Site:
    file: Path
    asks: Asks

    @property
    def offers(self) -> Offers:
        return offers(self.file)

    def out(self, plan: Plan, update: Update) -> Update | Waiting | Refusal:
        at = self.offers
        approved = next(event for event in at.journal.events() if isinstance(event, Approved))
        return Door(home=at.home, journal=at.journal).let_out(plan, at.offer(plan.run), approved, update)

    def kept(self, plan: Plan) -> Update | None:
        at = self.offers
        return Door(home=at.home, journal=at.journal).kept(plan)

    def written(self, *kinds: type) -> list[Any]:
        return [event for event in self.offers.journal.events() if isinstance(event, kinds)]

    def decide(self, number: int = 1, **how: str) -> str:
        at = self.offers
        return decide_held(at.home, at.journal, "spring", number, by="Grace", **how)

    def says(self, text: str) -> None:
        with self.file.open("a") as file:
            file.write(text)


@pytest.fixture
def site(site_file: Path, plain: Asks) -> Site:
    return approving(site_file, plain)


def approving(site_file: Path, asks: Asks) -> Site:
    at = offers(site_file)
    at.take(asks.sealed())
    at.approve("spring", by="Grace")
    return Site(site_file, asks)


def with_tensor(update: Update, array: object, *, name: str = "head.bias") -> Update:
    return replace(update, delta=Adapter({**update.delta, name: np.asarray(array)}))


def wrong_updates(update: Update) -> dict[str, Update]:
    bias = update.delta["head.bias"]
    fewer = Adapter({name: array for name, array in update.delta.items() if name != "head.bias"})
    huge = bias.copy()
    huge[0] = 2e6
    evaluation = Evaluation(patients=9, metrics={"auroc": 0.5})
    return {
        "a tensor more": with_tensor(update, np.zeros(4, np.float32), name="notes"),
        "a tensor less": replace(update, delta=fewer),
        "another shape": with_tensor(update, np.zeros(7, np.float32)),
        "float64": with_tensor(update, bias.astype(np.float64)),
        "float16": with_tensor(update, bias.astype(np.float16)),
        "not a number": with_tensor(update, np.full_like(bias, np.nan)),
        "infinite": with_tensor(update, np.full_like(bias, np.inf)),
        "huge": with_tensor(update, huge),
        "another run": replace(update, run="autumn"),
        "another round": replace(update, round=2),
        "another site": replace(update, site="oldham"),
        "a choice": replace(update, choice=1),
        "a gradient that nobody asked for": replace(update, variate=update.delta),
        "an unknown metric": replace(update, evaluation=replace(evaluation, metrics={"auroc": 0.5, "sick_today": 3.0})),
        "a metric that is no number": replace(update, evaluation=replace(evaluation, metrics={"auroc": float("nan")})),
        "a loss that is no number": replace(update, loss=float("inf")),
        "another encoding": replace(update, encoding="bf16"),
        "steps that tell something": replace(update, steps=1234),
        "no patients": replace(update, patients=0),
        "a promise of privacy": replace(update, epsilon=1.0),
    }


WRONG = list(
    wrong_updates(Update(run="r", round=1, site="s", delta=Adapter({"head.bias": np.zeros(2, np.float32)}), patients=1, steps=1, loss=0.0))
)


@pytest.mark.parametrize("what", WRONG)
def test_what_was_not_approved_does_not_leave_and_nothing_says_that_it_did(site: Site, what: str) -> None:
    plan = site.asks.plan()
    update = wrong_updates(site.asks.update(plan))[what]
    with pytest.raises(RainhillError):
        site.out(plan, update)
    assert site.written(Left, Held) == []


def test_what_leaves_is_in_the_journal_with_all_that_can_be_told_of_it(site: Site) -> None:
    plan = site.asks.plan()
    update = site.asks.update(plan, evaluation=Evaluation(patients=9, metrics={"auroc": 0.75, "loss": 0.6}))
    assert site.out(plan, update) is update
    (left,) = site.written(Left)
    assert (left.run, left.round, left.to, left.approved_by, left.recipe) == ("spring", 1, "north_west", "Grace", site.asks.recipe.sha256)
    assert left.tensors == {name: array.shape for name, array in update.delta.items()}
    assert left.norm == pytest.approx(float(np.sqrt(sum(np.sum(array.astype(float) ** 2) for array in update.delta.values()))))
    told = {
        "patients": 20,
        "steps": 4,
        "loss": 0.5,
        "choice": 0,
        "evaluation.patients": 9,
        "evaluation.auroc": 0.75,
        "evaluation.loss": 0.6,
    }
    assert left.numbers == pytest.approx(told)


def test_an_update_of_another_recipe_does_not_leave(site: Site) -> None:
    plan = replace(site.asks.plan(), recipe="0" * 64)
    with pytest.raises(RefusedError, match=f"plan is for recipe 000000000000, approved was {site.asks.recipe.sha256[:12]}"):
        site.out(plan, site.asks.update(plan))


def test_an_update_that_is_too_long_does_not_leave(site: Site) -> None:
    plan = site.asks.plan()
    site.says("[policy]\nmax_update_norm = 0.5\n")
    with pytest.raises(RefusedError, match=r"the update has l2 norm \d.*, the site lets out at most 0.5"):
        site.out(plan, site.asks.update(plan, scale=1.0))
    assert site.written(Left) == []
    assert isinstance(site.out(plan, site.asks.update(plan)), Update)


def test_an_update_that_is_too_large_for_its_tensors_does_not_leave(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """No update can be made so that passes the other checks: names and shapes are the plan's. The room is made small instead."""
    monkeypatch.setattr("client.egress.FRAME", -3000)
    plan = site.asks.plan()
    with pytest.raises(ProtocolError, match=r"the update has \d+ bytes, its tensors allow \d+"):
        site.out(plan, site.asks.update(plan))


@pytest.mark.parametrize(
    ("release", "told"),
    [
        ("withheld", {"loss": 0.5}),
        ("withheld", {"evaluation": Evaluation(patients=None, metrics={"loss": 0.5})}),
        ("withheld", {"patients": 21}),
        ("noised", {"loss": 0.5}),
        ("noised", {"evaluation": Evaluation(patients=None, metrics={"auroc": 0.5})}),
        ("noised", {"evaluation": Evaluation(patients=9, metrics={"loss": 0.5})}),
    ],
)
def test_under_privacy_no_number_leaves_that_the_sites_file_keeps(
    site_file: Path, private: Asks, release: str, told: dict[str, Any]
) -> None:
    with site_file.open("a") as file:
        file.write(f'[privacy]\nepsilon = 8\ndeclared_patients = 20\nrelease = "{release}"\n')
    site, plan = approving(site_file, private), private.plan()
    fine = private.update(plan, loss=None, epsilon=6.0)
    with pytest.raises(RefusedError, match="the update tells"):
        site.out(plan, replace(fine, **told))
    assert site.written(Left) == []
    assert site.out(plan, fine) is fine


KILLED = """
import os, signal, sys
from pathlib import Path

from client import egress
from client.journal import Journal
from rainhill import wire
from client.home import SiteHome
from client.offers import Offers

file, plan, update, when = sys.argv[1:]
append = Journal.append
def killed(self, *events):
    if when == "after":
        append(self, *events)
    os.kill(os.getpid(), signal.SIGKILL)
Journal.append = killed
at = Offers.open(SiteHome.open(Path(file)))
plan, update = wire.plan_from_bytes(Path(plan).read_bytes()), wire.answer_from_bytes(Path(update).read_bytes())
approved = [event for event in at.journal.events() if event.kind == "approved"][0]
print(egress.Door(home=at.home, journal=at.journal).let_out(plan, at.offer("spring"), approved, update))
"""


@pytest.mark.parametrize(("when", "written"), [("before", 0), ("after", 1)])
def test_whoever_is_killed_at_the_door_has_let_nothing_out_that_is_not_written(site: Site, tmp_path: Path, when: str, written: int) -> None:
    plan = site.asks.plan()
    (tmp_path / "plan").write_bytes(wire.plan_to_bytes(plan))
    (tmp_path / "update").write_bytes(wire.answer_to_bytes(site.asks.update(plan)))
    arguments = [str(site.file), str(tmp_path / "plan"), str(tmp_path / "update"), when]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL and done.stdout == "", done.stderr
    assert len(site.written(Left)) == written


def test_where_the_journal_cannot_be_written_nothing_leaves(site: Site) -> None:
    plan, at = site.asks.plan(), site.offers
    at.journal.head.write_text('{"seq": 99, "hash": "' + "f" * 64 + '"}')
    approved = Approved(
        run="spring", recipe="0" * 64, offer="0" * 64, by="Grace", rounds=1, until=site.asks.offer().until, repeats=0, envelope=False
    )
    with pytest.raises(LedgerError):
        Door(home=at.home, journal=at.journal).let_out(plan, site.asks.offer(), approved, site.asks.update(plan))


def test_a_held_update_waits_and_a_release_lets_just_that_one_out(site: Site) -> None:
    site.says(HOLD)
    plan = site.asks.plan()
    update = site.asks.update(plan)
    for _ in range(2):
        waiting = site.out(plan, update)
        assert isinstance(waiting, Waiting) and waiting.reason == "its update waits for somebody at the site to release it"
    assert len(site.written(Held)) == 1 and site.written(Left) == []
    (held,) = held_updates(site.offers.home, site.offers.journal)
    assert (held.run, held.round, held.tensors) == ("spring", 1, {name: array.shape for name, array in update.delta.items()})
    assert site.decide() == held.update
    # Not another one that comes in its place.
    assert isinstance(site.out(plan, site.asks.update(plan, scale=2e-3)), Waiting)
    kept = site.kept(plan)
    assert kept is not None and isinstance(site.out(plan, kept), Update)
    assert [left.update for left in site.written(Left)] == [held.update]


@pytest.mark.parametrize("encoding", ["bf16", "int8", "top_k"])
def test_an_update_that_crosses_compressed_is_the_same_after_it_was_held(site_file: Path, plain: Asks, encoding: Any) -> None:
    recipe = Recipe.model_validate(plain.recipe.model_dump() | {"compression": {"encoding": encoding, "share": 0.3}})
    site = approving(site_file, Asks(recipe=recipe, first=plain.first))
    site.says(HOLD)
    plan = site.asks.plan()
    update = site.asks.update(plan)
    update = replace(update, delta=lossy(update.delta, encoding, share=0.3), encoding=encoding, share=0.3)
    assert isinstance(site.out(plan, update), Waiting)
    site.decide()
    kept = site.kept(plan)
    assert kept is not None and kept.delta == update.delta and isinstance(site.out(plan, kept), Update)


def test_a_withheld_update_never_leaves_whatever_the_sites_file_says_by_then(site: Site) -> None:
    plan = site.asks.plan()
    update = site.asks.update(plan)
    site.says(HOLD)
    site.out(plan, update)
    site.decide(withheld="its norm is odd")
    for hold in ("true", "false"):
        site.file.write_text(site.file.read_text().replace("hold = true", f"hold = {hold}"))
        refusal = site.out(plan, update)
        assert isinstance(refusal, Refusal) and refusal.reason == "its update was withheld by the site"
    assert site.written(Left) == [] and held_updates(site.offers.home, site.offers.journal) == []
    with pytest.raises(RefusedError, match="run spring, round 1: no update is held; held are: none"):
        site.decide()


def test_of_a_round_that_was_begun_anew_a_person_says_which_update_may_leave(site: Site) -> None:
    """A coordinator that lost its own asks again, from another adapter. Who looked at the first releases no second one with it."""
    site.says(HOLD)
    plans = [site.asks.plan(1, seed=seed) for seed in (0, 1)]
    updates = [site.asks.update(plan, scale=scale) for plan, scale in zip(plans, (1e-3, 2e-3), strict=True)]
    for plan, update in zip(plans, updates, strict=True):
        assert isinstance(site.out(plan, update), Waiting)
    first, second = (one.update for one in site.written(Held))
    with pytest.raises(RefusedError, match=r"2 updates are held: .*; say which, with --update"):
        site.decide()
    assert site.written(Released, Withheld) == []
    assert site.decide(update=second[:8]) == second
    assert isinstance(site.out(plans[0], updates[0]), Waiting) and isinstance(site.out(plans[1], updates[1]), Update)
    assert site.decide() == first


def test_updates_of_two_rounds_that_are_held_are_decided_on_apart(site: Site) -> None:
    site.says(HOLD)
    for number in (1, 2):
        plan = site.asks.plan(number)
        site.out(plan, site.asks.update(plan))
    with pytest.raises(RefusedError, match=r"round 3: no update is held; held are: spring round 1 \([0-9a-f]{12}\), spring round 2"):
        site.decide(3)
    site.decide(2)
    assert [one.round for one in held_updates(site.offers.home, site.offers.journal)] == [1]


def test_what_is_held_is_for_its_owner_alone_and_forgotten_when_its_round_is_over(site: Site) -> None:
    site.says(HOLD)
    at = site.offers
    for number in (1, 2):
        plan = site.asks.plan(number)
        site.out(plan, site.asks.update(plan))
    assert {oct(path.stat().st_mode & 0o777) for path in (at.home.held, *at.home.held.iterdir())} == {"0o700", "0o600"}
    Door(home=at.home, journal=at.journal).forget("spring", 2)
    assert [one.round for one in held_updates(at.home, at.journal)] == [2]


def test_a_held_update_that_was_changed_on_disk_does_not_leave_as_the_one_that_was_released(site: Site) -> None:
    site.says(HOLD)
    plan = site.asks.plan()
    site.out(plan, site.asks.update(plan))
    site.decide()
    (path,) = site.offers.home.held.iterdir()
    path.write_bytes(wire.answer_to_bytes(site.asks.update(plan, scale=5e-3)))
    kept = site.kept(plan)
    assert kept is not None and isinstance(site.out(plan, kept), Waiting)
    assert site.written(Left) == []


def test_what_a_coordinator_wrote_into_its_plan_is_kept_short_and_on_one_line(site: Site) -> None:
    at = site.offers
    Door(home=at.home, journal=at.journal).refused(Refusal(run="x" * 9999, round=1, site="bury", reason="\x1b[2Jy" * 5000))
    said = at.journal.events()[-1]
    assert len(said.run) <= 1000 and said.reason.isprintable() and len(said.reason) <= 1000  # type: ignore[attr-defined]
