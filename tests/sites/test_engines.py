"""Flower's simulation engine gives what the inline engine gives."""

import json
from pathlib import Path

import pytest

from rainhill.adapter import Adapter


def adapter(run: Path) -> Adapter:
    return Adapter.from_bytes((run / "adapters" / "shared.safetensors").read_bytes())


# The second has all that a site does besides training: it keeps B and head, sends a variate, and trains in two stretches.
KEEPING = 'server_optimizer = "scaffold"\npersonal = { name = "fedrep", head_steps = 2 }'


# Each worker charges the ledgers of the sites that it is handed, and keeps their secrets from one exchange to the next.
PRIVATE = "[privacy]\nepsilon = 6\n[secure_aggregation]"


@pytest.mark.parametrize(
    ("rule", "more"), [("flexlora", ""), ("fedsa", KEEPING), ("alternating", PRIVATE)], ids=["flexlora", "keeping", "private"]
)
def test_both_engines_end_with_the_same_adapter(simulate, hospitals: Path, recipe_text, tmp_path: Path, rule: str, more: str) -> None:
    text = recipe_text(rule=rule, rounds=3)
    (tmp_path / "tiny.toml").write_text(text.replace("[rounds]", f"{more}\n[rounds]"))
    for engine in ("inline", "flower"):
        run = simulate("tiny.toml", "--sites", hospitals, "--engine", engine, "--out", engine, cwd=tmp_path, apart=engine == "flower")
        assert run.returncode == 0, run.stderr[-3000:]
        assert json.loads((tmp_path / engine / "results.json").read_text())["engine"] == engine
    assert adapter(tmp_path / "flower").max_abs_difference(adapter(tmp_path / "inline")) < 1e-5
    for site in ("aintree", "broadgreen", "calder"):
        one, other = (json.loads((tmp_path / engine / "results.json").read_text())["sites"][site] for engine in ("inline", "flower"))
        assert one["shared"]["auroc"]["value"] == pytest.approx(other["shared"]["auroc"]["value"], abs=1e-6)
    # It moved: two adapters that both stayed where they began would agree too.
    found = json.loads((tmp_path / "inline" / "results.json").read_text())["sites"]
    assert any(site["shared"]["auroc"] != site["base"]["auroc"] for site in found.values())
