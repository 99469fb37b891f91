"""A coordinator and many sites, enrolled and joined as their people would, for measurements of what lies between fits.

What is real: the coordinator's daemon and all it starts, TLS, both keys of each site, requests and bundles, offers, approvals, the site's
books, its egress door and its node. What is left out: films, the training process and with it torch, and the privacy ledger; in place of a
fit stands an update that is drawn (`perf._many`).
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from client import home as site_home
from client.home import SiteHome
from rainhill.adapter import Adapter
from rainhill.enrolment import opened_request
from rainhill.recipe import Recipe
from rainhill.supervise import how_it_ended
from server import home as hub_home
from server.asking import new_offer
from server.database import Database
from server.flower.link import connected
from server.home import Home
from server.pack import pack
from server.registry import Registry
from server.runs import Runs
from server.serve import LEAN, link_of
from sites.processes import Processes
from sites.rehearsal import free_ports

RUN, WHO = "measured", "ada"
HUB = "hub"
FINDINGS = ("effusion", "cardiomegaly")
BASE = "6cc7715530faabeae8e723c8331dba8f3fabad62442abd7ea7c3ce5322b775db"
PATIENTS = 40
LOOK_S = 0.5
WITHIN_S, CONTACT_S = 3600.0, 300.0


@dataclass(kw_only=True)
class Consortium:
    folder: Path
    home: Home
    names: Sequence[str]
    processes: Processes
    _sites: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def database(self) -> Database:
        return Database.open(self.home.database_url)

    def site_file(self, name: str) -> Path:
        return self.folder / "sites" / name / f"{name}.toml"

    def serve_coordinator(self) -> None:
        self.processes.serve(HUB, "coordinator", "serve", cwd=self.folder)

    def serve_sites(self, *, each: int, fit_s: float) -> None:
        """Processes that hold `each` sites, whose fits take `fit_s` seconds beside the drawing of the update."""
        files = [str(self.site_file(name)) for name in self.names]
        for start in range(0, len(files), each):
            about = json.dumps(
                {
                    "files": files[start : start + each],
                    "run": RUN,
                    "fit_s": fit_s,
                    "out": str(self.folder / "fits"),
                    "parent": os.getpid(),
                }
            )
            with (self.folder / f"sites-{start:03d}.log").open("w") as log:
                command = [sys.executable, "-m", "perf._many", about]
                self._sites.append(subprocess.Popen(command, stderr=log, stdout=log, env={**os.environ, **LEAN}))

    def stop_sites(self) -> None:
        for process in self._sites:
            process.terminate()
        for process in self._sites:
            process.wait(60)
        self._sites.clear()

    def offer(self, recipe: Recipe, first: Adapter) -> None:
        registry = Registry(database=self.database)
        offered, sealed = new_offer(self.home, registry, recipe, adapter=first, run=RUN, sites=self.names, days=1, by=WHO)
        Runs(database=registry.database).offer(offered, sealed, by=WHO)

    def wait_for_contact(self) -> None:
        """Until all sites are there."""
        keys = {name: site.node_key.encode() for name, site in Registry(database=self.database).active().items()}
        stop = time.monotonic() + CONTACT_S
        while time.monotonic() < stop:
            self._raise_where_ended()
            try:
                if all(connected(link_of(self.home), keys).values()):
                    return
            except (httpx.HTTPError, OSError):
                # The SuperLink has not begun.
                pass
            time.sleep(LOOK_S)
        raise TimeoutError(f"{len(keys)} sites: not all in contact within {CONTACT_S:g} s")

    def _raise_where_ended(self) -> None:
        for process in self._sites:
            if process.poll() is not None:
                raise RuntimeError(f"a process of sites has ended ({how_it_ended(process.returncode)}): {self.folder}/sites-*.log tell why")

    def wait_for_end(self) -> list[dict[str, Any]]:
        """The rounds of the run, as `rainhill coordinator status` has them."""
        runs, stop = Runs(database=self.database), time.monotonic() + WITHIN_S
        while runs.run(RUN).state not in ("finished", "failed") and time.monotonic() < stop:
            self._raise_where_ended()
            time.sleep(LOOK_S)
        state = runs.run(RUN)
        if state.state != "finished":
            raise RuntimeError(f"the run has {state.state}: {state.words}")
        document = json.loads(self.processes.run("coordinator", "status", RUN, "--json", cwd=self.folder))
        return list(document["rounds"])

    def fits(self) -> dict[int, float]:
        """Round -> seconds that the slowest site's fit took, as the site measured it."""
        slowest: dict[int, float] = {}
        for path in (self.folder / "fits").glob("*.jsonl"):
            for line in path.read_text().splitlines():
                one = json.loads(line)
                slowest[one["round"]] = max(slowest.get(one["round"], 0.0), one["seconds"])
        return slowest


