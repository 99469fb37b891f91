"""A small world for tests: a tiny ViT, and hospitals of a few dozen films whose finding is a bright square."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from client.workbench import Bench, open_bench
from rainhill.recipe import Recipe, read_recipe
from sites.bench import SiteData, open_site
from sites.consortium import read_sites

SIZE = 32

# A law that fails must fail for whoever changed the code, not by chance for the next one: the same examples each time, and new ones
# on request, with `make explore`.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None)
settings.load_profile("same")


LONG = ("test_namespaces.py", "test_bad_days.py", "test_rehearsal.py", "test_first_30_minutes.py", "test_traffic.py", "test_engines.py")
"""Files that take a minute or more: begun first, so that no worker has one left when the other is done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many laws of the strategies were put to the test; a test that ran over several examples counts once."""
    told = {kind: [one for one in terminalreporter.getreports(kind) if "tests/strategies/" in one.nodeid] for kind in ("passed", "failed")}
    if told["passed"] or told["failed"]:
        terminalreporter.write_line(f"laws of the strategies: {len(told['passed'])} hold, {len(told['failed'])} do not")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of two layers with random weights that knows `square` and `stripe`, saved as transformers saves it."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base") / "tiny"
    settings = ViTConfig(
        image_size=SIZE,
        patch_size=8,
        num_channels=1,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        id2label={0: "square", 1: "stripe"},
        label2id={"square": 0, "stripe": 1},
        problem_type="multi_label_classification",
    )
    ViTForImageClassification(settings).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_digest(tiny_base: Path) -> str:
    from client.models import digest

    return digest(tiny_base)


def write_hospital(folder: Path, name: str, *, patients: int = 40, seed: int = 0, gain: float = 1.0) -> Path:
    """PNG films with a manifest and a site file; the square is brighter than the noise, by the hospital's own gain."""
    rng = np.random.default_rng([seed, *name.encode()])
    images = folder / name
    images.mkdir(parents=True)
    rows = ["patient,image,square,stripe"]
    for patient in range(patients):
        square, stripe = patient % 2, int(rng.random() < 0.5)
        for film in range(1 + patient % 2):
            pixels = rng.normal(90, 20, (SIZE, SIZE))
            if square:
                row, column = rng.integers(4, 16, 2)
                pixels[row : row + 10, column : column + 10] += 90 * gain
            if stripe:
                pixels[:, rng.integers(2, 28)] += 60
            file = f"{patient}-{film}.png"
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(images / file)
            rows.append(f"P{patient},{file},{square},{stripe}")
    (images / "manifest.csv").write_text("\n".join(rows) + "\n")
    path = folder / f"{name}.toml"
    path.write_text(
        f'name = "{name}"\ntitle = "{name.capitalize()} General"\n[data]\nmanifest = "{name}/manifest.csv"\n[data.split]\nval = 0.2\ntest = 0.3\n'
    )
    return path


@pytest.fixture(scope="session")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three site files and their films."""
    folder = tmp_path_factory.mktemp("hospitals")
    for number, name in enumerate(("aintree", "broadgreen", "calder")):
        write_hospital(folder, name, patients=40 - 4 * number, gain=1 - 0.2 * number)
    return folder


RecipeText = Callable[..., str]


@pytest.fixture(scope="session")
def recipe_text(tiny_base: Path, tiny_digest: str) -> RecipeText:
    """The text of a recipe for the small world; keywords replace single lines."""

    def text(
        *, rule: str = "fedavg", rounds: int = 2, findings: str = '["square", "stripe"]', sha256: str = tiny_digest, extra: str = ""
    ) -> str:
        return f"""
name = "tiny"
title = "A small world"
{extra}
[task]
name = "findings"
findings = {findings}
[base]
model = "vit"
weights = "{tiny_base}"
sha256 = "{sha256}"
[lora]
rank = 2
alpha = 4
[strategy]
rule = "{rule}"
[rounds]
count = {rounds}
steps = 4
patients_per_step = 8
learning_rate = 5e-3
[private]
steps = 5
patients_per_step = 8
learning_rate = 5e-3
rank = 2
[evaluation]
bootstraps = 100
min_positives = 2
"""

    return text


@pytest.fixture
def recipe_file(tmp_path: Path, recipe_text: RecipeText) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(recipe_text())
    return path


@pytest.fixture
def recipe(recipe_file: Path) -> Recipe:
    return read_recipe(recipe_file)


@pytest.fixture
def bench(recipe: Recipe, tmp_path: Path) -> Bench:
    return open_bench(recipe, tmp_path)


@pytest.fixture
def site(bench: Bench, hospitals: Path, tmp_path: Path) -> SiteData:
    return open_site(bench, read_sites(hospitals)["aintree"], tmp_path / "cache")
