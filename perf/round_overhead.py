"""What a round costs beyond training, beside plain Flower: two sites on loopback, TLS, each known by its key.

    python -m perf.round_overhead [--rounds 30] [--fit 0] [--out runs/perf-round-overhead]

Ours: `rainhill coordinator serve` and two sites, each in a process of its own (`perf._consortium` says what is real). A round counts from
one round's checkpoint to the next one's, so with egress, merge, checkpoint, database and, once a minute, the questions how sites stand;
less the time of the slowest site's fit, as the site measured it. Flower: SuperLink, two SuperNodes and a ServerApp with FedAvg as they
come, but for rounds that train alone, without FedAvg's evaluation; a ClientApp sends one array of the same bytes back. A round counts
from one merge to the next, less the slowest ClientApp's own time in its function. The two take turns on the same machine. Printed
besides: what daemons take of a core while nothing runs.
"""

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perf import _plain_flower
from perf._consortium import HUB, RUN, adapter, consortium, recipe
from perf._load import coordinator_of, loads

NAMES = ("bury", "oldham")
LAYERS, RANK, WIDTH = 12, 8, 384
"""Of ViT-S/16."""
WARM_UP = 2
SETTLE_S, IDLE_S = 30.0, 60.0
"""Before what idle daemons take is measured, and for how long."""


def ours(folder: Path, *, rounds: int, fit_s: float) -> list[float]:
    """Seconds of each round beyond the slowest fit."""
    first = adapter(layers=LAYERS, rank=RANK, width=WIDTH)
    with consortium(folder, NAMES) as one:
        one.serve_coordinator()
        one.serve_sites(each=1, fit_s=fit_s)
        one.wait_for_contact()
        one.offer(recipe(rounds=rounds + WARM_UP, rank=RANK), first)
        one.wait_for_end()
        ends = [path.stat().st_mtime for path in sorted((one.home.runs / RUN).glob("round-*.safetensors"))]
        fits = one.fits()
    spans = np.diff(ends)
    return [float(span) - fits[number] for number, span in enumerate(spans, start=2)][WARM_UP - 1 :]


def idle(folder: Path) -> dict[str, float]:
    """Share of a core that each process takes which has nothing to do: the coordinator's, and a real hospital daemon."""
    with consortium(folder, NAMES) as one:
        one.serve_coordinator()
        for name in NAMES:
            one.processes.serve(name, "site", "serve", f"{name}.toml", cwd=one.site_file(name).parent)
        one.wait_for_contact()
        time.sleep(SETTLE_S)
        serve = one.processes.pid(HUB)
        assert serve is not None
        daemons = {f"site serve ({name})": one.processes.pid(name) or 0 for name in NAMES}
        pids = coordinator_of(serve) | daemons
        before, started = loads(pids), time.monotonic()
        time.sleep(IDLE_S)
        after, seconds = loads(pids), time.monotonic() - started
    return {name: (after[name].cpu_s - before[name].cpu_s) / seconds for name in after}


def told(name: str, seconds: Sequence[float]) -> str:
    return f"| {name} | {len(seconds)} | {np.median(seconds):.2f} | {np.percentile(seconds, 95):.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="after the warm-up")
    parser.add_argument("--fit", type=float, default=0.0, help="seconds that a fit takes beside the drawing of the update")
    parser.add_argument("--parts", type=int, default=2, help="in which the rounds of the two are run, in turn")
    parser.add_argument("--out", type=Path, default=Path("runs/perf-round-overhead"))
    options = parser.parse_args()
    # So that what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = options.out.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    size = adapter(layers=LAYERS, rank=RANK, width=WIDTH).nbytes
    print(f"adapter of {size / 1e6:.2f} MB, {len(NAMES)} sites, fits of {options.fit:g} s", flush=True)
    for name, share in idle(folder / "idle").items():
        print(f"idle: {name}: {100 * share:.2f} % of a core", flush=True)
    each = -(-options.rounds // options.parts)
    own: list[float] = []
    plain: list[float] = []
    for part in range(options.parts):
        own += ours(folder / f"ours-{part}", rounds=each, fit_s=options.fit)
        print(f"ours so far: {' '.join(f'{one:.2f}' for one in own)}", flush=True)
        plain += _plain_flower.rounds(folder / f"flower-{part}", rounds=each, warm_up=WARM_UP, size=size, fit_s=options.fit)
        print(f"Flower so far: {' '.join(f'{one:.2f}' for one in plain)}", flush=True)
    print("| a round beyond training, seconds | rounds | median | p95 |\n|---|---|---|---|")
    print(told("ours", own), told("Flower as it comes", plain), sep="\n")
    print(f"ratio of the medians: {np.median(own) / np.median(plain):.2f}")


if __name__ == "__main__":
    main()
