"""A coordinator works with what deploy/coordinator.txt names, and nothing else: no torch, no DICOM."""

import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rainhill.adapter import Adapter
from tests.server.conftest import free_port
from tests.sites.peers import COMMAND, run, until

ROOT = Path(__file__).parents[2]
OWN = {"rainhill", "strategies", "server", "client", "sites"}
# What the tests themselves bring into each process.
TESTS = {"coverage", "sitecustomize", "usercustomize", "_distutils_hack"}


def closure(requirements: list[str]) -> set[str]:
    """Canonical names of all distributions that would be installed."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(line) for line in requirements]
    while waiting:
        one = waiting.pop()
        for extra in {"", *one.extras}:
            key = (canonicalize_name(one.name), extra)
            if key in found:
                continue
            found.add(key)
            inner = [Requirement(line) for line in distribution(one.name).requires or []]
            waiting += [need for need in inner if need.marker is None or need.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which a process imports no more than the image holds."""
    lines = (ROOT / "deploy" / "coordinator.txt").read_text().splitlines()
    installed = closure([line for line in lines if not line.startswith("#")])
    tops = {top for top, names in packages_distributions().items() if installed & {canonicalize_name(name) for name in names}}
    folder = tmp_path_factory.mktemp("only")
    (folder / "sitecustomize.py").write_bytes((Path(__file__).parent / "only.py").read_bytes())
    return {"PYTHONPATH": str(folder), "RAINHILL_ONLY": ",".join(sorted(tops | OWN | TESTS))}


@pytest.fixture
def within(image: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in image.items():
        monkeypatch.setenv(name, value)


def test_the_image_holds_neither_torch_nor_dicom(within: None) -> None:
    for name in ("torch", "peft", "opacus", "pydicom", "monai", "transformers", "ray", "matplotlib"):
        done = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, text=True, timeout=60, check=False)
        assert "it is not in the image" in done.stderr, name


def test_all_that_the_coordinator_is_made_of_loads(within: None) -> None:
    program = (
        "import importlib, pkgutil, rainhill, server, strategies\n"
        "for house in (rainhill, strategies, server):\n"
        "    for found in pkgutil.walk_packages(house.__path__, house.__name__ + '.'):\n"
        "        if '.migrations.' not in found.name and not found.name.endswith('__main__'):\n"
        "            importlib.import_module(found.name)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_a_coordinator_is_begun_serves_and_offers_a_run(within: None, tmp_path: Path, recipe_text, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "serve" in run("coordinator", "--help", cwd=tmp_path).stdout
    ports = ("--port", free_port(), "--private-port", free_port(), "--metrics-port", "0")
    run("coordinator", "init", "north_west", "--host", "localhost", "--bind", "127.0.0.1", *ports, cwd=tmp_path)
    # The hospital's part is done where the rest is installed.
    (tmp_path / "bury.toml").write_text('name = "bury"\n')
    with monkeypatch.context() as outside:
        outside.delenv("PYTHONPATH")
        own = run("site", "init", "bury.toml", cwd=tmp_path).stdout.splitlines()[-1]
    run("coordinator", "enrol", "bury.request", "--fingerprint", own, cwd=tmp_path)
    run("coordinator", "bundle", "bury", cwd=tmp_path)
    (tmp_path / "tiny.toml").write_text(recipe_text().replace("alpha = 4\n", 'alpha = 4\nhead = "frozen"\n', 1))
    first = Adapter({"x.q_proj.lora_A": np.ones((2, 16), np.float32), "x.q_proj.lora_B": np.zeros((16, 2), np.float32)})
    (tmp_path / "first.safetensors").write_bytes(first.to_bytes())
    run("coordinator", "run", "tiny.toml", "--adapter", "first.safetensors", "--name", "spring", cwd=tmp_path)

    with (tmp_path / "log").open("w") as log:
        serving = subprocess.Popen([COMMAND, "coordinator", "serve"], stdout=log, stderr=log, env=dict(os.environ))

    def says(words: str) -> bool:
        return words in (tmp_path / "log").read_text()

    def contact() -> object:
        (one,) = json.loads(run("coordinator", "sites", "--json", cwd=tmp_path).stdout)
        return one["contact"]

    try:
        assert until(lambda: says("SuperLink: sites at") and says("run spring runs as process"), within_s=180)
        assert until(lambda: contact() == "away", within_s=180), (tmp_path / "log").read_text()
        assert run("coordinator", "status", "spring", cwd=tmp_path).stdout.startswith("spring: offered")
        # Neither it nor what conducts the run had to be started again.
        assert not says(" ended ("), (tmp_path / "log").read_text()
    finally:
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(60) == 0
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said and not re.search("not in the image", said), said
