"""New and unchanged, as reports say it."""

from pathlib import Path
from typing import get_args

import pytest

from client.data.labeler import Labeler
from client.reporting.changes import changes
from rainhill.toml import read_toml
from sites import hospital, report_text
from sites.hospital import HospitalConfig

LABELER = Labeler()
NAMED = {"effusion": "pleural_effusion", "oedema": "edema", "nodule": "lung_lesion", "device": "support_devices"}


def test_a_change_is_of_the_finding_in_its_sentence_or_of_the_one_before() -> None:
    assert changes(LABELER, "New left effusion. Cardiomegaly. Unchanged.") == {"pleural_effusion": "new", "cardiomegaly": "unchanged"}
    assert changes(LABELER, "Cardiomegaly. No new effusion. Stable.") == {}
    assert changes(LABELER, "Left effusion and atelectasis, unchanged.") == {"pleural_effusion": "unchanged", "atelectasis": "unchanged"}
    assert changes(LABELER, "Left effusion.") == {}
    german = Labeler(language="de")
    assert changes(german, "Neuer Pleuraerguss links.", language="de") == {"pleural_effusion": "new"}


@pytest.mark.parametrize("style", get_args(report_text.Style))
def test_what_phantoms_say_is_what_came_and_what_stayed(style: report_text.Style) -> None:
    config = read_toml(Path(hospital.__file__).with_name("liverpool.toml"), HospitalConfig).phantom
    assert config is not None
    often = config.population.model_copy(update={"follow_up": 0.8})
    some = {"patients": 80, "test_patients": 0, "images_per_patient": (2, 3), "population": often}
    known, _ = hospital.draw(config.model_copy(update=some), seed=0)
    seen: set[str] = set()
    for patient in known:
        for before, case in zip(patient.cases, patient.cases[1:], strict=False):
            there = {one.name: (one.side, one.region) for one in before.findings}
            wanted = {
                NAMED.get(one.name, one.name): "unchanged" if there.get(one.name) == (one.side, one.region) else "new"
                for one in case.findings
            }
            said = changes(LABELER, report_text.write(case, style, before=before))
            assert {finding: said.get(finding) for finding in wanted} == wanted, report_text.write(case, style, before=before)
            seen |= set(wanted.values())
    assert seen == {"new", "unchanged"}
