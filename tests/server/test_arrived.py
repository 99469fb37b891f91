"""Updates that wait in files: the same merge to the bit, in memory that does not grow with the number of sites."""

import tracemalloc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import strategies as package
from rainhill import plugins
from rainhill.adapter import Adapter
from rainhill.errors import UnwrittenError
from rainhill.messages import Plan, Update
from rainhill.recipe import Recipe
from server import arrived
from server.arrived import Arrived, Filed
from server.checkpoint import Checkpoint
from server.rounds import run_rounds
from strategies import Strategy
from strategies.fedavg import FedAvg
from tests.strategies.world import compose, world

START = Adapter({"m.lora_A": np.ones((4, 6), np.float32), "m.lora_B": np.zeros((5, 4), np.float32)})


def drawn(plan: Plan) -> Update:
    rng = np.random.default_rng([plan.round, *plan.site.encode()])
    delta = Adapter({name: rng.standard_normal(array.shape, dtype=np.float32) for name, array in plan.adapter.items()})
    return Update(run=plan.run, round=plan.round, site=plan.site, delta=delta, patients=3 + len(plan.site), steps=1, loss=0.5)


def run(recipe: Recipe, folder: Path, *, sites: Sequence[str], start: Adapter = START, backwards: bool = False) -> Checkpoint:
    def collect(plans: Mapping[str, Plan]) -> Iterable[Update]:
        for plan in sorted(plans.values(), key=lambda plan: plan.site, reverse=backwards):
            yield drawn(plan)

    strategy = Strategy(rule=FedAvg(), weights="patients")
    return run_rounds(recipe, strategy, start, run="r", sites=sites, collect=collect, folder=folder)


def test_an_adapter_in_a_file_is_the_adapter_to_the_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    adapter = START.replace({"head.bias": rng.normal(size=3), "empty": np.zeros((0, 2), np.float32), "number": np.array(0.5)})
    filed = Filed(adapter, tmp_path / "one")
    assert filed == adapter and filed.to_bytes() == adapter.to_bytes()
    assert list(filed) == list(adapter) and filed.pairs().keys() == {"m"}
    assert not any(array.flags.writeable for array in filed.values())


@pytest.mark.parametrize("rule", plugins.names(package))
def test_every_rule_makes_the_same_of_updates_in_files(rule: str, tmp_path: Path) -> None:
    options = {"double_sketch": {"size": 40}}
    here = world(compose(rule, **options.get(rule, {})), 7, (9, 8, 3), 4, rounds_before=1)
    kept = Arrived(folder=tmp_path / "arrived", held=0)
    adapter, state = here.step([kept.kept(update) for update in here.updates])
    expected, expected_state = here.step()
    assert adapter == expected
    assert {name: array.tobytes() for name, array in state.arrays.items()} == {
        name: array.tobytes() for name, array in expected_state.arrays.items()
    }
    assert len(list((tmp_path / "arrived").iterdir())) == len(here.updates)


def test_what_a_site_sends_beside_its_update_waits_in_a_file_too(tmp_path: Path) -> None:
    update = replace(world(compose("fedavg"), 0, (4, 4, 2), 1).updates[0], variate=START)
    kept = Arrived(folder=tmp_path, held=0).kept(update)
    assert isinstance(kept.variate, Filed) and kept.variate == START and kept.delta == update.delta


def test_memory_is_filled_first_and_files_after(tmp_path: Path) -> None:
    updates = world(compose("fedavg"), 0, (4, 4, 2), 3).updates
    kept = Arrived(folder=tmp_path, held=2 * updates[0].delta.nbytes)
    assert [isinstance(kept.kept(update).delta, Filed) for update in updates] == [False, False, True]


@pytest.mark.parametrize("held", [0, 2 * START.nbytes, 2**26])
def test_a_run_ends_with_the_same_adapter_wherever_updates_waited_and_in_whatever_order_they_came(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    sites = ["a", "bb", "ccc", "dddd"]
    expected = run(recipe, tmp_path / "plain", sites=sites)
    monkeypatch.setattr(arrived, "HELD", held)
    (tmp_path / "filed" / "arrived").mkdir(parents=True)
    (tmp_path / "filed" / "arrived" / "000001").write_bytes(b"of a round that was killed")
    found = run(recipe, tmp_path / "filed", sites=sites, backwards=True)
    assert found.adapter == expected.adapter
    assert [record.up_bytes for record in found.history] == [record.up_bytes for record in expected.history]
    assert not (tmp_path / "filed" / "arrived").exists()


def test_memory_of_a_round_does_not_grow_with_the_number_of_sites(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = Adapter({"m.lora_A": np.ones((16, 2**13), np.float32), "m.lora_B": np.zeros((2**13, 16), np.float32)})
    monkeypatch.setattr(arrived, "HELD", 2 * big.nbytes)
    once = recipe.model_copy(update={"rounds": recipe.rounds.model_copy(update={"count": 1})})
    peaks = []
    for count in (4, 24):
        tracemalloc.start()
        run(once, tmp_path / str(count), sites=[f"site_{number:02d}" for number in range(count)], start=big)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < big.nbytes


def test_an_update_that_the_disk_does_not_take_is_told_with_its_size(tmp_path: Path) -> None:
    (tmp_path / "arrived").write_bytes(b"")
    update = world(compose("fedavg"), 0, (4, 4, 2), 1).updates[0]
    with pytest.raises(UnwrittenError, match=f"an update of {update.delta.nbytes} bytes cannot be written"):
        Arrived(folder=tmp_path / "arrived", held=0).kept(update)
