"""The local fit and the private part."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from client.drafting.balance import patient_weights
from client.training import lora
from client.training.answer import answer, site_seed
from client.training.features import Features, concatenate, logits
from client.training.fit import Stretch, _patient_batches, fit, tail_mean
from client.training.memory import Memory
from client.training.metrics import mean_auroc
from client.training.personal import load_private, personalise
from client.workbench import Bench, first_adapter
from rainhill.adapter import Adapter
from rainhill.errors import DataError
from rainhill.messages import LocalRule, Plan, Refusal, Update
from rainhill.recipe import EvaluationSection, FitSection, Recipe
from sites.bench import SiteData


def plan_for(bench: Bench, **changes: object) -> Plan:
    return replace(Plan(run="r", recipe=bench.recipe.sha256, round=1, site="aintree", adapter=first_adapter(bench)), **changes)


def give(bench: Bench, site: SiteData, *, memory: Path = Path("nothing-kept"), **changes: object) -> Update | Refusal:
    return answer(
        plan_for(bench, **changes),
        recipe=bench.recipe,
        strategy=bench.strategy,
        net=bench.net,
        task=bench.task,
        data=site,
        memory=Memory(memory),
    )


def answered(bench: Bench, site: SiteData, **changes: object) -> Update:
    given = give(bench, site, **changes)
    assert isinstance(given, Update), given
    return given


def refused(bench: Bench, site: SiteData, **changes: object) -> str:
    given = give(bench, site, **changes)
    assert isinstance(given, Refusal)
    return given.reason


def frozen_state(bench: Bench) -> dict[str, torch.Tensor]:
    return {
        name: tensor.clone() for name, tensor in bench.net.state_dict().items() if ".lora_" not in name and not name.startswith("head.")
    }


def test_training_moves_the_adapter_and_never_the_base(bench: Bench, site: SiteData) -> None:
    before = frozen_state(bench)
    update = answered(bench, site)
    assert update.delta.norm() > 0
    assert update.steps == bench.recipe.rounds.steps
    assert update.patients == site.train.count
    assert all(torch.equal(tensor, before[name]) for name, tensor in frozen_state(bench).items())
    assert not any(parameter.requires_grad for parameter in bench.net.parameters())


def test_the_same_plan_gives_the_same_update_whatever_ran_before(bench: Bench, site: SiteData) -> None:
    first = answered(bench, site)
    answered(bench, site, round=2)
    assert answered(bench, site) == first
    assert answered(bench, site, round=2).delta != first.delta


def test_training_learns_the_square(bench: Bench, site: SiteData) -> None:
    longer = bench.recipe.model_copy(update={"rounds": bench.recipe.rounds.model_copy(update={"steps": 80})})
    taught = replace(bench, recipe=longer)
    update = answered(taught, site)
    lora.write_adapter(bench.net, first_adapter(bench) + update.delta, name=lora.SHARED)
    section = EvaluationSection(min_positives=1)
    after = mean_auroc(bench.task.scores(logits(bench.net, site.train.hidden)), site.train.targets.numpy(), section)
    lora.write_adapter(bench.net, first_adapter(bench), name=lora.SHARED)
    before = mean_auroc(bench.task.scores(logits(bench.net, site.train.hidden)), site.train.targets.numpy(), section)
    assert after > before + 0.1


@pytest.mark.parametrize("turn", ["A", "B"])
def test_a_rule_that_trains_one_factor_leaves_the_other(bench: Bench, site: SiteData, turn: str) -> None:
    started = first_adapter(bench)
    started = started.replace({name: array + np.float32(0.01) for name, array in started.items()})
    rule = LocalRule(train=frozenset(turn), send=frozenset("AB"))
    update = answered(bench, site, adapter=started, rule=rule)
    for name, change in update.delta.items():
        assert change.any() == (name.startswith("head.") or name.endswith(f"lora_{turn}")), name


def test_only_what_the_rule_sends_is_in_the_update(bench: Bench, site: SiteData) -> None:
    update = answered(bench, site, rule=LocalRule(send=frozenset("B")))
    assert {name[-6:] for name in update.delta if ".lora" in name} == {"lora_B"}
    assert {"head.weight", "head.bias"} <= set(update.delta)


def test_a_plan_for_another_recipe_is_refused_with_both(bench: Bench, site: SiteData) -> None:
    assert refused(bench, site, recipe="f" * 64) == f"aintree: plan is for recipe {'f' * 12}, the site has {bench.recipe.sha256[:12]}"


def test_a_plan_for_a_round_that_the_recipe_does_not_have_is_refused_with_both(bench: Bench, site: SiteData) -> None:
    assert refused(bench, site, round=3) == "aintree: plan is for round 3, the recipe has 2"


def test_the_learning_rate_falls_over_all_rounds(bench: Bench, site: SiteData) -> None:
    """The same batch, from the same adapter: the last step of a longer training moves it by a tenth of the first."""
    parameters = lora.trainable(bench.net, name=lora.SHARED, with_head=True)
    section = bench.recipe.rounds.model_copy(update={"steps": 1})
    moves = []
    for before in (0, 9):
        start = first_adapter(bench)
        fit(bench.net, site.train, bench.task, section, parameters=parameters, seed=(0,), stretch=Stretch(before=before, total=10))
        moves.append((lora.read_adapter(bench.net, name=lora.SHARED, with_head=True) - start).norm())
    assert moves[1] == pytest.approx(moves[0] / 10, rel=1e-3)


def test_an_update_that_did_not_move_is_refused(bench: Bench, site: SiteData) -> None:
    unlabelled = replace(site, train=Features(site.train.hidden, torch.full_like(site.train.targets, torch.nan), site.train.patients))
    still = bench.recipe.model_copy(update={"rounds": bench.recipe.rounds.model_copy(update={"weight_decay": 0.0})})
    assert "the adapter did not move" in refused(replace(bench, recipe=still), unlabelled)


def test_a_site_without_patients_is_refused(bench: Bench, site: SiteData) -> None:
    empty = Features(site.train.hidden[:0], site.train.targets[:0], site.train.patients[:0])
    assert "no patient to train on" in refused(bench, replace(site, train=empty))


def test_a_diverged_fit_names_the_step_and_the_rate(bench: Bench, site: SiteData) -> None:
    wild = FitSection(steps=5, patients_per_step=8, learning_rate=1e30)
    parameters = lora.trainable(bench.net, name=lora.SHARED, with_head=True)
    with pytest.raises(DataError, match=r"the loss of step \d is nan; learning_rate = 1e\+30 or weight_decay = 0.0 is too high"):
        fit(bench.net, site.train, bench.task, wild, parameters=parameters, seed=(0,))


def test_proximal_pull_keeps_the_fit_near_its_anchor(bench: Bench, site: SiteData) -> None:
    free = answered(bench, site).delta.norm()
    held = answered(bench, site, rule=LocalRule(mu=1e3)).delta.norm()
    assert 0 < held < free


def test_a_correction_is_added_to_the_gradient(bench: Bench, site: SiteData) -> None:
    started = first_adapter(bench)
    push = Adapter({name: np.full_like(array, 1e6) for name, array in started.items()})
    update = answered(bench, site, rule=LocalRule(correction=push))
    # A gradient of +1e6 everywhere drowns the data's: every entry goes down.
    assert all((change < 0).all() for change in update.delta.values())


def test_a_batch_holds_a_patient_once_and_an_epoch_every_patient() -> None:
    section = FitSection(steps=9, patients_per_step=4, learning_rate=1)
    batches = _patient_batches(12, section, np.random.default_rng(0))
    assert len(batches) == 9
    assert all(len(set(batch)) == 4 for batch in batches)
    assert sorted(np.concatenate(batches[:3])) == list(range(12))
    # Fewer patients than a step asks for: the step takes them all.
    assert [len(batch) for batch in _patient_batches(3, section, np.random.default_rng(0))] == [3] * 9


def test_balanced_batches_have_more_patients_with_a_rare_finding_and_none_twice(bench: Bench) -> None:
    weights = patient_weights(np.array([[1.0]] * 2 + [[0.0]] * 18), strength=1.0)
    section = FitSection(steps=400, patients_per_step=4)
    batches = _patient_batches(20, section, np.random.default_rng(0), weights)
    assert all(len(set(batch)) == 4 for batch in batches)
    # One in ten has it; alike, 0.4 of a batch of four would.
    assert 1.2 < np.mean([(batch < 2).sum() for batch in batches]) < 1.8


def test_a_private_run_draws_all_patients_alike(bench: Bench) -> None:
    with pytest.raises(ValidationError, match=r"rounds.balance = 0.5 with \[privacy\]"):
        Recipe.model_validate(
            bench.recipe.model_dump() | {"privacy": {"epsilon": 1.0}, "rounds": bench.recipe.rounds.model_dump() | {"balance": 0.5}}
        )


def test_one_film_of_each_chosen_patient_is_drawn() -> None:
    features = Features(torch.zeros(5, 1), torch.zeros(5, 1), np.array([0, 1, 0, 1, 1]))
    rng = np.random.default_rng(0)
    drawn = {tuple(features.draw(np.array([1, 0]), rng).tolist()) for _ in range(100)}
    assert drawn == {(one, other) for one in (1, 3, 4) for other in (0, 2)}


def test_pooled_cohorts_keep_their_patients_apart() -> None:
    one = Features(torch.zeros(3, 1), torch.zeros(3, 1), np.array([0, 0, 1]))
    together = concatenate([one, one])
    assert together.patients.tolist() == [0, 0, 1, 2, 2, 3]
    assert together.count == 4


def test_the_tail_mean_is_of_the_last_quarter() -> None:
    assert tail_mean([9.0, 9, 9, 9, 9, 9, 1, 3]) == 2.0
    assert tail_mean([5.0]) == 5.0


def test_seeds_differ_by_site_and_round() -> None:
    assert len({site_seed(0, "a", 1), site_seed(0, "b", 1), site_seed(0, "a", 2), site_seed(1, "a", 1)}) == 4


def test_the_private_part_is_no_worse_on_validation_patients_and_leaves_the_shared_one_alone(bench: Bench, site: SiteData) -> None:
    shared = first_adapter(bench)
    private = personalise(shared, site="aintree", recipe=bench.recipe, net=bench.net, task=bench.task, data=site)
    assert lora.read_adapter(bench.net, name=lora.SHARED, with_head=False) == shared.only(lambda name: ".lora_" in name)
    loss = {}
    for name, part in (("without", None), ("with", private)):
        load_private(bench.net, shared, part, bench.recipe)
        loss[name] = float(bench.task.loss(torch.from_numpy(logits(bench.net, site.val.hidden)), site.val.targets).mean())
        lora.activate(bench.net, [lora.SHARED])
    assert loss["with"] <= loss["without"]
    assert private.steps <= bench.recipe.private.steps


def test_the_private_part_is_inactive_once_the_shared_adapter_is_loaded_again(bench: Bench, site: SiteData) -> None:
    shared = first_adapter(bench)
    before = logits(bench.net, site.test.hidden)
    personalise(shared, site="aintree", recipe=bench.recipe, net=bench.net, task=bench.task, data=site)
    lora.write_adapter(bench.net, shared, name=lora.SHARED)
    np.testing.assert_array_equal(logits(bench.net, site.test.hidden), before)


def test_the_temperature_undoes_overconfidence(bench: Bench) -> None:
    rng = np.random.default_rng(0)
    true_logits = rng.normal(0, 1.5, (4000, 2)).astype(np.float32)
    targets = (rng.random((4000, 2)) < bench.task.scores(true_logits)).astype(np.float32)
    assert bench.task.fit_temperature(3 * true_logits, targets) == pytest.approx(3, rel=0.1)
    assert bench.task.fit_temperature(true_logits, np.full_like(targets, np.nan)) == 1.0
