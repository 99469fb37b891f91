"""Server time and memory of every rule, and FlexLoRA by QR-SVD against the dense SVD.

    python -m perf.strategies [--sites 2 10 100 1000] [--width 768] [--rank 8] [--layers 24] [--budget 120]

A merge is timed on one layer and multiplied by the number of layers: they are independent, and 24 of a thousand sites would not fit at
once. `peak` is what the merge itself allocated, by tracemalloc, beside n r d of the updates. A rule whose time for fewer sites says that it
would take longer than the budget is left out, and said so.
"""

import argparse
import logging
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

import strategies
from rainhill import plugins
from rainhill.adapter import Adapter, Pair
from rainhill.messages import Update
from rainhill.recipe import PartSection, StrategySection
from strategies import State, Strategy
from strategies._factors import balanced, svd

MODULE = "m"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", default=[2, 10, 100, 1000])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--budget", type=float, default=120.0, help="seconds for one layer")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    dense_against_qr(options.width, options.rank)
    print(f"\nd = {options.width}, r = {options.rank}: seconds for {options.layers} layers, and peak MiB of one over n r d of its updates")
    print(f"{'':<24}" + "".join(f"{f'n = {count}':>20}" for count in options.sites))
    for kind, package in (("rule", strategies), ("robust", strategies.robust)):
        for name in plugins.names(package):
            section = StrategySection(rule=name) if kind == "rule" else StrategySection(rule="flexlora", robust=PartSection(name=name))
            row(name if kind == "rule" else f"flexlora+{name}", strategies.from_section(section), options)


def row(name: str, strategy: Strategy, options: argparse.Namespace) -> None:
    cells, last = [], (0, 0.0)
    for count in options.sites:
        expected = last[1] * (count / last[0]) ** 2 if last[0] else 0.0
        if count < strategy.min_sites():
            cells.append(f"needs {strategy.min_sites()}")
        elif expected > options.budget:
            cells.append(f"over {options.budget:.0f} s a layer")
        else:
            seconds, peak = merge(strategy, count, width=options.width, rank=options.rank)
            last = (count, seconds)
            own = 2 * count * options.rank * options.width * 4
            cells.append(f"{seconds * options.layers:.2f} s {peak / own:6.1f}x")
    print(f"{name:<24}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


def merge(strategy: Strategy, count: int, *, width: int, rank: int) -> tuple[float, int]:
    """Seconds and peak bytes of one step of the second round, when B is no longer zero."""
    rng = np.random.default_rng(0)
    arrays = {f"{MODULE}.lora_A": rng.normal(size=(rank, width)), f"{MODULE}.lora_B": rng.normal(size=(width, rank))}
    adapter = strategy.first(Adapter({name: array.astype(np.float32) for name, array in arrays.items()}))
    state = strategy.init(adapter)
    updates = [update(strategy, adapter, state, f"s{number:04d}", rng) for number in range(count)]
    return measured(lambda: strategy.step(adapter, updates, state))


def update(strategy: Strategy, adapter: Adapter, state: State, site: str, rng: np.random.Generator) -> Update:
    sent = strategy.down(adapter, state, site)
    rule = strategy.local(sent, state, site)
    trained = Adapter(
        {name: array + 0.1 * rng.normal(size=array.shape).astype(np.float32) * rule.trains(name) for name, array in sent.items()}
    )
    delta = strategy.encode(sent, trained, rule, state.round + 1)
    return Update(run="", round=state.round + 1, site=site, delta=delta, patients=1, steps=1, loss=0.0)


def measured(work: Callable[[], object]) -> tuple[float, int]:
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    tracemalloc.start()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return seconds, peak


def dense_against_qr(width: int, rank: int) -> None:
    """n = 2: the mean product built and decomposed, against the QR of its stacks; the best of five of each."""
    rng = np.random.default_rng(0)
    pairs = [Pair(a=rng.normal(size=(rank, width)), b=rng.normal(size=(width, rank))) for _ in range(2)]

    def dense() -> Pair:
        u, spectrum, vt = np.linalg.svd(sum(0.5 * pair.product() for pair in pairs), full_matrices=False)
        return balanced(u, spectrum, vt, rank)

    def by_qr() -> Pair:
        return balanced(*svd(pairs, [0.5, 0.5]), rank)

    apart = float(np.max(np.abs(dense().product() - by_qr().product())))
    slow, fast = (min(timed(work) for _ in range(5)) for work in (dense, by_qr))
    print(f"FlexLoRA, {width} x {width}, r = {rank}, n = 2: ", end="")
    print(f"dense SVD {1e3 * slow:.1f} ms, QR-SVD {1e3 * fast:.2f} ms, ratio {slow / fast:.0f}")
    print(f"  the two products differ by at most {apart:.1e}")


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
