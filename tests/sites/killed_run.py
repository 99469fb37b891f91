"""A federated private run with real keys that its parent kills, again and again; run by test_private.py, one argument: a folder.

Each child is a fork of this process, with everything imported: it goes on with the run from where the last one was killed.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from client.privacy import charging
from client.privacy.charging import Granted
from client.privacy.ledger import Ledger
from client.privacy.randomness import commitment
from client.training.answer import answer
from client.training.mechanism import Mechanism
from client.training.memory import Memory
from client.workbench import first_adapter, open_bench
from rainhill.messages import Plan, Refusal, SiteId, Update
from rainhill.recipe import read_recipe
from sites import arms
from sites.bench import open_site
from sites.consortium import read_sites
from sites.guards import guard_of

KILLS = 30


def main(folder: Path) -> None:
    recipe = read_recipe(folder / "private.toml")
    bench = open_bench(recipe, folder)
    data = {name: open_site(bench, site, folder / "cache") for name, site in read_sites(folder / "hospitals").items()}
    first = first_adapter(bench)
    taken = os.open(folder / "taken", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    current = ""
    charge, fill = charging.charge, Mechanism.fill

    def charged(*arguments: Any) -> Granted:
        nonlocal current
        granted = charge(*arguments)
        current = commitment(granted.key)
        return granted

    def counted(self: Mechanism, *arguments: Any) -> float | None:
        # Written before the step: one that was cut off counts as taken.
        os.write(taken, f"{current} {os.getpid()}\n".encode())
        return fill(self, *arguments)

    charging.charge, Mechanism.fill = charged, counted

    def collect(plans: Mapping[SiteId, Plan]) -> Iterable[Update | Refusal]:
        for site, plan in plans.items():
            own = folder / "state" / site
            guard = guard_of(bench, site, data[site], own)
            assert guard is not None
            yield answer(
                plan,
                recipe=recipe,
                strategy=bench.strategy,
                net=bench.net,
                task=bench.task,
                data=data[site],
                memory=Memory(own),
                guard=replace(guard, seed=None),
            )

    def run() -> None:
        arms.train_shared(bench, first, sites=list(data), collect=collect, folder=folder / "run", on_round=lambda *_: None)

    draw = random.Random(0)
    killed = 0
    while killed < KILLS:
        pid = os.fork()
        if pid == 0:
            run()
            os._exit(0)
        time.sleep(draw.uniform(0.0, 0.25))
        os.kill(pid, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    run()
    for site in data:
        Ledger.open(folder / "state" / site, site=site).verify()
    print(killed, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
