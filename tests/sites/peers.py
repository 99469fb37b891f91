"""A coordinator and phantom hospitals, each in a folder of its own, worked by the commands that people type."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import MappingProxyType

import pytest

from rainhill.cli import main
from tests.server.conftest import free_port

COMMAND = str(Path(sys.executable).parent / "rainhill")
Done = subprocess.CompletedProcess[str]


def here(*arguments: str, cwd: Path, variables: Mapping[str, str] = MappingProxyType({}), text: str = "") -> Done:
    """`rainhill ARGUMENTS` in a folder, in this process, where what takes a command its time to load is there already."""
    command, printed, said, code = ["rainhill", *arguments], StringIO(), StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(said):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", command)
        patch.setattr(sys, "stdin", StringIO(text))
        for name, value in variables.items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Done(command, code, printed.getvalue(), said.getvalue())


def apart(*arguments: str, cwd: Path, variables: Mapping[str, str] = MappingProxyType({}), text: str = "") -> Done:
    """The same as a process of its own."""
    environment = {**os.environ, **variables}
    return subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, cwd=cwd, env=environment, input=text, timeout=400, check=False
    )


def run(*arguments: object, cwd: Path, code: int = 0, text: str = "") -> Done:
    # A daemon has threads and signals of its own, also one that does not come far.
    done = (apart if "serve" in arguments else here)(*map(str, arguments), cwd=cwd, text=text)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def until(condition: Callable[[], bool], within_s: float = 60.0) -> bool:
    stop = time.monotonic() + within_s
    while not condition() and time.monotonic() < stop:
        time.sleep(0.3)
    return condition()


class Consortium:
    """Files are carried between the folders by hand, as people do."""

    def __init__(self, folder: Path, sites: Sequence[str]) -> None:
        self.hub, self.sites = folder / "hub", list(sites)
        self.folders = {site: folder / site for site in sites}
        self.hub.mkdir(parents=True)
        self.ports = free_port(), free_port()
        self.metrics_port = 0
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.fingerprint = ""

    def coordinator(self, *arguments: object, **how: object) -> Done:
        return run("coordinator", *arguments, cwd=self.hub, **how)  # type: ignore[arg-type]

    def site(self, site: str, command: str, *arguments: object, **how: object) -> Done:
        return run("site", command, f"{site}.toml", *arguments, cwd=self.folders[site], **how)  # type: ignore[arg-type]

    def begin(self, *options: object) -> None:
        address = (
            "--host",
            "localhost",
            "--bind",
            "127.0.0.1",
            "--port",
            self.ports[0],
            "--private-port",
            self.ports[1],
            "--metrics-port",
            self.metrics_port,
            *options,
        )
        said = self.coordinator("init", "north_west", *address).stdout
        found = re.search(r"Its key is ((?:[0-9a-f]{4}-){7}[0-9a-f]{4})", said)
        assert found is not None
        self.fingerprint = found[1]

    def join(self, site: str) -> None:
        """From a site file to a site that may serve."""
        own = self.site(site, "init").stdout.splitlines()[-1]
        (self.hub / f"{site}.request").write_bytes((self.folders[site] / f"{site}.request").read_bytes())
        self.coordinator("enrol", f"{site}.request", "--fingerprint", own)
        self.coordinator("bundle", site)
        (self.folders[site] / f"{site}.bundle").write_bytes((self.hub / f"{site}.bundle").read_bytes())
        self.site(site, "join", f"{site}.bundle", "--fingerprint", self.fingerprint)

    def serve(self, *names: str, **variables: str) -> None:
        """The coordinator by the name `hub`, a site by its own; `variables` are of their environment."""
        for name in names:
            cwd = self.hub if name == "hub" else self.folders[name]
            what = ["coordinator", "serve"] if name == "hub" else ["site", "serve", f"{name}.toml"]
            with (cwd / "serve.log").open("a") as log:
                # Threads that share two cores with others' waste them.
                environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
                self.running[name] = subprocess.Popen([COMMAND, *what], cwd=cwd, stdout=log, stderr=log, env=environment)

    def log(self) -> str:
        return "".join(f"--- {path}\n{path.read_text()}" for path in sorted(self.hub.parent.glob("*/serve.log")))

    def status(self, name: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.coordinator("status", name, "--json").stdout)
        return found

    def stop(self, *names: str) -> None:
        for name in names:
            process = self.running.pop(name)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, self.log()

    def end(self) -> None:
        for process in reversed(list(self.running.values())):
            process.kill()
            process.wait()
