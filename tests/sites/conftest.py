import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = str(Path(sys.executable).parent / "rainhill")

Simulate = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def simulate() -> Simulate:
    """`rainhill simulate` as a process of its own, in a folder."""

    def run(*arguments: object, cwd: Path, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, "simulate", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "RAINHILL_CACHE": str(cwd / "cache"), "COLUMNS": "160"},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, hospitals: Path, recipe_text: Callable[..., str], simulate: Simulate) -> Path:
    """The folder of a run of three hospitals, two rounds."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(recipe_text())
    run = simulate("tiny.toml", "--sites", hospitals, "--out", "run", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert "Aintree General" in run.stdout
    assert str(Path("run") / "report.html") in run.stdout
    return folder / "run"
