"""Flower's simulation engine gives what the inline engine gives."""

import json
from pathlib import Path

import pytest

from rainhill.adapter import Adapter


def adapter(run: Path) -> Adapter:
    return Adapter.from_bytes((run / "adapters" / "shared.safetensors").read_bytes())


@pytest.mark.xdist_group("flower")
def test_both_engines_end_with_the_same_adapter(simulate, hospitals: Path, recipe_text, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(recipe_text(rule="flexlora", rounds=3))
    for engine in ("inline", "flower"):
        run = simulate("tiny.toml", "--sites", hospitals, "--engine", engine, "--out", engine, cwd=tmp_path, timeout_s=400)
        assert run.returncode == 0, run.stderr[-3000:]
        assert json.loads((tmp_path / engine / "results.json").read_text())["engine"] == engine
    assert adapter(tmp_path / "flower").max_abs_difference(adapter(tmp_path / "inline")) < 1e-5
    # It moved: two adapters that both stayed where they began would agree too.
    assert any(name.endswith("lora_B") and array.any() for name, array in adapter(tmp_path / "inline").items())