@contextmanager
def consortium(folder: Path, names: Sequence[str]) -> Iterator[Consortium]:
    """Enrolled and joined, with nothing running yet; what runs at the end of the block is stopped."""
    folder.mkdir(parents=True)
    (folder / "fits").mkdir()
    public, private = free_ports(2)
    address = {"host": "localhost", "bind": "127.0.0.1", "port": public, "private_port": private}
    home = hub_home.begin(folder / "coordinator", {"name": "north_west", "address": address, "metrics": {"port": 0}})
    registry = Registry(database=Database.open(home.database_url))
    for name in names:
        _write_site(folder / "sites" / name, name)
        request = site_home.begin(SiteHome.open(folder / "sites" / name / f"{name}.toml"))
        registry.enrol(opened_request(request), by=WHO)
    for name in names:
        bundle = pack(home, registry, name, out=folder / f"{name}.bundle", days=1, by=WHO)
        site_home.join(SiteHome.open(folder / "sites" / name / f"{name}.toml"), bundle, expect=home.fingerprint)
    registry.database.close()
    with Processes(stop=threading.Event(), environment={"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}) as processes:
        one = Consortium(folder=folder, home=home, names=names, processes=processes)
        try:
            yield one
        finally:
            one.stop_sites()


def _write_site(folder: Path, name: str) -> None:
    """A site file with a manifest, whose images have to be there and are not looked into."""
    folder.mkdir(parents=True)
    for number in range(PATIENTS):
        (folder / f"{number}.png").touch()
    rows = [f"P{number},{number}.png,{number % 2},{number // 2 % 2}" for number in range(PATIENTS)]
    (folder / "manifest.csv").write_text("\n".join([f"patient,image,{','.join(FINDINGS)}", *rows]) + "\n")
    (folder / f"{name}.toml").write_text(f'name = "{name}"\ntitle = "{name}"\n[data]\nmanifest = "manifest.csv"\n')


def recipe(*, rounds: int, rank: int) -> Recipe:
    about = {
        "name": "measured",
        "task": {"name": "findings", "findings": list(FINDINGS)},
        "base": {"model": "vit", "weights": "embedded:thorax_tiny", "sha256": BASE},
        "lora": {"rank": rank, "alpha": 2 * rank, "head": "frozen"},
        "strategy": {"rule": "fedavg"},
        "rounds": {"count": rounds, "steps": 1, "deadline_s": WITHIN_S},
        "private": {"steps": 1},
    }
    return Recipe.model_validate(about)


def adapter(*, layers: int, rank: int, width: int) -> Adapter:
    """LoRA on q and v of every layer: 16 * layers * rank * width bytes."""
    rng = np.random.default_rng(0)
    arrays = {}
    for module in (f"layer.{layer}.{part}_proj" for layer in range(layers) for part in "qv"):
        arrays[f"{module}.lora_A"] = rng.standard_normal((rank, width), dtype=np.float32)
        arrays[f"{module}.lora_B"] = np.zeros((width, rank), np.float32)
    return Adapter(arrays)
