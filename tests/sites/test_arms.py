"""The arms that the federation is held against are at their best."""

from dataclasses import replace
from pathlib import Path

import pytest

from client.training import lora
from client.training.features import losses_of
from client.workbench import Bench, first_adapter
from rainhill.adapter import Adapter
from server import checkpoint
from sites import arms
from sites.bench import SiteData


def loss_of(bench: Bench, adapter: Adapter, own: SiteData) -> float:
    lora.write_adapter(bench.net, adapter, name=lora.SHARED)
    return float(losses_of(bench.net, own.val, bench.task).mean())


@pytest.mark.parametrize("learning_rate", [1e-3, 2e-2, 5.0])
def test_a_site_alone_stops_at_the_round_that_its_validation_patients_like_best(
    bench: Bench, site: SiteData, tmp_path: Path, learning_rate: float
) -> None:
    rounds = bench.recipe.rounds.model_copy(update={"count": 6, "learning_rate": learning_rate})
    bench = replace(bench, recipe=bench.recipe.model_copy(update={"rounds": rounds}))
    first = first_adapter(bench)
    done = arms.train_local(bench, first, {"aintree": site}, folder=tmp_path, on_round=lambda arm, record: None)
    folder = tmp_path / "local" / "aintree"
    after_each = [first, *(checkpoint.load(checkpoint.path_of(folder, number)).adapter for number in range(1, 7))]
    losses = [loss_of(bench, adapter, site) for adapter in after_each]
    assert done.adapters["aintree"] == after_each[losses.index(min(losses))]
    assert len(done.history["aintree"]) == 6
    # A rate that cannot work leaves the site with what it had.
    assert (done.adapters["aintree"] == first) == (learning_rate == 5.0)
