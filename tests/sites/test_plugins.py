"""A strategy, a task, a model and a site are added by one new file each, touching no other."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import client.models
import client.tasks
import strategies
from rainhill.recipe import read_recipe
from sites.runs import Run
from sites.simulate import simulate

STRATEGY = '''
"""The median of each entry over the sites."""

import numpy as np

from strategies._rule import Rule, State


class MedianOfSites(Rule):
    damping: float = 1.0

    def step(self, adapter, moves, state):
        moved = {name: adapter[name] + np.float32(self.damping) * np.median([m.delta[name] for m in moves], axis=0) for name in adapter}
        return adapter.replace(moved), State(round=state.round + 1, log={"sites": len(moves)})
'''

TASK = '''
"""Is anything there at all?"""

import numpy as np
from client.tasks.findings import Findings


class AnyFinding(Findings):
    @property
    def outputs(self):
        return {"any": "any"}

    def targets(self, cohort):
        return cohort.labels.max(axis=1, keepdims=True).astype(np.float32)
'''

MODEL = '''
"""Two linear layers on coarse pixels."""

import torch
from safetensors.torch import load_file

from client.models._net import Net
from rainhill.toml import Section


class CoarsePixels(Section):
    cells: int = 8

    def load(self, weights, *, outputs, last_blocks):
        return _Net(load_file(weights / "model.safetensors"), len(outputs), self.cells)


class _Net(Net):
    size = 32

    def __init__(self, tensors, count, cells):
        super().__init__()
        self.pool = torch.nn.AdaptiveAvgPool2d(cells)
        self.mix = torch.nn.Linear(cells * cells, 12)
        self.mix.load_state_dict(tensors)
        self.head = torch.nn.Linear(12, count)

    def prefix(self, images):
        return self.pool(images).flatten(1)

    def forward(self, hidden):
        return self.head(torch.relu(self.mix(hidden)))

    def adaptable(self):
        return [self.mix, self]
'''

SITE = """
name = "dovedale"
title = "Dovedale Cottage Hospital"
[data]
manifest = "aintree/manifest.csv"
[data.split]
seed = 5
val = 0.25
test = 0.25
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for package, name, text in (
        (strategies, "median_of_sites", STRATEGY),
        (client.tasks, "any_finding", TASK),
        (client.models, "coarse_pixels", MODEL),
    ):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        monkeypatch.setitem(sys.modules, f"{package.__name__}.{name}", None)
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}")
    return tmp_path


class Silent:
    def start(self, total: int) -> None: ...

    def step(self, what: str) -> None: ...


def test_one_new_file_each(added: Path, hospitals: Path, recipe_text) -> None:
    weights = added / "weights"
    weights.mkdir()
    torch.manual_seed(0)
    save_file(torch.nn.Linear(64, 12).state_dict(), weights / "model.safetensors")
    shutil.copytree(hospitals, added / "sites")
    (added / "sites" / "dovedale.toml").write_text(SITE)
    text = recipe_text(rule="median_of_sites", sha256=client.models.digest(weights))
    text = text.replace('name = "findings"', 'name = "any_finding"').replace(
        'rule = "median_of_sites"', 'rule = "median_of_sites"\ndamping = 0.5'
    )
    lines = [f'weights = "{weights}"\ncells = 8' if line.startswith("weights") else line for line in text.splitlines()]
    text = "\n".join(lines).replace('model = "vit"', 'model = "coarse_pixels"').replace("alpha = 4", 'alpha = 4\nmodules = "mix"')
    (added / "r.toml").write_text(text)
    run = Run(
        folder=added / "run", recipe=read_recipe(added / "r.toml"), recipe_folder=added, sites_folder=added / "sites", engine="inline"
    )
    document = simulate(run, cache=added / "cache", progress=Silent())
    assert document["strategy"] == "median_of_sites"
    assert document["rounds"][0]["log"] == {"sites": 4}
    assert document["task"] == "any_finding"
    assert document["outputs"] == ["any"]
    assert document["base"]["model"] == "coarse_pixels"
    assert "dovedale" in document["sites"]
    assert document["sites"]["dovedale"]["title"] == "Dovedale Cottage Hospital"
    assert 0 < document["sites"]["aintree"]["private"]["auroc"]["value"] <= 1
