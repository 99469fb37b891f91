"""Malformed messages at every reader of bytes from outside: each has to be refused, in words of Rainhill's own errors.

    python -m perf.malformed [--count 10000] [--seed 0]

A message counts as refused where a RainhillError is raised, and as accepted where it is read as anything but the message that it was made
from. It counts as crashed where any other error is raised, a warning among them, or where the reader took more than 5 seconds, or more
memory than so many times the message's size: 64, and 1,100 for answers, whose largest entries may stand for a whole tensor; besides
8 MiB, whatever the size. What still says the same is not counted. Flipped bits may make another message that is as well formed as the
first; where no signature covers it, no reader can tell: these stand in a column of their own. Exits with 1 if any was accepted or crashed.
"""

import argparse
import signal
import tempfile
import tracemalloc
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from perf._readers import Reader, every_reader
from rainhill.errors import RainhillError
from rainhill.text import shown

Outcome = Literal["refused", "accepted", "crashed", "another", "same"]
ALLOWED = 2**23
"""Bytes that a reader may take whatever the message's size."""
WITHIN_S = 5
TRIES = 100
"""To spoil a message in a way that not every message can be spoilt in."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    reader: str
    kind: str
    outcome: Outcome
    words: str
    """Of the error, or what was read."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    trials = run(options.count, options.seed)
    print(table(trials))
    bad = [trial for trial in trials if trial.outcome in ("accepted", "crashed")]
    for trial in bad[:50]:
        print(f"{trial.outcome}: {trial.reader}, {trial.kind}: {trial.words}")
    return 1 if bad else 0


def run(count: int, seed: int) -> list[Trial]:
    """So many malformed messages, dealt evenly over readers and kinds; the same seed gives the same ones, but for fresh keys and masks."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # A warning of numpy is a value that nobody looked at.
        warnings.simplefilter("error")
        pairs = [(reader, kind) for reader in every_reader(Path(folder)) for kind in reader.kinds]
        before = signal.signal(signal.SIGALRM, _too_long)
        tracemalloc.start()
        try:
            return [trial(*pairs[number % len(pairs)], Random(f"{seed} {number}")) for number in range(count)]
        finally:
            tracemalloc.stop()
            signal.signal(signal.SIGALRM, before)


def trial(reader: Reader, kind: str, rng: Random) -> Trial:
    message, mutant = spoilt(reader, kind, rng)
    outcome, words = judged(reader, kind, message, mutant)
    return Trial(reader=reader.name, kind=kind, outcome=outcome, words=words)


def spoilt(reader: Reader, kind: str, rng: Random) -> tuple[bytes, bytes]:
    for _ in range(TRIES):
        message = rng.choice(reader.messages)
        mutant = reader.kinds[kind](message, rng)
        if mutant is not None and mutant != message:
            return message, mutant
    raise AssertionError(f"{reader.name}: no message of its can be spoilt: {kind}")


def judged(reader: Reader, kind: str, message: bytes, mutant: bytes) -> tuple[Outcome, str]:
    allowed = ALLOWED + reader.times * len(mutant)
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    signal.alarm(WITHIN_S)
    try:
        read = reader.read(mutant)
        words = ""
    except RainhillError as error:
        read, words = None, str(error)
    except (Exception, SystemExit) as error:
        return "crashed", f"{type(error).__name__}: {shown(str(error))}"
    finally:
        signal.alarm(0)
    took = tracemalloc.get_traced_memory()[1] - before
    if took > allowed:
        return "crashed", f"took {took} bytes for a message of {len(mutant)}"
    if words:
        return ("refused", words) if "\n" not in words else ("crashed", f"words of more than one line: {words!r}")
    if read == reader.read(message):
        return "same", ""
    if kind == "bits flipped" and reader.another(message, mutant):
        return "another", ""
    return "accepted", shown(repr(mutant))


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"read for more than {WITHIN_S} s")


def table(trials: list[Trial]) -> str:
    counts = Counter((trial.reader, trial.kind, trial.outcome) for trial in trials)
    rows = dict.fromkeys((trial.reader, trial.kind) for trial in trials)
    lines = ["| reader | kind | tried | refused | accepted | crashed | another |", "|---|---|---:|---:|---:|---:|---:|"]
    lines += [_row(reader, kind, [counts[reader, kind, outcome] for outcome in _COLUMNS]) for reader, kind in rows]
    totals = [sum(counts[reader, kind, outcome] for reader, kind in rows) for outcome in _COLUMNS]
    return "\n".join([*lines, _row("all", f"{len(rows)} rows", totals)])


_COLUMNS: tuple[Outcome, ...] = ("refused", "accepted", "crashed", "another")


def _row(reader: str, kind: str, counts: list[int]) -> str:
    return f"| {reader} | {kind} | {sum(counts[:3])} | " + " | ".join(map(str, counts)) + " |"


if __name__ == "__main__":
    raise SystemExit(main())
