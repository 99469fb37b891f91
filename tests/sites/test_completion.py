"""Completion in a real shell, by the script that the command prints."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from server.database import Database
from server.home import begin
from server.registry import Registry
from server.runs import Runs
from tests.server.conftest import free_port
from tests.server.offers import enrol, offer, sealed
from tests.sites.peers import COMMAND, run

PATH = {**os.environ, "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an operator with two runs, and of a hospital that was asked for one, and holds an update of another."""
    folder = tmp_path_factory.mktemp("typed")
    address = {"host": "localhost", "bind": "127.0.0.1", "port": free_port(), "private_port": free_port()}
    begin(folder / "coordinator", {"name": "north_west", "address": address})
    database = Database.open(f"sqlite:///{folder / 'coordinator' / 'rainhill.sqlite'}")
    registry, runs = Registry(database=database), Runs(database=database)
    enrol(registry, "bury", "oldham")
    for name in ("spring-1", "summer"):
        made = offer(name)
        runs.offer(made, sealed(made), by="ada")
    registry.revoke("oldham", reason="left", by="ada")
    database.close()
    (folder / "bury.toml").write_text('name = "bury"\nstate = "kept"\n')
    for name in ("offers/spring-1.offer", "offers/autumn.offer", "held/autumn.round-000002.0123456789abcdef.safetensors"):
        (folder / "kept" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "kept" / name).touch()
    return folder


def completed(folder: Path, *typed: str) -> list[str]:
    """What bash offers for the last of these words."""
    words = " ".join(f"'{word}'" for word in ("rainhill", *typed))
    script = (
        'eval "$(rainhill completion bash)"; '
        f"COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _rainhill_completion rainhill; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "--norc", "-c", script], cwd=folder, env=PATH, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (("co",), ["completion", "coordinator"]),
        (("coordinator", "st"), ["status", "stop"]),
        (("coordinator", "status", ""), ["summer", "spring-1"]),
        (("coordinator", "watch", "sp"), ["spring-1"]),
        (("coordinator", "--home", "elsewhere", "status", ""), []),
        (("coordinator", "revoke", ""), ["bury"]),
        (("coordinator", "run", "--site", "b"), ["bury"]),
        (("site", "approve", "bury.toml", ""), ["autumn", "spring-1"]),
        (("site", "release", "bury.toml", ""), ["autumn"]),
        (("site", "approve", "nowhere.toml", ""), []),
        (("completion", "f"), ["fish"]),
        (("nonsense", "x"), []),
        (("coordinator", "status", "--js"), ["--json"]),
    ],
)
def test_bash_completes_commands_options_runs_and_sites(folder: Path, typed: tuple[str, ...], offered: list[str]) -> None:
    assert sorted(completed(folder, *typed)) == sorted(offered)


def test_a_name_is_completed_without_loading_what_the_commands_load(folder: Path) -> None:
    words = {"_RAINHILL_COMPLETE": "bash_complete", "COMP_WORDS": "rainhill coordinator status s", "COMP_CWORD": "3"}
    loaded = subprocess.run(
        [Path(COMMAND).parent / "python", "-X", "importtime", COMMAND],
        cwd=folder,
        env=PATH | words,
        capture_output=True,
        text=True,
        check=True,
    )
    modules = {line.rpartition("|")[2].strip() for line in loaded.stderr.splitlines()}
    assert {"click", "server._names"} <= modules
    assert not modules & {"torch", "flwr", "numpy", "pydantic", "sqlalchemy"}
    assert sorted(loaded.stdout.splitlines()) == ["plain,spring-1", "plain,summer"]


@pytest.mark.parametrize(
    ("shell", "begins"), [("bash", "_rainhill_completion()"), ("zsh", "#compdef rainhill"), ("fish", "function _rain")]
)
def test_each_shell_has_its_script_and_takes_it(tmp_path: Path, shell: str, begins: str) -> None:
    script = run("completion", shell, cwd=tmp_path).stdout
    assert script.startswith(begins)
    if shutil.which(shell) is not None:
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", "script"], cwd=tmp_path, check=True)
    assert "Invalid value for 'bash|zsh|fish'" in run("completion", "csh", cwd=tmp_path, code=2).stderr
