"""A rehearsal on one machine: a coordinator and phantom hospitals, each in a folder of its own, worked by the commands that people type."""

import json
import os
import re
import shlex
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rainhill.adapter import Adapter
from rainhill.errors import RefusedError, RehearsalError
from rainhill.recipe import Recipe
from sites import hospital
from sites.consortium import Site
from sites.processes import Processes

SEED = 0
"""Of the phantoms' films, as `rainhill phantom` draws them where nobody says."""
LOCK = "rehearsal.lock"
"""Held by the rehearsal of a folder; that it is there tells whose the folder is."""
HUB, RUN, WHO = "hub", "rehearsal", "Ada Lovelace"
CONTACT_S, OFFER_S = 300.0, 300.0
"""For daemons to be in contact, and for an offer to arrive: both take seconds where the machine has nothing else to do."""
_KEY = re.compile(r"(?:[0-9a-f]{4}-){7}[0-9a-f]{4}")


@dataclass(kw_only=True)
class Rehearsal:
    folder: Path
    recipe: Recipe
    recipe_file: Path
    sites_folder: Path | None
    """None stands for the phantom hospitals that ship with Rainhill."""
    sites: list[Site]
    processes: Processes
    say: Callable[[str], None]
    host: str = ""
    """What hospitals dial, of a coordinator in a network of its own; loopback where empty."""
    _part: int = field(default=0, init=False)

    @property
    def hub(self) -> Path:
        return self.folder / HUB

    @property
    def names(self) -> list[str]:
        return [site.name for site in self.sites]

    @property
    def _sites(self) -> tuple[str, ...]:
        return ("--sites", str(self.sites_folder)) if self.sites_folder else ()

    def rehearse(self, *, compare: bool = False) -> None:
        """From films to the last round. What was said and done is said line by line."""
        self.prepare()
        self._rounds()
        self._look()
        if compare:
            self._compare()

    def prepare(self) -> None:
        """From films to a run that every hospital has approved."""
        self._draw()
        self._begin()
        self._join()
        self._serve()
        self._ask()

    def serve(self, name: str) -> None:
        """Starts the daemon of a hospital, or of the coordinator, which is `HUB`."""
        command = ("coordinator", "serve") if name == HUB else ("site", "serve", f"{name}.toml")
        self.say(f"   {name}$ rainhill {' '.join(command)}")
        self.processes.serve(name, *command, cwd=self.folder / name)

    def further(self) -> None:
        """Where to look, once all is over."""
        first = self.names[0]
        self.say(f"\nAll of it lies in {self.folder}, a folder for the coordinator ({HUB}) and one for each hospital. Look further:")
        for name, command in (
            (first, f"rainhill site log {first}.toml --json"),
            (first, f"rainhill site outcome {first}.toml"),
            (first, f"rainhill site privacy {first}.toml"),
            (first, f"rainhill site pending {first}.toml --all"),
            (HUB, f"rainhill coordinator status {RUN} --json"),
            (HUB, "rainhill coordinator log"),
        ):
            self.say(f"  cd {shlex.quote(str(self.folder / name))} && {command}")
        self.say("docs/first-30-minutes.md is the same with two people and a telephone; docs/governance.md says what to make of it.")

    def _draw(self) -> None:
        self._title(
            f"{len(self.sites)} phantom hospitals are drawn: films as DICOM, a manifest, and a site file. A large one takes minutes."
        )
        for name in self.names:
            self._run(self.folder, "phantom", name, *self._sites)
        self._title("The researcher makes the adapter that the run begins from.")
        shutil.copyfile(self.recipe_file, self.hub / self.recipe_file.name)
        self._run(self.hub, "adapter", self.recipe_file.name, *self._sites, "--out", "first.safetensors", show=True)

    def _begin(self) -> None:
        where = f"which the hospitals reach as {self.host}" if self.host else "which only this machine can reach"
        self._title(f"The operator makes a coordinator, {where}.")
        self._run(self.hub, "coordinator", "init", "rehearsal", "--title", "Rehearsal", *self._address(), show=True)

    def _address(self) -> list[str]:
        if self.host:
            return ["--host", self.host]
        public, private = free_ports(2)
        address = ["--host", "localhost", "--bind", "127.0.0.1", "--port", str(public), "--private-port", str(private)]
        # No metrics: two rehearsals would want the same port.
        return [*address, "--metrics-port", "0"]

    def _join(self) -> None:
        self._title("Each hospital makes keys, which stay; is enrolled by its request; and joins by the bundle that it is given.")
        theirs = ""
        for name in self.names:
            own = _fingerprint(self._run(self.folder / name, "site", "init", f"{name}.toml"))
            self._carry(f"{name}.request", name, HUB, "by mail; its fingerprint is read over the telephone")
            self._run(self.hub, "coordinator", "enrol", f"{name}.request", "--fingerprint", own)
            theirs = _fingerprint(self._run(self.hub, "coordinator", "bundle", name))
            self._carry(f"{name}.bundle", HUB, name, "by mail; the consortium's fingerprint over the telephone")
            self._run(self.folder / name, "site", "join", f"{name}.toml", f"{name}.bundle", "--fingerprint", theirs)

    def _serve(self) -> None:
        where = "" if self.host else " on loopback"
        self._title(f"All daemons are started: the coordinator listens{where}, the hospitals dial out.")
        for name in (HUB, *self.names):
            self.serve(name)
        self.processes.until(
            lambda: all(one["contact"] == "connected" for one in self._json(self.hub, "coordinator", "sites")),
            what="all hospitals in contact",
            within_s=CONTACT_S,
        )
        self._run(self.hub, "coordinator", "sites", show=True)

    def _ask(self) -> None:
        self._title(f"The operator offers a run: {self.recipe.title or self.recipe.name}.")
        self._run(self.hub, "coordinator", "run", self.recipe_file.name, "--adapter", "first.safetensors", "--name", RUN, show=True)
        self._title("Nothing is trained before somebody at each hospital has looked at it and approved it.")
        for number, name in enumerate(self.names):
            at = self.folder / name
            self.processes.until(partial(self._offered, name), what=f"the offer at {name}", within_s=OFFER_S)
            if number == 0:
                self._run(at, "site", "pending", f"{name}.toml", show=True)
            self._run(at, "site", "approve", f"{name}.toml", RUN, "--by", WHO, show=True)

    def _offered(self, name: str) -> bool:
        # `pending` counts patients and works out what they would spend: too much to be asked again and again.
        return any(one["kind"] == "offered" for one in self._json(self.folder / name, "site", "log", f"{name}.toml"))

    def _rounds(self) -> None:
        count = self.recipe.rounds.count
        self._title(f"{count} rounds: each hospital trains on its own films, and its update leaves by one door.")
        watch, state, words = ("coordinator", "watch", RUN), "not followed to its end", ""
        self.say(f"   {HUB}$ rainhill {shlex.join(watch)}")
        # One command that follows the run: many that ask again would take the time of those who train.
        for line in self.processes.follow(*watch, "--json", cwd=self.hub, within_s=count * self.recipe.rounds.deadline_s):
            change = json.loads(line)
            if change["what"] == "round":
                late = "".join(f"; without {site}: {reason}" for site, reason in change["left_out"].items())
                counted = f"{len(change['answered'])} of {len(change['asked'])} sites, {change['seconds']} s"
                self.say(f"   round {change['round']}: {counted}{late}")
            elif change["what"] == "run":
                state, words = change["state"], change["words"]
        if state != "finished":
            raise RehearsalError(f"the run is {state}{f': {words}' if words else ''}")
        self._run(self.hub, "coordinator", "status", RUN, show=True)

    def _look(self) -> None:
        name = self.names[0]
        self._title(f"What {name} was asked, what was decided, and all that left it: its disclosure log. What its patients have spent.")
        self._run(self.folder / name, "site", "log", f"{name}.toml", show=True)
        self._run(self.folder / name, "site", "privacy", f"{name}.toml", show=True)
        self._run(self.folder / name, "site", "privacy", f"{name}.toml", "--verify", show=True)

    def _compare(self) -> None:
        self._title("The same recipe in one process, without a network. It trains other arms too, and takes minutes.")
        arguments = ("simulate", self.recipe_file.name, *self._sites, "--out", "simulated")
        self._run(self.hub, *arguments)
        live = self._json(self.hub, "coordinator", "status", RUN)["result"]
        ours = Adapter.from_bytes((self.hub / "coordinator" / "adapters" / f"{live}.safetensors").read_bytes())
        theirs = Adapter.from_bytes((self.hub / "simulated" / "adapters" / "shared.safetensors").read_bytes())
        self.say(f"   the two shared adapters differ by at most {ours.max_abs_difference(theirs):g}")

    def _title(self, words: str) -> None:
        self._part += 1
        self.say(f"\n{self._part}. {words}")

    def _run(self, cwd: Path, *arguments: str, show: bool = False) -> str:
        at = "" if cwd == self.folder else cwd.name
        self.say(f"   {at}$ rainhill {shlex.join(arguments)}")
        printed = self.processes.run(*arguments, cwd=cwd)
        for line in printed.splitlines() if show else ():
            self.say(f"     {line}")
        return printed

    def _json(self, cwd: Path, *arguments: str) -> Any:
        return json.loads(self.processes.run(*arguments, "--json", cwd=cwd))

    def _carry(self, file: str, start: str, end: str, how: str) -> None:
        self.say(f"   {file} goes from {start} to {end}: {how}")
        shutil.copyfile(self.folder / start / file, self.folder / end / file)


