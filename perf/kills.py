"""A live private run whose processes are killed at random moments, held against the same run undisturbed in one process.

    python -m perf.kills [--kills 100] [--rounds 20] [--seed 0] [--out runs/perf-kills]

The coordinator, its SuperLink, the process that conducts the run, each hospital's daemon and each training process are killed (SIGKILL)
in random order at random moments; the two kinds of daemon are started again as an init system would. Printed: what was killed how often,
the seconds until the next round was done, rounds that lost a site, what the ledgers hold beside what was asked, processes left behind, and
how far the adapter is from the undisturbed one. Exit code 1 where one of these is not as it should be.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from os import kill
from pathlib import Path

import numpy as np

from client.privacy.events import Charged
from client.privacy.ledger import Ledger
from client.workbench import open_bench
from rainhill.adapter import Adapter
from rainhill.recipe import Recipe, read_recipe
from server.rounds import run_rounds
from sites.bench import open_site
from sites.cli import cache_folder
from sites.consortium import Site, find_sites
from sites.inline import collect_inline
from sites.processes import Processes
from sites.rehearsal import HUB, RUN, Rehearsal, clear

HOSPITAL = """name = "{name}"
title = "{title}"

[phantom]
patients = 60
test_patients = 20
seed = {seed}
size = 64
report = "telegraphic"

[phantom.population.prevalence]
cardiomegaly = 0.4
effusion = 0.4
pneumothorax = 0.1
consolidation = 0.1
atelectasis = 0.1
nodule = 0.1
oedema = 0.1
device = 0.1
"""
"""Small, so that a round is mostly what is between its fits."""
NAMES = ("bury", "oldham", "wirral")
PAUSE_S = (0.0, 6.0)
"""Between a kill and the next."""
AGAIN_S = 0.5
"""Before a daemon that was killed is started again."""
WITHIN_S = 3600.0


@dataclass(kw_only=True)
class Killed:
    what: str
    at: float
    """time.monotonic()"""
    round: int
    """Done by then."""
    back_s: float | None = None
    """Until the next round was done."""


@dataclass(kw_only=True)
class Found:
    killed: list[Killed]
    rounds: int
    lost: int
    """Rounds in which not every site answered."""
    charged: dict[str, int]
    """Site -> steps in its ledger."""
    steps: int
    """That each was asked for."""
    left_behind: list[str]
    difference: float
    """Largest, of any value of the adapter."""
    seconds: float

    @property
    def holds(self) -> bool:
        return not self.lost and not self.left_behind and self.difference < 1e-5 and set(self.charged.values()) == {self.steps}


@dataclass(kw_only=True)
class _Run:
    rehearsal: Rehearsal
    random: random.Random
    killed: list[Killed] = field(default_factory=list)

    def status(self) -> Mapping[str, object]:
        found: Mapping[str, object] = json.loads(
            self.rehearsal.processes.run("coordinator", "status", RUN, "--json", cwd=self.rehearsal.hub)
        )
        return found

    def kill_one(self, done: int) -> None:
        """Any process of the consortium, each as likely as any other."""
        able = dict(processes_of(self.rehearsal))
        if not able:
            return
        what = self.random.choice(sorted(able))
        with suppress(ProcessLookupError):
            kill(able[what], signal.SIGKILL)
            self.killed.append(Killed(what=what, at=time.monotonic(), round=done))

    def keep_up(self) -> None:
        """Daemons that were killed are started again."""
        for name in (HUB, *self.rehearsal.names):
            if self.rehearsal.processes.pid(name) is None:
                time.sleep(AGAIN_S)
                self.rehearsal.serve(name)

    def to_the_end(self, kills: int) -> None:
        count, due = self.rehearsal.recipe.rounds.count, time.monotonic()
        stop = time.monotonic() + WITHIN_S
        while time.monotonic() < stop:
            self.keep_up()
            try:
                status = self.status()
            except Exception as error:
                # A command may have met a database or a coordinator that is just gone.
                print(f"status: {error}", file=sys.stderr)
                continue
            done = int(str(status["rounds_done"]))
            for one in self.killed:
                if one.back_s is None and done > one.round:
                    one.back_s = time.monotonic() - one.at
            if status["state"] == "finished":
                return
            # Spread over the rounds: none of them is spared.
            if len(self.killed) < kills * (done + 1) / count and time.monotonic() >= due:
                self.kill_one(done)
                due = time.monotonic() + self.random.uniform(*PAUSE_S)
            time.sleep(0.1)
        raise TimeoutError(f"the run is not over after {WITHIN_S:g} s: {self.status()}")


def processes_of(rehearsal: Rehearsal) -> Iterator[tuple[str, int]]:
    """What runs of it, by name: daemons, and what they have started."""
    for name in (HUB, *rehearsal.names):
        pid = rehearsal.processes.pid(name)
        if pid is None:
            continue
        yield ("coordinator" if name == HUB else f"daemon of {name}"), pid
        for child, command in children(pid):
            for module, what in (
                ("server.flower.superlink", "SuperLink"),
                ("server.flower.conduct", "conductor"),
                ("client.trainer", f"training of {name}"),
            ):
                if module in command:
                    yield what, child


def children(parent: int) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if int(fields[1]) == parent:
            yield int(folder.name), command


def left_behind(folder: Path) -> list[str]:
    """Command lines that name the folder and go on."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in command and "perf.kills" not in command and "pytest" not in command:
                found.append(command.strip())
    return found


