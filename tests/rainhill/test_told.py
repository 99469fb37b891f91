"""What a run came to at a site is told with the measure that it was taken by."""

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from rainhill.told import MEASURES, TITLES, Gains, Interval, Levels, Measure, Told

LEVEL, GAIN = Interval(value=0.8, low=0.75, high=0.85), Interval(value=0.1, low=0.02, high=0.17)
KEPT: dict[str, Any] = {
    "run": "spring",
    "patients": 40,
    "confidence": 0.95,
    "measure": "label_f1",
    "levels": {"base": None, "shared": LEVEL.model_dump(), "private": None},
    "gain": {"shared": GAIN.model_dump(), "private": None},
}


def test_every_measure_has_what_people_call_it() -> None:
    assert set(get_args(Measure)) == set(MEASURES) == set(TITLES)
    assert all(TITLES[measure].startswith(MEASURES[measure]) for measure in get_args(Measure))


def test_what_a_site_keeps_is_told_by_its_measure_and_without_what_else_it_says() -> None:
    told = Told.of(KEPT)
    assert told == Told(
        confidence=0.95,
        measure="label_f1",
        levels=Levels(base=None, shared=LEVEL, private=None),
        gain=Gains(shared=GAIN, private=None),
    )
    assert (told.name, told.title) == ("label F1", "label F1 of drafts")
    assert Told.of(KEPT | {"measure": "auroc"}).title == "AUROC, mean over findings"
    assert Told.model_validate_json(told.model_dump_json()) == told
    assert list(told.lines()) == [
        "the base model alone           cannot be measured",
        "with the shared adapter        0.800 [0.750, 0.850], +0.100 [+0.020, +0.170] over the base: better",
        "with the site's own part too   cannot be measured",
    ]


@pytest.mark.parametrize("measure", ["AUROC", "dice", "", None, 1, ["auroc"]])
def test_an_unknown_measure_is_none(measure: object) -> None:
    with pytest.raises(ValidationError, match="measure\n.*Input should be 'auroc' or 'label_f1'"):
        Told.of(KEPT | {"measure": measure})
