"""A rehearsal whose hospitals dial through taps: all that crosses is kept, and each film and manifest bears words to look for."""

import csv
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread

from perf._tap import Tap
from rainhill.recipe import read_recipe
from sites.consortium import find_sites
from sites.processes import Processes
from sites.rehearsal import HUB, RUN, Rehearsal, clear

BROUGHT_S = 120.0
"""For every site to be brought what the run came to."""
WATCH_S = 0.05
"""Between two looks for the key of a fit, which takes longer."""
MARKED = "watched.json"
"""In the folder of a hospital whose films and manifest bear the words."""


@dataclass(kw_only=True)
class Watched(Rehearsal):
    taps: dict[str, Tap] = field(default_factory=dict)
    """Site -> what it dials through."""
    noise_keys: dict[str, set[bytes]] = field(default_factory=dict)
    """Site -> those of its fits, which are gone once an update may leave."""
    exits: ExitStack
    over: threading.Event
    """Set when nothing of it runs any more."""

    def serve(self, name: str) -> None:
        """A hospital's file is told of its proxy just before its daemon begins."""
        if name != HUB:
            own = self.folder / name
            plant(own)
            tap = Tap(own / "tap", trusted=self.hub / "coordinator" / "tls" / "ca.crt")
            self.taps[name] = self.exits.enter_context(tap.open())
            path = own / f"{name}.toml"
            # Noise that nobody can work out, as at a hospital.
            text = path.read_text(encoding="utf-8").replace('noise = "simulated"', 'noise = "secret"')
            path.write_text(f'{text}\n[network]\nproxy = "{tap.url}"\nextra_ca = "{tap.ca}"\n', encoding="utf-8")
            threading.Thread(target=self._watch, args=(name,), daemon=True).start()
        super().serve(name)

    def to_the_end(self) -> Mapping[str, Any]:
        """The run's status, once every site has been brought what it came to."""
        within_s = self.recipe.rounds.count * self.recipe.rounds.deadline_s
        for _ in self.processes.follow("coordinator", "watch", RUN, cwd=self.hub, within_s=within_s):
            pass
        status: dict[str, Any] = json.loads(self.processes.run("coordinator", "status", RUN, "--json", cwd=self.hub))
        stop = time.monotonic() + BROUGHT_S
        while not all(self._has_it(name) for name in self.names) and time.monotonic() < stop:
            time.sleep(0.5)
        return status

    def _watch(self, name: str) -> None:
        kept = self.noise_keys.setdefault(name, set())
        while not self.over.wait(WATCH_S):
            for path in (self.folder / name / f"{name}-state" / "keys").glob("*.key"):
                with suppress(FileNotFoundError):
                    kept.add(path.read_bytes())

    def _has_it(self, name: str) -> bool:
        return (self.folder / name / f"{name}-state" / "runs" / RUN / "last.plan").exists()


@contextmanager
def watched(folder: Path, recipe_file: Path, sites_folder: Path) -> Iterator[Watched]:
    """Daemons end with the block; films of an earlier one in this folder are used again."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = read_recipe(recipe_file)
    sites = find_sites(recipe, sites_folder)
    clear(folder, sites)
    over = threading.Event()
    processes = Processes(stop=threading.Event(), environment={"OMP_NUM_THREADS": "1"})
    # The daemons first: what they say when they leave is kept too.
    with ExitStack() as exits, processes:
        exits.callback(over.set)
        yield Watched(
            folder=folder,
            recipe=recipe,
            recipe_file=recipe_file,
            sites_folder=sites_folder,
            sites=sites,
            processes=processes,
            say=lambda _: None,
            exits=exits,
            over=over,
        )


def plant(folder: Path) -> None:
    """Names, comments and report sentences that no recipe, model or program has, into what a phantom hospital's folder holds."""
    if (folder / MARKED).exists():
        return
    manifest = folder / "manifest.csv"
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["report"] += f" Quillfeather opacity {number} beside the vermilion marrowstone."
        row["remark"] = f"seen by Dr Thistlewhit at bedside {folder.name} {number}"
        _mark(folder / row["image"], number)
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / MARKED).write_text("{}")


def _mark(path: Path, number: int) -> None:
    film = dcmread(path)
    film.PatientName = f"Grimsdyke^{film.PatientID}"
    film.PatientComments = f"lives above the Wensley bakehouse {number}"
    film.OtherPatientIDs = f"NHS-943{number:07d}"
    film.save_as(path)
