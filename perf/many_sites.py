"""Many sites at one coordinator: whether rounds are whole, and what the coordinator takes.

    python -m perf.many_sites [--sites 50] [--rounds 3] [--mb 20] [--each 10] [--out runs/perf-many-sites]

Every site has its own keys, bundle, journal, offers and approval, its own node with its own TLS connections, and its answers go through the
egress door; `--each` sites share one process. In place of a fit stands an update of the adapter's size that is drawn. The coordinator
is `rainhill coordinator serve` with the SuperLink and the conductor that it starts. Exit code 1 where a round was not whole.
"""

import argparse
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perf._consortium import HUB, adapter, consortium, recipe
from perf._load import Load, coordinator_of, loads

LOOK_S = 0.2
RANK, WIDTH = 16, 2048


@dataclass(kw_only=True)
class Watch:
    """The last look at each process of a coordinator, and the most that all held at one time."""

    serve: int
    last: dict[int, tuple[str, Load]] = field(default_factory=dict)
    """By number: one that was started again is another."""
    database_bytes: int = 0

    def run(self, database: Path, stop: threading.Event) -> None:
        while not stop.wait(LOOK_S):
            pids = coordinator_of(self.serve)
            for name, load in loads(pids).items():
                self.last[pids[name]] = name, load
            files = database.parent.glob(database.name + "*")
            self.database_bytes = max(self.database_bytes, sum(file.stat().st_size for file in files if file.exists()))


@dataclass(frozen=True, kw_only=True)
class Found:
    sites: int
    adapter_bytes: int
    rounds: list[dict[str, Any]]
    watch: Watch
    seconds: float

    @property
    def whole(self) -> bool:
        return all(len(one["answered"]) == len(one["asked"]) == self.sites for one in self.rounds)


def measured(folder: Path, *, sites: int, rounds: int, layers: int, each: int) -> Found:
    shutil.rmtree(folder, ignore_errors=True)
    first = adapter(layers=layers, rank=RANK, width=WIDTH)
    stop = threading.Event()
    with consortium(folder, [f"site_{number:03d}" for number in range(1, sites + 1)]) as one:
        one.serve_coordinator()
        serve = one.processes.pid(HUB)
        assert serve is not None
        watch = Watch(serve=serve)
        watching = threading.Thread(target=watch.run, args=(one.home.link_database, stop), daemon=True)
        watching.start()
        one.serve_sites(each=each, fit_s=0.0)
        one.wait_for_contact()
        started = time.monotonic()
        one.offer(recipe(rounds=rounds, rank=RANK), first)
        done = one.wait_for_end()
        seconds = time.monotonic() - started
        stop.set()
        watching.join()
    return Found(sites=sites, adapter_bytes=first.nbytes, rounds=done, watch=watch, seconds=seconds)


def report(found: Found) -> str:
    lines = [f"{found.sites} sites, adapter of {found.adapter_bytes / 1e6:.1f} MB, {len(found.rounds)} rounds, {found.seconds:.0f} s"]
    for one in found.rounds:
        up, down = (sum(one[key].values()) / 1e6 for key in ("up_bytes", "down_bytes"))
        whole = f"{len(one['answered'])} of {len(one['asked'])} sites"
        lines.append(f"  round {one['round']}: {whole}, {one['seconds']:.1f} s, {down:.1f} MB down, {up:.1f} MB up")
    lines += ["", "| process | CPU seconds | peak memory, MiB |", "|---|---|---|"]
    for name, load in found.watch.last.values():
        lines.append(f"| {name} | {load.cpu_s:.1f} | {load.peak_bytes / 2**20:.0f} |")
    total = sum(load.cpu_s for _, load in found.watch.last.values()), sum(load.peak_bytes for _, load in found.watch.last.values())
    lines.append(f"| all | {total[0]:.1f} | {total[1] / 2**20:.0f} |")
    return "\n".join([*lines, "", f"flower.sqlite with its log, at most: {found.watch.database_bytes / 1e6:.0f} MB"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mb", type=float, default=20.0, help="of the adapter")
    parser.add_argument("--each", type=int, default=10, help="sites in one process")
    parser.add_argument("--out", type=Path, default=Path("runs/perf-many-sites"))
    options = parser.parse_args()
    # So that what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    layers = max(1, round(options.mb * 1e6 / (16 * RANK * WIDTH)))
    found = measured(options.out.absolute(), sites=options.sites, rounds=options.rounds, layers=layers, each=options.each)
    print(report(found))
    sys.exit(0 if found.whole else 1)


if __name__ == "__main__":
    main()
