"""Several sites in one process: each with its own keys, books, egress door, node and TLS connection; a drawn update stands for the fit."""

import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import strategies
from client.desk import desk_of
from client.flower.line import Where
from client.home import SiteHome
from client.offers import Offers, opened
from rainhill import logs
from rainhill.adapter import Adapter
from rainhill.messages import Plan, Update
from rainhill.supervise import end_with_parent, stopped_by_signals

WHO = "ada"
APPROVE_S = 0.5
"""Between two looks for the offer that somebody at the site is to approve."""
SCALE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What stands for training: an update that is drawn, and the seconds that it took, kept in a file of the site's."""

    home: SiteHome
    fit_s: float
    out: Path

    def __call__(self, sealed: bytes, plan: Plan) -> Update:
        started = time.monotonic()
        recipe = opened(self.home, sealed).recipe
        shapes = strategies.from_recipe(recipe).uplink(plan.adapter, plan.rule)
        rng = np.random.default_rng([plan.round, *plan.site.encode()])
        delta = Adapter({name: SCALE * rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()})
        time.sleep(self.fit_s)
        update = Update(run=plan.run, round=plan.round, site=plan.site, delta=delta, patients=20, steps=recipe.rounds.steps, loss=0.5)
        line = json.dumps({"round": plan.round, "seconds": time.monotonic() - started})
        with (self.out / f"{plan.site}.jsonl").open("a") as file:
            file.write(line + "\n")
        return update


def serve(home: SiteHome, fit: Fit, stop: threading.Event, alone: threading.Lock) -> None:
    """As `client.serve` does, without metrics and without the training process. Sites of one process work one after the other."""
    from flwr.app import Message

    from client.flower.app import at_work
    from client.flower.live import live_app
    from client.flower.node import Node

    identity, bundle = home.identity(), home.bundle()
    desk = desk_of(home, fit, lambda *_: {})
    app = live_app(
        home.config.name,
        desk.answer,
        stand=desk.stand,
        exchange=desk.exchange,
        signing=identity.signing,
        consortium=bytes.fromhex(bundle.consortium_key),
    )
    where = Where(address=home.address, trusted=home.trusted(), key=identity.node)
    work = at_work(app)

    def one_by_one(message: Message) -> Message:
        with alone:
            return work(message)

    Node(where, one_by_one, stop=stop, memory=home.node).run()


def approve(homes: list[SiteHome], run: str, stop: threading.Event) -> None:
    """What a person at each site does, as soon as the offer is there."""
    waiting = list(homes)
    while waiting and not stop.wait(APPROVE_S):
        for home in list(waiting):
            offers = Offers.open(home)
            if run in offers.names():
                offers.approve(run, by=WHO)
                waiting.remove(home)


def main(about: str) -> None:
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    said = json.loads(about)
    logs.to_stderr(as_json=False)
    end_with_parent(int(said["parent"]))
    stop = stopped_by_signals()
    homes = [SiteHome.open(Path(file)) for file in said["files"]]
    fits = [Fit(home=home, fit_s=said["fit_s"], out=Path(said["out"])) for home in homes]
    alone = threading.Lock()
    threads = [threading.Thread(target=serve, args=(home, fit, stop, alone)) for home, fit in zip(homes, fits, strict=True)]
    for thread in threads:
        thread.start()
    approve(homes, said["run"], stop)
    stop.wait()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1])