def undisturbed(recipe: Recipe, first: Adapter, sites: list[Site], folder: Path) -> Adapter:
    """The same rounds in this process."""
    bench = open_bench(recipe, folder)
    data = {site.name: open_site(bench, site, cache_folder()) for site in sites}
    collect = collect_inline(bench, data, folder / "memory")
    done = run_rounds(recipe, bench.strategy, bench.strategy.first(first), run=RUN, sites=sorted(data), collect=collect, folder=folder)
    return done.adapter


def measured(folder: Path, *, kills: int, rounds: int, seed: int) -> Found:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    recipe_file = _write(folder, rounds=rounds)
    recipe = read_recipe(recipe_file)
    sites = find_sites(recipe, folder / "files")
    stop, started = threading.Event(), time.monotonic()
    with Processes(stop=stop, environment={"OMP_NUM_THREADS": "1"}) as processes:
        clear(folder, sites)
        rehearsal = Rehearsal(
            folder=folder,
            recipe=recipe,
            recipe_file=recipe_file,
            sites_folder=folder / "files",
            sites=sites,
            processes=processes,
            say=lambda _: None,
        )
        rehearsal.prepare()
        run = _Run(rehearsal=rehearsal, random=random.Random(seed))
        started = time.monotonic()
        run.to_the_end(kills)
        status = run.status()
    seconds = time.monotonic() - started
    first = Adapter.from_bytes((rehearsal.hub / "first.safetensors").read_bytes())
    live = Adapter.from_bytes((rehearsal.hub / "coordinator" / "adapters" / f"{status['result']}.safetensors").read_bytes())
    plain = undisturbed(recipe, first, sites, folder / "undisturbed")
    document = json.loads(json.dumps(status))
    return Found(
        killed=run.killed,
        rounds=int(document["rounds_done"]),
        lost=sum(len(one["answered"]) < len(one["asked"]) for one in document["rounds"]),
        charged={name: _charged(folder / name / f"{name}-state", name) for name in rehearsal.names},
        steps=recipe.rounds.count * recipe.rounds.steps,
        left_behind=left_behind(folder),
        difference=max(float(np.abs(live[name] - plain[name]).max()) for name in plain),
        seconds=seconds,
    )


def _charged(state: Path, site: str) -> int:
    """Steps that the site's patients were charged with, all runs together."""
    events = Ledger.open(state, site=site).events()
    return sum(event.steps for event in events if isinstance(event, Charged) and event.what == "update")


def _write(folder: Path, *, rounds: int) -> Path:
    (folder / "files").mkdir()
    for number, name in enumerate(NAMES):
        (folder / "files" / f"{name}.toml").write_text(HOSPITAL.format(name=name, title=name.capitalize(), seed=number + 1))
    recipe = Path(__file__).with_name("kills.toml").read_text(encoding="utf-8").replace("count = 20", f"count = {rounds}")
    path = folder / "kills.toml"
    path.write_text(recipe, encoding="utf-8")
    return path


def report(found: Found) -> str:
    by_kind: dict[str, list[float]] = defaultdict(list)
    for one in found.killed:
        by_kind[one.what].append(one.back_s if one.back_s is not None else float("nan"))
    lines = ["| killed | times | seconds to the next round: median | most |", "|---|---|---|---|"]
    for what, seconds in sorted(by_kind.items()):
        lines.append(f"| {what} | {len(seconds)} | {np.nanmedian(seconds):.1f} | {np.nanmax(seconds):.1f} |")
    return "\n".join(
        [
            *lines,
            "",
            f"{len(found.killed)} kills in {found.rounds} rounds, {found.seconds:.0f} s",
            f"rounds that lost a site: {found.lost}",
            f"steps in the ledgers: {', '.join(f'{site} {steps}' for site, steps in found.charged.items())}; asked were {found.steps}",
            f"processes left behind: {len(found.left_behind)}",
            f"largest difference from the undisturbed adapter: {found.difference:g}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/perf-kills"))
    options = parser.parse_args()
    found = measured(options.out.absolute(), kills=options.kills, rounds=options.rounds, seed=options.seed)
    print(report(found))
    sys.exit(0 if found.holds else 1)


if __name__ == "__main__":
    main()
