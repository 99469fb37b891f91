from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sites import peers
from tests.sites.peers import Done

Simulate = Callable[..., Done]


@pytest.fixture(scope="session")
def simulate() -> Simulate:
    """`rainhill simulate` in a folder, in this process, where what takes a command seconds to load is there already.

    Runs that are killed or interrupted are processes of their own.
    """

    def run(*arguments: object, cwd: Path, apart: bool = False) -> Done:
        """`apart`: as a process of its own."""
        variables = {"RAINHILL_CACHE": str(cwd / "cache"), "COLUMNS": "160"}
        return (peers.apart if apart else peers.here)("simulate", *map(str, arguments), cwd=cwd, variables=variables)

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
