"""The round loop, with sites that are functions passed in: they answer, refuse, stay silent, or send what was not asked for."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rainhill.adapter import Adapter
from rainhill.errors import MergeError, QuorumError
from rainhill.messages import Plan, Refusal, Update
from rainhill.recipe import Recipe
from server.checkpoint import Checkpoint
from server.rounds import Collect, run_rounds
from strategies import Strategy
from strategies.fedavg import FedAvg

START = Adapter({"m.lora_A": np.ones((1, 2), np.float32), "m.lora_B": np.zeros((2, 1), np.float32)})


@pytest.fixture
def recipe(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"rounds": recipe.rounds.model_copy(update={"count": 3, "quorum": 2})})


def good(plan: Plan, amount: float = 1.0) -> Update:
    delta = Adapter({name: np.full_like(array, amount) for name, array in plan.adapter.items()})
    return Update(run=plan.run, round=plan.round, site=plan.site, delta=delta, patients=1, steps=1, loss=0.5)


def sites_that(**answers: Callable[[Plan], object]) -> Collect:
    """Answers in the reverse order of asking; None is silence."""

    def collect(plans: Mapping[str, Plan]) -> Iterable[Update | Refusal]:
        given = [answers[site](plan) for site, plan in reversed(plans.items())]
        return [answer for answer in given if answer is not None]

    return collect


def run(recipe: Recipe, folder: Path, collect: Collect, **options: object) -> Checkpoint:
    return run_rounds(recipe, Strategy(rule=FedAvg()), START, run="r", sites=["a", "b", "c"], collect=collect, folder=folder, **options)


def test_every_round_is_checkpointed_and_told(recipe: Recipe, tmp_path: Path) -> None:
    told: list[int] = []
    done = run(recipe, tmp_path, sites_that(a=good, b=good, c=good), on_round=lambda record: told.append(record.round))
    assert told == [1, 2, 3] == [record.round for record in done.history]
    assert sorted(path.name for path in tmp_path.glob("round-*")) == [f"round-00000{n}.safetensors" for n in (1, 2, 3)]
    np.testing.assert_array_equal(done.adapter["m.lora_B"], 3)
    assert set(done.history[0].down_bytes) == {"a", "b", "c"}
    assert min(done.history[0].up_bytes.values()) > START.nbytes


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda plan: None, "no answer"),
        (lambda plan: Refusal(run=plan.run, round=plan.round, site=plan.site, reason="closed on Sundays"), "closed on Sundays"),
        (lambda plan: good(plan, np.nan), "m.lora_A: 2 of 2 values are not finite"),
        (lambda plan: replace(good(plan), round=9), "b: answer is for round 9, asked was"),
        (lambda plan: replace(good(plan), delta=good(plan).delta.only(lambda name: False)), "m.lora_A: missing"),
    ],
)
def test_a_site_without_a_valid_update_is_left_out_by_name(
    recipe: Recipe, tmp_path: Path, answer: Callable[[Plan], object], reason: str
) -> None:
    done = run(recipe, tmp_path, sites_that(a=good, b=answer, c=good))
    for record in done.history:
        assert record.asked == ("a", "b", "c")
        assert record.answered == ("a", "c")
        assert list(record.refused) == ["b"]
        assert record.refused["b"].startswith(reason)
    np.testing.assert_array_equal(done.adapter["m.lora_B"], 3)


def test_strangers_and_second_answers_change_nothing(recipe: Recipe, tmp_path: Path) -> None:
    def noisy(plans: Mapping[str, Plan]) -> Iterable[Update | Refusal]:
        for plan in plans.values():
            yield good(plan)
            yield good(plan, 100.0)
            yield replace(good(plan, 100.0), site="stranger")

    np.testing.assert_array_equal(run(recipe, tmp_path, noisy).adapter["m.lora_B"], 3)


def test_below_the_quorum_the_run_stops_and_says_who_and_why(recipe: Recipe, tmp_path: Path) -> None:
    failing_from_2 = sites_that(
        a=good, b=lambda plan: good(plan) if plan.round == 1 else None, c=lambda plan: good(plan) if plan.round == 1 else None
    )
    with pytest.raises(QuorumError, match=r"round 2: 1 of 3 sites gave an update, the quorum is 2 \(b: no answer; c: no answer\)"):
        run(recipe, tmp_path, failing_from_2)
    # Nothing is lost: the run goes on from round 1 when the sites are back.
    done = run(recipe, tmp_path, sites_that(a=good, b=good, c=good))
    assert [record.round for record in done.history] == [1, 2, 3]


def test_a_run_cut_at_any_round_ends_as_if_it_had_not_been(recipe: Recipe, tmp_path: Path) -> None:
    def growing(plan: Plan) -> Update:
        return good(plan, 0.1 * plan.round + len(plan.site))

    whole = run(recipe, tmp_path / "whole", sites_that(a=growing, b=growing, c=growing))
    for cut in (1, 2, 3):

        def stop(plan: Plan, cut: int = cut) -> Update:
            if plan.round == cut:
                raise KeyboardInterrupt
            return growing(plan)

        folder = tmp_path / f"cut-{cut}"
        with pytest.raises(KeyboardInterrupt):
            run(recipe, folder, sites_that(a=growing, b=stop, c=growing))
        assert run(recipe, folder, sites_that(a=growing, b=growing, c=growing)).adapter == whole.adapter


def test_a_merge_that_overflows_is_not_kept(recipe: Recipe, tmp_path: Path) -> None:
    class Bursting(FedAvg):
        def step(self, adapter, moves, state):
            after, following = super().step(adapter, moves, state)
            return (after * np.inf if following.round == 2 else after), following

    with pytest.raises(MergeError, match=r"round 2: m.lora_A is not finite after the merge; round 1 is intact"):
        run_rounds(
            recipe,
            Strategy(rule=Bursting()),
            START,
            run="r",
            sites=["a", "b", "c"],
            collect=sites_that(a=good, b=good, c=good),
            folder=tmp_path,
        )
    assert [path.name for path in tmp_path.glob("round-*")] == ["round-000001.safetensors"]


def test_a_finished_run_asks_nobody(recipe: Recipe, tmp_path: Path) -> None:
    done = run(recipe, tmp_path, sites_that(a=good, b=good, c=good))

    def nobody(plans: Mapping[str, Plan]) -> Iterable[Update | Refusal]:
        raise AssertionError(plans)

    assert run(recipe, tmp_path, nobody).adapter == done.adapter
