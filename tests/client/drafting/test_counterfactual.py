"""Findings that were there before, made new: both reports say so, and nothing else is changed."""

from pathlib import Path
from typing import get_args

import pytest

from client.data.labeler import Labeler
from client.drafting.counterfactual import Pair, counterfactual
from client.reporting.changes import changes
from client.reporting.reading import CLASSES, THERE, Reading, reading
from rainhill.errors import ConfigError
from rainhill.toml import read_toml
from sites import hospital, report_text
from sites.cases import Case
from sites.hospital import HospitalConfig

LABELER = Labeler()


def follow_ups() -> list[tuple[Case, Case]]:
    config = read_toml(Path(hospital.__file__).with_name("liverpool.toml"), HospitalConfig).phantom
    assert config is not None
    often = config.population.model_copy(update={"follow_up": 0.8})
    some = {"patients": 60, "test_patients": 0, "images_per_patient": (2, 3), "population": often}
    known, _ = hospital.draw(config.model_copy(update=some), seed=0)
    return [pair for patient in known for pair in zip(patient.cases, patient.cases[1:], strict=False)]


def there(text: str) -> set[str]:
    labels = LABELER.labels(text)
    return {name for name in CLASSES if labels[name] in THERE}


def without_words(read: Reading) -> tuple[object, ...]:
    return read.labels, read.sides, read.severities


@pytest.mark.parametrize("style", get_args(report_text.Style))
def test_what_is_called_new_is_gone_from_the_prior_and_all_else_stays(style: report_text.Style) -> None:
    made, left = 0, 0
    for before, case in follow_ups():
        pair = Pair(prior=report_text.write(before, style), report=report_text.write(case, style, before=before))
        found = counterfactual(pair, LABELER, share=1.0)
        was, now = (changes(LABELER, one.report) for one in (pair, found))
        renewed = {finding for finding in was if (was[finding], now[finding]) == ("unchanged", "new")}
        assert there(found.prior) == there(pair.prior) - renewed
        assert without_words(reading(LABELER, found.report)) == without_words(reading(LABELER, pair.report))
        assert {finding: change for finding, change in now.items() if finding not in renewed} == {
            finding: change for finding, change in was.items() if finding not in renewed
        }
        made, left = made + len(renewed), left + sum(change == "unchanged" for change in now.values())
    assert made > 9 * left


def test_a_list_loses_its_part_and_keeps_its_form() -> None:
    prior = "PLEURA: left effusion (mild). HEART: enlarged.\nIMPRESSION: left effusion; cardiomegaly."
    report = "PLEURA: left effusion (mild), unchanged. HEART: enlarged.\nIMPRESSION: left effusion; cardiomegaly."
    found = counterfactual(Pair(prior=prior, report=report), LABELER, share=1.0)
    assert found.prior == "HEART: enlarged.\nIMPRESSION: cardiomegaly."
    assert found.report == report.replace("unchanged", "new")
    alone = counterfactual(
        Pair(prior="Left effusion. New.\nImpression: left effusion.", report="Left effusion. Unchanged."), LABELER, share=1.0
    )
    assert alone.prior == "Impression: No acute abnormality." and alone.report == "Left effusion. New."


@pytest.mark.parametrize(
    ("report", "wanted"),
    [
        ("The left effusion persists.", "The left effusion is new."),
        ("Left effusion. Persists.", "Left effusion. New."),
        ("A left effusion is again seen.", "A left effusion is newly seen."),
        ("STABLE left effusion.", "New left effusion."),
    ],
)
def test_each_word_of_what_stays_has_one_of_what_is_new(report: str, wanted: str) -> None:
    found = counterfactual(Pair(prior="Clear lungs. Left effusion.", report=report), LABELER, share=1.0)
    assert (found.prior, found.report) == ("Clear lungs.", wanted)


def test_german_words_keep_their_endings() -> None:
    german = Labeler(language="de")
    pair = Pair(prior="Herz normal groß. Pleuraerguss links.", report="Unveränderter Pleuraerguss links.")
    found = counterfactual(pair, german, share=1.0, language="de")
    assert (found.prior, found.report) == ("Herz normal groß.", "Neuer Pleuraerguss links.")
    with pytest.raises(ConfigError, match="new in language 'fr'; there are those of en, de"):
        counterfactual(pair, german, share=1.0, language="fr")


def test_what_cannot_be_parted_or_was_not_there_stays_as_it_is() -> None:
    # One sentence of the prior has two findings, of which one is called unchanged.
    joined = Pair(prior="Left effusion and cardiomegaly.", report="Left effusion, unchanged. The heart is enlarged.")
    absent = Pair(prior="No effusion.", report="Left effusion, unchanged.")
    nothing = Pair(prior="Left effusion.", report="Left effusion, unchanged.")
    for pair in (joined, absent, nothing):
        assert counterfactual(pair, LABELER, share=1.0) == pair


def test_a_share_is_taken_and_the_same_one_each_time() -> None:
    pairs = [
        Pair(prior=report_text.write(before, "structured"), report=report_text.write(case, "structured", before=before))
        for before, case in follow_ups()
    ]
    with_something = [pair for pair in pairs if "unchanged" in changes(LABELER, pair.report).values()]

    def made(share: float) -> list[Pair]:
        return [counterfactual(pair, LABELER, share=share) for pair in with_something]

    assert made(0.0) == with_something and made(0.5) == made(0.5)
    altered = sum(one != pair for one, pair in zip(made(0.5), with_something, strict=True))
    assert 0.3 * len(pairs) < altered < 0.9 * len(with_something)
