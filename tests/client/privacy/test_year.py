from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.chain import Entry, Event
from client.privacy import budget, year
from client.privacy.accountant import Phase, combined, epsilon
from client.privacy.events import Charged, Members
from client.privacy.guard import admit
from client.privacy.statement import Snapshot
from rainhill.config import PrivacyConfig
from rainhill.errors import ConfigError, RefusedError
from rainhill.recipe import PrivacySection, Recipe
from rainhill.toml import parse

DELTA = 1e-5
ANN, BEN = "a" * 16, "b" * 16
CHEST = Phase(noise_multiplier=1.1, sample_rate=0.032)
NOW = datetime(2026, 11, 22, tzinfo=UTC)
DAY = timedelta(days=1)


def kept(*events: tuple[datetime, Event]) -> Snapshot:
    """A ledger with entries of these times, in this order."""
    entries = [
        Entry(seq=number, time=time.isoformat(timespec="milliseconds"), kind=event.kind, body=event.body(), hash="")
        for number, (time, event) in enumerate(events, start=1)
    ]
    return Snapshot(entries=tuple(entries), parsed=tuple(event for _, event in events))


def steps_of(ledger: Snapshot, now: datetime = NOW) -> int:
    return sum(event.steps for event in year.last_year(ledger, now).parsed if isinstance(event, Charged))


def test_what_was_charged_a_year_ago_counts_no_more_and_who_it_was_is_still_known(charge) -> None:
    both = Members.of([ANN, BEN])
    ledger = kept(
        (NOW - 400 * DAY, both),
        (NOW - 365 * DAY, charge(1, members=both.digest, steps=1)),
        (NOW - 364 * DAY, charge(2, members=both.digest, steps=20)),
        (NOW - DAY, charge(3, members=both.digest, steps=300)),
    )
    assert budget.histories(year.last_year(ledger, NOW)) == {ANN: {CHEST: 320}, BEN: {CHEST: 320}}
    assert budget.histories(ledger) == {ANN: {CHEST: 321}, BEN: {CHEST: 321}}
    assert steps_of(ledger, NOW + 364 * DAY - timedelta(seconds=1)) == 300 and steps_of(ledger, NOW + 364 * DAY) == 0
    assert year.last_year(Snapshot(), NOW) == Snapshot()


def test_a_clock_that_was_set_back_or_was_ahead_forgets_nothing_early(charge) -> None:
    members = Members.of([ANN])
    ledger = kept(
        (NOW, members),
        # The clock was ten years ahead, was mended, and then lost what time it was.
        (NOW + 3650 * DAY, charge(1, members=members.digest, steps=1)),
        (NOW, charge(2, members=members.digest, steps=20)),
        (NOW - 3650 * DAY, charge(3, members=members.digest, steps=300)),
    )
    assert steps_of(ledger) == 321
    assert steps_of(ledger, NOW + 400 * DAY) == 321


@settings(max_examples=8)
@given(st.lists(st.tuples(st.integers(0, 250), st.integers(20, 400)), min_size=2, max_size=8), st.floats(0.4, 1.0))
def test_over_any_365_days_no_patient_spends_more_than_the_site_allows(charge, rounds: Sequence[tuple[int, int]], limit: float) -> None:
    """Rounds some days apart, each taken where it is affordable; then every window that ends with a charge is composed anew."""
    config, members, events, now = PrivacyConfig(epsilon=50.0, epsilon_per_year=limit), Members.of([ANN]), [], NOW
    for number, (days, steps) in enumerate(rounds, start=1):
        now += days * DAY
        ledger = kept((NOW, members), *events)
        (able,) = year.affordable(config, [ANN], CHEST, steps, ledger=ledger, now=now)
        if able:
            events.append((now, charge(number, members=members.digest, steps=steps)))
        else:
            words = year.nobody_left(config, [ANN], CHEST, steps, ledger=ledger, now=now)
            assert f"epsilon_per_year of {limit:g} allows" in words and float(words.split(" come to ")[1].split()[0]) >= round(limit, 3)
    for end, _ in events:
        window = combined({CHEST: event.steps} for time, event in events if end - year.YEAR < time <= end)
        assert epsilon(window, DELTA) <= limit


def test_what_a_year_allows_is_composed_and_not_added(charge) -> None:
    members = Members.of([ANN])
    ledger = kept((NOW, members), *((NOW, charge(number, members=members.digest, steps=100)) for number in (1, 2, 3)))
    together, added = epsilon({CHEST: 400}, DELTA), 4 * epsilon({CHEST: 100}, DELTA)
    config = PrivacyConfig(epsilon=50.0, epsilon_per_year=together)
    assert together < 0.8 * added
    assert year.affordable(config, [ANN], CHEST, 100, ledger=ledger, now=NOW) == [True]
    assert year.affordable(config, [ANN], CHEST, 110, ledger=ledger, now=NOW) == [False]
    # A year later it is given back; what is spent for good is not.
    assert year.affordable(config, [ANN], CHEST, 110, ledger=ledger, now=NOW + year.YEAR) == [True]
    for_good = config.model_copy(update={"epsilon": together})
    assert year.affordable(for_good, [ANN], CHEST, 110, ledger=ledger, now=NOW + year.YEAR) == [False]


def test_a_recipe_that_asks_for_more_than_a_year_allows_is_refused_with_both(recipe: Recipe) -> None:
    asks = recipe.model_copy(update={"privacy": PrivacySection(epsilon=3.0)})
    admit(PrivacyConfig(epsilon=8.0, epsilon_per_year=3.0), asks)
    with pytest.raises(RefusedError, match=r"asks for epsilon 3 in one run, the site allows 2 of any 365 days \(epsilon_per_year\)"):
        admit(PrivacyConfig(epsilon=8.0, epsilon_per_year=2.0), asks)
    with pytest.raises(ConfigError, match="epsilon_per_year = 9 is above epsilon = 8"):
        parse({"epsilon_per_year": 9}, PrivacyConfig, origin="site.toml")