def refuse_taken(folder: Path) -> None:
    """RefusedError where the folder holds anything but a rehearsal."""
    if folder.exists() and not (folder.is_dir() and ((folder / LOCK).exists() or not any(folder.iterdir()))):
        raise RefusedError(f"{folder}: is there, and is no rehearsal's; choose another --out")


def clear(folder: Path, sites: list[Site]) -> None:
    """Of an earlier rehearsal in this folder, films stay, and all else goes."""
    shutil.rmtree(folder / HUB, ignore_errors=True)
    for site in sites:
        own = folder / site.name
        if not hospital.is_drawn(site.config, own, seed=SEED):
            # Of a rehearsal that was ended while it was drawn.
            shutil.rmtree(own, ignore_errors=True)
        shutil.rmtree(own / f"{site.name}-state", ignore_errors=True)
        for name in (f"{site.name}.toml", "serve.log"):
            (own / name).unlink(missing_ok=True)
    (folder / HUB).mkdir()


def cores_each(sites: list[Site]) -> int:
    """Threads that wait for one another on shared cores cost more than they give."""
    return max(1, (os.cpu_count() or 1) // len(sites))


def free_ports(count: int) -> list[int]:
    """Of loopback, different ones."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _fingerprint(printed: str) -> str:
    found = _KEY.findall(printed)
    if not found:
        raise RehearsalError(f"no fingerprint in what was printed: {printed}")
    return str(found[-1])
