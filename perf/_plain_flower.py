"""Plain Flower as its documentation starts it: SuperLink, two SuperNodes with keys, `flwr run`, FedAvg, all intervals its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from client.identity import NODE, new_identity
from server.home import begin
from sites.rehearsal import free_ports

PROGRAMS = Path(sys.executable).parent
STARTED_S = 120.0
WITHIN_S = 3600.0
PROJECT = """[project]
name = "plain"
version = "1.0.0"
description = "FedAvg over one array"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41.0,<2.0"]

[tool.flwr.app]
publisher = "plain"
fab-format-version = 1
flwr-version-target = "1.41.0"

[tool.flwr.app.components]
serverapp = "plain.server:app"
clientapp = "plain.client:app"

[tool.flwr.app.config]
rounds = 3
size = 1000
fit = 0.0
out = ""
"""
SERVER = """import json
import time

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):
    out = ""

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        merged = super().aggregate_train(server_round, replies)
        fits = [reply.content["metrics"]["fit"] for reply in replies if reply.has_content()]
        with open(self.out, "a") as file:
            file.write(json.dumps({"round": server_round, "time": time.time(), "fits": fits}) + chr(10))
        return merged


@app.main()
def main(grid: Grid, context: Context) -> None:
    said = context.run_config
    strategy = Timed(fraction_evaluate=0.0)
    strategy.out = said["out"]
    arrays = ArrayRecord([np.zeros(said["size"] // 4, np.float32)])
    strategy.start(grid, arrays, num_rounds=said["rounds"])
"""
CLIENT = """import time

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    started = time.monotonic()
    (array,) = message.content["arrays"].to_numpy_ndarrays()
    moved = array + 1e-3 * np.random.default_rng().standard_normal(array.shape, dtype=np.float32)
    time.sleep(context.run_config["fit"])
    metrics = MetricRecord({"num-examples": 20, "fit": time.monotonic() - started})
    return Message(RecordDict({"arrays": ArrayRecord([moved]), "metrics": metrics}), reply_to=message)
"""


@dataclass(kw_only=True)
class Federation:
    folder: Path
    ports: list[int]
    environment: Mapping[str, str]
    running: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def start(self, name: str, *command: object) -> None:
        # A home of its own for each, as on machines of their own.
        environment = {**self.environment, "FLWR_HOME": str(self.folder / f"{name}-home")}
        with (self.folder / f"{name}.log").open("w") as log:
            self.running.append(subprocess.Popen([str(one) for one in command], stdout=log, stderr=log, env=environment))

    def flwr(self, *command: object) -> str:
        environment = {**self.environment, "FLWR_HOME": str(self.folder / "operator")}
        done = subprocess.run(
            [str(PROGRAMS / "flwr"), *map(str, command)], env=environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"flwr {' '.join(map(str, command))}: {done.stdout}{done.stderr}")
        return done.stdout


def rounds(folder: Path, *, rounds: int, warm_up: int, size: int, fit_s: float) -> list[float]:
    """Seconds of each round beyond the slowest ClientApp's own, after the warm-up."""
    out = folder / "rounds.jsonl"
    with federation(folder) as one:
        _write_app(folder / "app")
        config = f'rounds={rounds + warm_up} size={size} fit={fit_s} out="{out}"'
        one.flwr("run", folder / "app", "lab", "--run-config", config)
        stop = time.monotonic() + WITHIN_S
        while len(_lines(out)) < rounds + warm_up:
            if time.monotonic() > stop:
                raise TimeoutError(f"{len(_lines(out))} of {rounds + warm_up} rounds within {WITHIN_S:g} s; {folder} has the logs")
            time.sleep(0.5)
    done = _lines(out)
    spans = np.diff([one["time"] for one in done])
    return [float(span) - max(one["fits"]) for span, one in zip(spans, done[1:], strict=True)][warm_up - 1 :]


@contextmanager
def federation(folder: Path) -> Iterator[Federation]:
    folder.mkdir(parents=True)
    public, first, second = free_ports(3)
    address = {"host": "localhost", "bind": "127.0.0.1", "port": public, "private_port": first}
    tls = begin(folder / "tls", {"name": "plain", "address": address}).tls
    environment = {
        **os.environ,
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "OMP_NUM_THREADS": "1",
    }
    one = Federation(folder=folder, ports=[public, first, second], environment=environment)
    try:
        _start(one, tls)
        yield one
    finally:
        for process in reversed(one.running):
            process.terminate()
        for process in reversed(one.running):
            process.wait(60)


def _start(one: Federation, tls: Path) -> None:
    public, *own = one.ports
    certificates = ["--ssl-ca-certfile", tls / "ca.crt", "--ssl-certfile", tls / "server.crt", "--ssl-keyfile", tls / "server.key"]
    link = ["--host", "127.0.0.1", "--port", public, "--enable-supernode-auth", "--database", one.folder / "flower.sqlite"]
    one.start("superlink", PROGRAMS / "flower-superlink", *certificates, *link)
    (one.folder / "operator").mkdir()
    lab = f'[superlink]\ndefault = "lab"\n\n[superlink.lab]\naddress = "localhost:{public}"\nroot-certificates = "{tls / "ca.crt"}"\n'
    (one.folder / "operator" / "config.toml").write_text(lab)
    for name, port in zip(("bury", "oldham"), own, strict=True):
        identity = new_identity()
        identity.keep(one.folder / name)
        key = identity.node.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        (one.folder / f"{name}.pub").write_bytes(key + b"\n")
        _registered(one, name)
        where = ["--root-certificates", tls / "ca.crt", "--superlink", f"localhost:{public}", "--host", "127.0.0.1", "--port", port]
        one.start(name, PROGRAMS / "flower-supernode", *where, "--auth-supernode-private-key", one.folder / name / NODE)


def _registered(one: Federation, name: str) -> None:
    """Tried until the SuperLink has begun."""
    stop = time.monotonic() + STARTED_S
    while True:
        try:
            one.flwr("supernode", "register", one.folder / f"{name}.pub", "lab")
            return
        except RuntimeError:
            if time.monotonic() > stop:
                raise
            time.sleep(1)


def _write_app(folder: Path) -> None:
    (folder / "plain").mkdir(parents=True)
    files = {
        "pyproject.toml": PROJECT,
        "LICENSE": "Apache-2.0\n",
        "plain/__init__.py": "",
        "plain/server.py": SERVER,
        "plain/client.py": CLIENT,
    }
    for name, text in files.items():
        (folder / name).write_text(text)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
