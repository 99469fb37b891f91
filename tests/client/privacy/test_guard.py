"""A site's answer under privacy: charged before it trains, charged once for what it gives once, refused where nothing is left."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import strategies
from client.privacy import accountant, budget
from client.privacy.accountant import Phase
from client.privacy.events import Charged, Joined, Members, Sent
from client.privacy.guard import Guard, admit
from client.privacy.numbers import LARGEST_LOSS, Numbers, release
from client.training.answer import answer
from client.training.memory import Memory
from client.workbench import Bench, first_adapter, open_bench
from rainhill.config import PrivacyConfig
from rainhill.errors import ConfigError, RefusedError
from rainhill.messages import Plan, Refusal, Update
from rainhill.recipe import PrivacySection, Recipe
from sites.bench import SiteData
from sites.guards import guard_of
from tests.client.privacy.spending import spend

ASKED = PrivacySection(epsilon=8.0, max_grad_norm=0.1)


@pytest.fixture
def private(recipe: Recipe, tmp_path: Path) -> Bench:
    return open_bench(recipe.model_copy(update={"privacy": ASKED}), tmp_path)


@pytest.fixture
def guard(private: Bench, site: SiteData, tmp_path: Path) -> Guard:
    found = guard_of(private, "aintree", site, tmp_path / "state")
    assert found is not None
    return found


def plan_of(bench: Bench, number: int = 1, **changes: object) -> Plan:
    plan = Plan(run="r", recipe=bench.recipe.sha256, round=number, site="aintree", adapter=first_adapter(bench))
    return replace(plan, **changes)


def give(bench: Bench, site: SiteData, guard: Guard | None, plan: Plan | None = None) -> Update | Refusal:
    return answer(
        plan or plan_of(bench),
        recipe=bench.recipe,
        strategy=bench.strategy,
        net=bench.net,
        task=bench.task,
        data=site,
        memory=Memory(Path("nothing-kept")),
        guard=guard,
    )


def given(bench: Bench, site: SiteData, guard: Guard, plan: Plan | None = None) -> Update:
    update = give(bench, site, guard, plan)
    assert isinstance(update, Update), update
    return update


def refused(bench: Bench, site: SiteData, guard: Guard | None, plan: Plan | None = None) -> str:
    refusal = give(bench, site, guard, plan)
    assert isinstance(refusal, Refusal)
    return refusal.reason


def charges(guard: Guard) -> list[Charged]:
    return [event for event in guard.ledger.events() if isinstance(event, Charged)]


def test_a_round_is_charged_and_its_numbers_stay(private: Bench, site: SiteData, guard: Guard) -> None:
    update = given(private, site, guard)
    (charge,) = charges(guard)
    joined = next(event for event in guard.ledger.events() if isinstance(event, Joined))
    steps = private.recipe.rounds.steps
    assert (charge.round, charge.steps, charge.what) == (1, steps, "update")
    assert joined.steps == steps * private.recipe.rounds.count
    assert joined.sample_rate == private.recipe.rounds.patients_per_step / site.train.count
    assert accountant.epsilon({charge.phase: joined.steps}, 1e-5) <= 8.0
    assert (update.patients, update.loss, update.evaluation, update.epsilon) == (None, None, None, 8.0)


def test_the_whole_run_stays_within_its_promise_and_a_round_more_is_refused(private: Bench, site: SiteData, guard: Guard) -> None:
    for number in range(1, private.recipe.rounds.count + 1):
        given(private, site, guard, plan_of(private, number))
    history = budget.run_history(guard.ledger, "r")
    assert 7.5 < accountant.epsilon(history, 1e-5) <= 8.0
    # Another plan for a round that was given: it would be a second release.
    again = plan_of(private, 1, adapter=first_adapter(private) * 2.0)
    assert "run r: 4 steps more" in refused(private, site, guard, again)
    assert len(charges(guard)) == private.recipe.rounds.count


def test_the_same_plan_is_answered_again_with_the_same_update_for_nothing(private: Bench, site: SiteData, guard: Guard) -> None:
    first, second = given(private, site, guard), given(private, site, guard)
    assert first.delta == second.delta
    assert len(charges(guard)) == 1
    assert not list((guard.folder / "keys").iterdir()), "the key is forgotten once the update is kept"


def test_a_round_that_was_broken_off_is_done_again_with_the_same_draws(
    private: Bench, site: SiteData, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = replace(guard, seed=None, folder=guard.folder / "real")

    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("client.training.answer.fit", broken)
        with pytest.raises(KeyboardInterrupt):
            give(private, site, real)
    assert len(charges(real)) == 1, "charged before the first step"
    update = given(private, site, real)
    assert len(charges(real)) == 1, "the same draws are paid for"
    # Who lost the key has to draw anew, and pays again.
    other = replace(guard, seed=None, folder=guard.folder / "other")
    elsewhere = given(private, site, other)
    assert len(charges(other)) == 2
    assert elsewhere.delta != update.delta


def test_a_choice_between_adapters_is_refused_whoever_offers_it(private: Bench, site: SiteData, guard: Guard) -> None:
    plan = plan_of(private, choices=(first_adapter(private),))
    assert refused(private, site, guard, plan) == "aintree: is offered 2 adapters to choose from, under privacy it takes one"
    assert charges(guard) == []


def test_without_a_ledger_nothing_leaves(private: Bench, site: SiteData) -> None:
    assert refused(private, site, None) == "aintree: recipe tiny asks for epsilon 8, and the site keeps no ledger"


@pytest.mark.parametrize(
    ("config", "asked", "words"),
    [
        (PrivacyConfig(epsilon=4), ASKED, "asks for epsilon 8 in one run, the site allows 4"),
        (PrivacyConfig(epsilon=10, epsilon_per_run=2), ASKED, "asks for epsilon 8 in one run, the site allows 2"),
        (PrivacyConfig(epsilon=10, delta=1e-6), ASKED, "asks for delta 1e-05, the site allows 1e-06"),
        (PrivacyConfig(epsilon=3), None, "asks for no privacy, the site trains only under epsilon 3 or less"),
    ],
)
def test_a_site_refuses_what_is_above_its_own_limits(
    recipe: Recipe, config: PrivacyConfig, asked: PrivacySection | None, words: str
) -> None:
    with pytest.raises(RefusedError, match=words):
        admit(config, recipe.model_copy(update={"privacy": asked}))


def test_a_kept_update_is_not_given_under_a_ledger_that_knows_no_charge_for_it(private: Bench, site: SiteData, guard: Guard) -> None:
    older = {path: path.read_bytes() for path in (guard.ledger.path, guard.ledger.head)}
    given(private, site, guard)
    assert isinstance(give(private, site, guard), Update)
    for path, data in older.items():
        path.write_bytes(data)
    assert "an update is kept, but" in refused(private, site, guard)
    assert "ledger.sqlite holds no charge for it: an older ledger, or another, was put in its place" in refused(private, site, guard)
    assert [event.kind for event in guard.ledger.events()] == ["opened"]


def test_what_a_site_keeps_of_a_round_is_its_own_to_read(private: Bench, site: SiteData, guard: Guard) -> None:
    given(private, site, guard)
    (update,) = (guard.folder / "updates").iterdir()
    assert oct(update.stat().st_mode & 0o777) == "0o600"


@pytest.mark.parametrize("weights", ["patients", "capped"])
def test_weights_by_patients_ask_for_a_declared_number(recipe: Recipe, weights: str) -> None:
    asked = recipe.model_copy(update={"privacy": ASKED, "strategy": recipe.strategy.model_copy(update={"weights": weights})})
    with pytest.raises(RefusedError, match="recipe tiny weighs updates by patients, and the site's file tells no number"):
        admit(PrivacyConfig(), asked)
    admit(PrivacyConfig(declared_patients=100), asked)
    # What has enough patients behind it is told there.
    admit(PrivacyConfig(release="suppressed"), asked)


def test_a_simulated_site_declares_its_patients_where_updates_are_weighed_by_them(private: Bench, site: SiteData, tmp_path: Path) -> None:
    recipe = private.recipe.model_copy(update={"strategy": private.recipe.strategy.model_copy(update={"weights": "patients"})})
    bench = replace(private, recipe=recipe, strategy=strategies.from_recipe(recipe))
    guard = guard_of(bench, "aintree", site, tmp_path / "state")
    assert guard is not None
    assert given(bench, site, guard).patients == site.train.count


def test_nothing_is_charged_where_the_site_refuses(bench: Bench, site: SiteData, guard: Guard) -> None:
    assert "asks for no privacy" in refused(bench, site, guard)
    assert charges(guard) == []


def test_other_data_under_the_same_run_are_refused(private: Bench, site: SiteData, guard: Guard) -> None:
    given(private, site, guard)
    reason = refused(private, site, replace(guard, cohort="another"), plan_of(private, 2))
    assert reason == f"run r: the data was {guard.cohort[:12]} when the site joined and is another now"


def test_a_patient_at_the_budget_is_no_longer_drawn(private: Bench, site: SiteData, guard: Guard) -> None:
    gone = list(guard.train[:5])
    spend(guard.ledger, gone, 7.9)
    given(private, site, guard)
    members = {event.digest: set(event.patients) for event in guard.ledger.events() if isinstance(event, Members)}
    assert members[charges(guard)[-1].members] == set(guard.train) - set(gone)
    # The divisor is what it was: how many have spent their budget is nobody's business.
    joined = next(event for event in guard.ledger.events() if isinstance(event, Joined))
    assert joined.patients == len(guard.train)


def test_a_site_at_its_budget_says_so_and_nothing_of_it_leaves(private: Bench, site: SiteData, guard: Guard) -> None:
    spend(guard.ledger, list(guard.train), 7.9)
    before = len(guard.ledger.entries())
    said = "round 1: no patient is left whose epsilon of 8 allows another round: the one who has spent least so far would come to "
    reason = refused(private, site, guard)
    assert reason.startswith(said) and float(reason.removeprefix(said).split()[0]) > 8
    after = guard.ledger.events()[before:]
    assert not [event for event in after if isinstance(event, Charged | Sent)]
    assert not (guard.folder / "updates").exists()


def test_a_site_at_its_budget_of_a_year_says_so_and_spends_no_more_in_it(private: Bench, site: SiteData, guard: Guard) -> None:
    yearly = replace(guard, config=guard.config.model_copy(update={"epsilon": 20.0, "epsilon_per_year": 8.0}))
    spend(guard.ledger, list(guard.train[1:]), 7.9)
    given(private, site, yearly)
    members = {event.digest: event.patients for event in guard.ledger.events() if isinstance(event, Members)}
    assert members[charges(guard)[-1].members] == (guard.train[0],)
    spend(guard.ledger, [guard.train[0]], 7.0)
    said = (
        "round 2: no patient is left whose epsilon_per_year of 8 allows another round: "
        "the one who has spent least in the last 365 days would come to "
    )
    reason = refused(private, site, yearly, plan_of(private, 2))
    assert reason.startswith(said) and 8 < float(reason.removeprefix(said).split()[0]) < 20


def test_a_data_set_has_a_budget_of_its_own(private: Bench, site: SiteData, guard: Guard) -> None:
    tight = replace(guard, config=guard.config.model_copy(update={"epsilon_per_cohort": 1.0}))
    assert f"data set {guard.cohort}: 4 steps more" in refused(private, site, tight)


def test_a_declared_number_stands_for_the_patients_and_for_the_rate(private: Bench, site: SiteData, guard: Guard) -> None:
    declaring = replace(guard, config=guard.config.model_copy(update={"declared_patients": 50}))
    assert given(private, site, declaring).patients == 50
    joined = next(event for event in guard.ledger.events() if isinstance(event, Joined))
    assert joined.sample_rate == private.recipe.rounds.patients_per_step / 50


def test_an_error_at_a_private_site_does_not_tell_of_its_patients(
    private: Bench, site: SiteData, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rainhill.errors import DataError

    def failing(*_: object, **__: object) -> None:
        raise DataError("patient P17 has a loss of 31")

    monkeypatch.setattr("client.training.answer.fit", failing)
    assert refused(private, site, guard) == "an error at the site, written to its own log"


NUMBERS = Numbers(
    train_patients=40, loss=0.5, val_losses=[0.1, 0.3, 9.0], metrics={"loss": 0.2, "auroc": 0.8}, behind={"loss": 3, "auroc": 3}
)


def granted(guard: Guard, **changes: object) -> object:
    from client.privacy.charging import Granted

    settings = {
        "noise_multiplier": 1.0, "sample_rate": 0.5, "expected_patients": 8.0, "drawable": np.ones(40, dtype=np.bool_), "key": bytes(32),
    }  # fmt: skip
    return Granted(**(settings | changes))


def test_numbers_are_withheld_unless_the_site_says_otherwise(guard: Guard) -> None:
    told = release(NUMBERS, PrivacyConfig(), granted(guard))
    assert (told.patients, told.loss, told.evaluation) == (None, None, None)


def test_numbers_of_few_patients_are_suppressed(guard: Guard) -> None:
    told = release(NUMBERS, PrivacyConfig(release="suppressed", min_patients=10), granted(guard))
    assert (told.patients, told.loss, told.evaluation) == (40, 0.5, None)
    every = release(NUMBERS, PrivacyConfig(release="suppressed", min_patients=3), granted(guard))
    assert every.evaluation is not None and every.evaluation.metrics["auroc"] == 0.8
    one = release(replace(NUMBERS, behind={"loss": 3, "auroc": 1}), PrivacyConfig(release="suppressed", min_patients=3), granted(guard))
    assert one.evaluation is not None and one.evaluation.metrics == {"loss": 0.2}
    few = release(replace(NUMBERS, train_patients=9), PrivacyConfig(release="suppressed"), granted(guard))
    assert (few.patients, few.loss) == (None, None)


def test_a_noised_loss_is_of_cut_losses_with_the_noise_that_was_charged(guard: Guard) -> None:
    config = PrivacyConfig(release="noised")
    told = []
    for number in range(400):
        one = granted(
            guard,
            numbers=Phase(noise_multiplier=0.7, sample_rate=1.0),
            val_drawable=np.ones(3, dtype=np.bool_),
            key=bytes([number % 256, number // 256, *bytes(30)]),
        )
        released = release(NUMBERS, config, one)
        assert released.loss is None and released.evaluation is not None and released.evaluation.patients is None
        told.append(released.evaluation.metrics["loss"])
    exact = (0.1 + 0.3 + LARGEST_LOSS) / 3
    spread = 0.7 * LARGEST_LOSS / 3
    assert abs(np.mean(told) - exact) < 4 * spread / 20
    assert np.std(told) == pytest.approx(spread, rel=0.12)


def test_noised_numbers_are_charged_to_the_validation_patients(private: Bench, site: SiteData, guard: Guard) -> None:
    noising = replace(guard, config=guard.config.model_copy(update={"release": "noised", "release_epsilon": 0.5}))
    update = given(private, site, noising)
    assert update.evaluation is not None and set(update.evaluation.metrics) == {"loss"}
    numbers = next(charge for charge in charges(guard) if charge.what == "numbers")
    members = {event.digest: set(event.patients) for event in guard.ledger.events() if isinstance(event, Members)}
    assert members[numbers.members] == set(guard.val)
    assert (numbers.sample_rate, numbers.steps) == (1.0, 1)
    assert accountant.epsilon({numbers.phase: private.recipe.rounds.count}, 1e-5) <= 0.5


@pytest.mark.parametrize("personal", ["fedper", "fedbn", "ifca"])
def test_what_would_void_the_guarantee_is_refused_with_the_recipe(recipe: Recipe, personal: str) -> None:
    import strategies
    from rainhill.recipe import PartSection

    section = recipe.strategy.model_copy(update={"personal": PartSection(name=personal)})
    strategies.from_recipe(recipe.model_copy(update={"strategy": section}))
    with pytest.raises(ConfigError, match=r"\[privacy\]"):
        strategies.from_recipe(recipe.model_copy(update={"strategy": section, "privacy": ASKED}))


def test_a_rule_that_keeps_b_at_home_is_refused_under_privacy(recipe: Recipe) -> None:
    import strategies

    section = recipe.strategy.model_copy(update={"rule": "fedsa"})
    with pytest.raises(ConfigError, match="trains parts that stay along with those that leave"):
        strategies.from_recipe(recipe.model_copy(update={"strategy": section, "privacy": ASKED}))
