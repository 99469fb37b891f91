import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.privacy import budget
from client.privacy.accountant import Phase, combined, epsilon
from client.privacy.events import Members
from client.privacy.ledger import Ledger
from client.privacy.statement import Snapshot
from rainhill.errors import LedgerError, RefusedError

DELTA = 1e-5
ANN, BEN, CAT, DAN = ("a" * 16, "b" * 16, "c" * 16, "d" * 16)
CHEST = Phase(noise_multiplier=1.1, sample_rate=0.032)
BRAIN = Phase(noise_multiplier=2.0, sample_rate=0.1)


@pytest.fixture
def recorded(charge):
    """Two runs: chest on Ann and Ben, then on Ann alone, with numbers of Cat; brain on Ben."""
    both, ann, ben, cat = (Members.of(patients) for patients in ([ANN, BEN], [ANN], [BEN], [CAT]))
    return Snapshot(
        parsed=(
            both,
            charge(1, members=both.digest),
            charge(2, members=both.digest),
            ann,
            charge(3, members=ann.digest),
            cat,
            charge(3, members=cat.digest, what="numbers", noise_multiplier=5.0, sample_rate=1.0, steps=1),
            ben,
            charge(1, members=ben.digest, run="brain", cohort="scans", noise_multiplier=2.0, sample_rate=0.1, steps=7),
        )
    )


def test_each_patient_is_charged_for_what_it_was_in(recorded):
    assert budget.histories(recorded) == {
        ANN: {CHEST: 30},
        BEN: {CHEST: 20, BRAIN: 7},
        CAT: {Phase(noise_multiplier=5.0, sample_rate=1.0): 1},
    }


def test_a_run_and_a_data_set_are_told_of_whom_was_in_all_of_it(recorded):
    assert budget.run_history(recorded, "chest") == budget.cohort_history(recorded, "films") == {CHEST: 30}
    assert budget.run_history(recorded, "brain") == budget.cohort_history(recorded, "scans") == {BRAIN: 7}
    assert budget.run_history(recorded, "chest", "numbers") == {Phase(noise_multiplier=5.0, sample_rate=1.0): 1}
    assert budget.run_history(recorded, "none") == {}
    assert budget.site_history(recorded) == {CHEST: 30, BRAIN: 7, Phase(noise_multiplier=5.0, sample_rate=1.0): 1}


def test_patients_who_were_charged_without_a_name_are_told(charge):
    with pytest.raises(LedgerError, match="were charged, but the ledger has no entry that says who they are"):
        budget.histories(Snapshot(parsed=(charge(),)))


def test_rounds_in_the_ledger_compose_as_if_they_were_one(tmp_path, charge):
    members = Members.of([ANN])
    ledger = Ledger.open(tmp_path, site="aintree")
    ledger.append(members)
    for number in (1, 2, 3):
        # Opened anew each time, as after a restart.
        Ledger.open(tmp_path, site="aintree").append(charge(number, members=members.digest))
    [history] = budget.histories(Ledger.open(tmp_path, site="aintree")).values()
    assert history == {CHEST: 30}
    assert budget.spent(history, DELTA) == epsilon({CHEST: 30}, DELTA)
    assert 3 * epsilon({CHEST: 10}, DELTA) > 1.5 * budget.spent(history, DELTA)


def test_the_patient_who_has_spent_most_is_found(recorded):
    histories = budget.histories(recorded)
    spent = budget.spent_by_history(histories, DELTA)
    most = budget.most_spent(histories, DELTA)
    assert frozenset(most.items()) == max(spent, key=spent.__getitem__)
    assert budget.most_spent({}, DELTA) == {}


def test_who_can_take_part_is_who_stays_within_the_budget(recorded):
    histories = budget.histories(recorded)
    limit = epsilon({CHEST: 40}, DELTA)
    assert budget.affordable([ANN, BEN, CAT, DAN], histories, CHEST, 10, epsilon=limit, delta=DELTA) == [
        epsilon(combined([histories.get(patient, {}), {CHEST: 10}]), DELTA) <= limit for patient in (ANN, BEN, CAT, DAN)
    ]
    assert budget.affordable([DAN, ANN], histories, CHEST, 10, epsilon=limit, delta=DELTA) == [True, True]
    assert budget.affordable([DAN, ANN], histories, CHEST, 11, epsilon=limit, delta=DELTA) == [True, False]
    assert budget.affordable([], histories, CHEST, 11, epsilon=limit, delta=DELTA) == []


@settings(max_examples=5)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 30), st.floats(0.3, 1.5))
def test_who_has_spent_more_never_can_where_another_cannot(steps, further, limit):
    histories = {f"{number:016x}": {CHEST: 10 * count} for number, count in enumerate(steps) if count}
    patients = [f"{number:016x}" for number in range(len(steps))]
    able = budget.affordable(patients, histories, CHEST, further, epsilon=limit, delta=DELTA)
    for count, can in zip(steps, able, strict=True):
        assert can == (epsilon({CHEST: 10 * count + further}, DELTA) <= limit)
        assert all(other_can for other, other_can in zip(steps, able, strict=True) if other <= count) or not can


def test_a_run_and_a_data_set_are_refused_with_what_was_asked_and_what_is_left(recorded):
    limit = epsilon({CHEST: 40}, DELTA)
    budget.refuse_beyond_run(recorded, "chest", CHEST, 10, epsilon=limit, delta=DELTA)
    budget.refuse_beyond_cohort(recorded, "films", CHEST, 10, epsilon=limit, delta=DELTA)
    budget.refuse_beyond_run(recorded, "brain", CHEST, 10, epsilon=limit, delta=DELTA)
    asked, spent = epsilon({CHEST: 41}, DELTA), epsilon({CHEST: 30}, DELTA)
    said = (
        f": 11 steps more of noise multiplier 1.1 and sample rate 0.032 bring it to epsilon {asked:.4g}, allowed are {limit:g}; "
        f"{spent:.4g} are spent and {limit - spent:.4g} left (add or remove one patient, delta 1e-05)"
    )
    with pytest.raises(RefusedError) as refused:
        budget.refuse_beyond_run(recorded, "chest", CHEST, 11, epsilon=limit, delta=DELTA)
    assert str(refused.value) == "run chest" + said
    with pytest.raises(RefusedError) as refused:
        budget.refuse_beyond_cohort(recorded, "films", CHEST, 11, epsilon=limit, delta=DELTA)
    assert str(refused.value) == "data set films" + said
