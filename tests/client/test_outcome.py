"""What a run of a task that writes came to at a site: by label F1 of drafts, on patients who have a report."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client._asked_text import outcome_text
from client.data.cohort import Cohort
from client.outcome import described, outcome
from client.tasks.report import Report
from client.training import features, lora
from client.training.fit import fit
from client.training.memory import Memory
from client.workbench import Bench, first_adapter, own_data
from rainhill.adapter import Adapter
from rainhill.messages import Plan
from rainhill.recipe import FitSection
from rainhill.told import Told, verdict
from tests.client.test_report_task import bench, cohort_of, llava

__all__ = ["bench", "llava"]
TESTED = (18, 19, 20, 21, 22, 23)
"""Films of the three patients that are set aside."""


def site_films(silent: tuple[int, ...] = ()) -> Cohort:
    return replace(cohort_of(24, silent=silent), split=np.array(["train"] * 12 + ["val"] * 6 + ["test"] * 6))


def came_to(bench: Bench, folder: Path, *, silent: tuple[int, ...] = (), adapter: Adapter | None = None) -> dict[str, Any]:
    """Of a run that ends with this adapter, or with the one that it began with."""
    plan = Plan(run="spring", recipe=bench.recipe.sha256, round=3, site="aintree", adapter=adapter or first_adapter(bench))
    return described(outcome(plan, bench, own_data(bench, site_films(silent)), Memory(folder)), plan, 0.9)


def learned(bench: Bench) -> Adapter:
    """Fitted to the very films that are set aside, so that it is known to do well on them."""
    data = features.compute(bench.net, site_films().part("test"), bench.task)
    section = FitSection(steps=120, patients_per_step=3, learning_rate=2e-2)
    lora.write_adapter(bench.net, first_adapter(bench), name=lora.SHARED)
    fit(bench.net, data, bench.task, section, parameters=lora.trainable(bench.net, name=lora.SHARED, with_head=True), seed=(0,))
    return lora.read_adapter(bench.net, name=lora.SHARED, with_head=True)


def test_a_task_that_writes_is_described_by_the_label_f1_of_its_drafts(bench: Bench, tmp_path: Path) -> None:
    found = came_to(bench, tmp_path, silent=(18, 19, 20))
    assert (found["measure"], found["held_out"], found["confidence"]) == ("label_f1", "test", 0.9)
    assert set(found["levels"]) == {"base", "shared", "private"} and set(found["gain"]) == {"shared", "private"}
    # One of the three has no report, and another has one of two.
    assert found["patients"] == 2
    for level in found["levels"].values():
        assert 0 <= level["low"] <= level["value"] <= level["high"] <= 1
    # An adapter that has not moved writes what the base writes.
    assert found["levels"]["shared"] == found["levels"]["base"] and found["gain"]["shared"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["left_out"] == []


def test_it_is_told_and_read_out_as_label_f1(bench: Bench, tmp_path: Path) -> None:
    found = came_to(bench, tmp_path, adapter=learned(bench))
    told = Told.of(found)
    assert told.levels.base is not None and told.levels.base.value < 0.5
    assert told.levels.shared is not None and told.levels.shared.value > 0.7 and verdict(told.gain.shared) == "better"
    assert told.measure == "label_f1" and told.model_dump(mode="json")["levels"] == found["levels"]
    first, *lines = outcome_text(found).splitlines()
    assert first == "Run spring: label F1 of drafts, 90 % interval, on 3 patients of the site's test part"
    assert lines[0] == f"  the base model alone           {told.levels.base}"
    assert "AUROC" not in outcome_text(found) and "left out" not in outcome_text(found)


def test_where_nobody_who_is_set_aside_has_a_report_it_is_of_validation_patients(bench: Bench, tmp_path: Path) -> None:
    found = came_to(bench, tmp_path, silent=TESTED)
    assert (found["held_out"], found["patients"]) == ("val", 3) and found["levels"]["base"] is not None


def test_without_a_report_to_hold_a_draft_against_there_is_no_level(bench: Bench, tmp_path: Path) -> None:
    """Films with labels are of use where reports are written from these, and these are nobody's drafts to hold another against."""
    writing = replace(bench, task=Report(expand=True, findings=("cardiomegaly",), max_tokens=40, val_drafts=3))
    films = replace(site_films(TESTED), findings=("cardiomegaly",), labels=np.ones((24, 1), dtype=np.float32))
    plan = Plan(run="spring", recipe=bench.recipe.sha256, round=3, site="aintree", adapter=first_adapter(bench))
    found = described(outcome(plan, writing, own_data(writing, films), Memory(tmp_path)), plan, 0.9)
    assert (found["held_out"], found["patients"]) == ("test", 0)
    assert set(found["levels"].values()) == set(found["gain"].values()) == {None}
    assert outcome_text(found).count("cannot be measured") == 3


@pytest.mark.parametrize(("temperature", "words"), [(1.0, "there is none."), (1.2, "there is none but a temperature.")])
def test_a_site_without_an_own_part_is_told_what_it_has(bench: Bench, tmp_path: Path, temperature: float, words: str) -> None:
    found = came_to(bench, tmp_path) | {"private_steps": 0, "temperature": temperature}
    assert words in outcome_text(found)
