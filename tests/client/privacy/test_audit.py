"""The audit finds every fault that is planted, and none in the code that ships."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from client.privacy.audit import inversion as attack
from client.privacy.audit import picture
from client.privacy.audit._cli import audit
from client.privacy.audit.finding import Finding, Trial
from client.privacy.audit.inversion import inversion, similarity
from client.privacy.audit.layers import LAYERS
from client.privacy.audit.sensitivity import _moved
from perf._audit_faults import FAULTS
from rainhill.errors import ConfigError

CAUGHT_BY = {
    "noise / 10": ("noise", "one_run"),
    "no noise": ("noise", "one_run", "membership"),
    "clip x 10": ("sensitivity", "one_run"),
    "images clipped one by one": ("sensitivity",),
    "local head trained along": ("sensitivity", "order"),
    "same batch in every step": ("sampling",),
    "shuffled batches": ("sampling",),
    "same noise in every round": ("noise",),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_the_code_that_ships_passes_every_layer(layer: str) -> None:
    finding = LAYERS[layer](Trial(quick=True))
    assert finding.passed, finding.verdict
    assert finding.layer == layer
    assert "nan" not in finding.verdict


def test_every_fault_is_planted() -> None:
    assert set(CAUGHT_BY) == set(FAULTS)


@pytest.mark.parametrize(("fault", "layer"), [(fault, layer) for fault, layers in CAUGHT_BY.items() for layer in layers])
def test_each_fault_is_caught_by_the_layer_made_for_it(fault: str, layer: str) -> None:
    finding = LAYERS[layer](Trial(quick=True, plant=FAULTS[fault]))
    assert not finding.passed, finding.verdict


def test_a_fault_outside_a_layers_sight_leaves_it_unmoved() -> None:
    """Otherwise a layer that always fails would pass for a keen one."""
    for fault, layer in (("no noise", "sensitivity"), ("clip x 10", "noise"), ("clip x 10", "order"), ("no noise", "sampling")):
        assert LAYERS[layer](Trial(quick=True, plant=FAULTS[fault])).passed, (fault, layer)


def test_a_patient_moves_the_sum_by_the_bound_where_drawn_and_not_at_all_elsewhere() -> None:
    moved, drawn = _moved(Trial(quick=True))
    np.testing.assert_allclose(moved[drawn], 1.0, rtol=1e-5)
    assert drawn.any() and not moved[~drawn].any()


def test_the_same_trial_finds_the_same_and_a_fresh_one_has_keys_of_its_own() -> None:
    one, again, fresh = (LAYERS["noise"](trial) for trial in (Trial(quick=True), Trial(quick=True), Trial(quick=True, fresh=True)))
    assert one == again
    assert one.value != fresh.value and fresh.passed


def test_json_is_a_list_of_findings_in_the_order_of_the_layers() -> None:
    result = CliRunner().invoke(audit, ["--json", "--quick", "--layer", "sampling", "--layer", "sensitivity", "--seed", "1"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.output)
    assert [row["layer"] for row in rows] == ["sensitivity", "sampling"]
    assert all(set(row) == {"layer", "passed", "verdict", "value", "bound"} and row["passed"] is True for row in rows)
    assert rows[0]["value"] <= rows[0]["bound"] == 1 + 1e-5


def test_a_layer_that_fails_is_told_and_makes_the_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = LAYERS["sampling"]
    monkeypatch.setitem(LAYERS, "sampling", lambda trial: sound(replace(trial, plant=FAULTS["shuffled batches"])))
    result = CliRunner().invoke(audit, ["--quick", "--layer", "sampling", "--layer", "order"])
    assert result.exit_code == 1
    assert "sampling     FAILS" in result.output and "order        holds" in result.output
    assert "1 of 2 fail: sampling." in result.output


def test_an_unknown_layer_is_refused_with_the_nearest() -> None:
    result = CliRunner().invoke(audit, ["--layer", "one_rum"])
    assert result.exit_code == 2
    assert "no layer is called 'one_rum', did you mean 'one_run'" in result.output


def test_a_folder_that_cannot_be_written_to_is_told_before_the_audit(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for out in ("taken/below", "/proc/nowhere"):
        with pytest.raises(ConfigError, match="cannot be written to"):
            CliRunner().invoke(audit, ["--out", str(tmp_path / out)], catch_exceptions=False)


def test_a_sound_audit_claims_no_proof() -> None:
    result = CliRunner().invoke(audit, ["--quick", "--layer", "one_run", "--seed", "3"])
    assert result.exit_code == 0
    said = " ".join(result.output.split())
    assert "this test can show no more than 3.5" in said and "a pass is no proof" in said
    assert "cannot prove that there are none" in result.output and "rainhill audit --seed 3 --quick" in result.output


def test_a_film_comes_back_from_an_update_without_protection_and_not_from_one_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attack, "SIZE", 32)
    found = inversion(Trial(quick=True))
    assert similarity(found.original, found.unprotected) > 0.9
    assert abs(similarity(found.original, found.protected)) < 0.3
    path = picture.draw(found, tmp_path / "new")
    assert path.name == "inversion.png" and path.read_bytes().startswith(b"\x89PNG")


def test_a_finding_tells_all_of_itself() -> None:
    finding = Finding(layer="noise", passed=True, verdict="as charged", value=0.5, bound=1e-4)
    assert finding.row() == {"layer": "noise", "passed": True, "verdict": "as charged", "value": 0.5, "bound": 1e-4}
