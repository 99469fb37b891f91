"""A new hospital's way in, from an empty folder to a run that it answers in, as docs/first-30-minutes.md has it: commands, and minutes.

    python -m perf.new_site [--no-install] [--out runs/perf-new-site]

The document's own commands are typed, in its order: at Bury, which has nothing yet, in a virtual environment that is made by the first of
them; at the operator's; and, neither timed nor counted, at two hospitals that were there before. What people do between two commands takes
no time here: mail, the telephone, reading, deciding. With --no-install it runs the Rainhill that is installed here, and the table says so.
Printed: for each part of the document, who typed how many commands, how long they and what they wait for took, and what the document says.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from rainhill.supervise import STOP_S
from sites.consortium import HERE
from sites.rehearsal import free_ports

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "first-30-minutes.md"
OPERATOR, NEW, OTHERS = "operator", "bury", ("manchester", "oldham")
FOUNDED = "The operator: five minutes"
"""What an operator does once, before there is any hospital."""
RUN = "spring"
PATIENTS = 60
"""Of each hospital that was there before: their films are drawn, and trained on, meanwhile."""
WITHIN_S, LOOK_S = 1800.0, 2.0
KEY = re.compile(r"(?:[0-9a-f]{4}-){7}[0-9a-f]{4}")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One command of the document."""

    part: str
    """The heading that it stands under."""
    who: str
    """`install`, `hospital` or `operator`."""
    typed: str


@dataclass(frozen=True, kw_only=True)
class Timed:
    line: Line
    who: str
    seconds: float
    """Of the command, and of what the document has it wait for."""


def lines_of(text: str) -> Iterator[Line]:
    """The commands of a document, in its order."""
    part = ""
    for heading, who, block in re.findall(r"^## ([^\n]*)$|^```sh (\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        part = heading or part
        yield from (Line(part=part, who=who, typed=typed) for typed in block.splitlines())


@dataclass(kw_only=True)
class Way:
    folder: Path
    environment: Mapping[str, str]
    install: bool
    at: dict[str, Path] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    """Fingerprints, as they are read over the telephone."""
    serving: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    timed: list[Timed] = field(default_factory=list)
    answered: int = 0
    """Rounds of the run that the new hospital gave an update in."""
    rounds: int = 0

    def walk(self, lines: Iterator[Line]) -> None:
        for line in lines:
            if line.who == "install":
                if self.install:
                    self._time(line, NEW, line.typed)
            elif line.who == "operator" and NEW not in line.typed:
                self._time(line, OPERATOR, line.typed)
            else:
                for other in OTHERS:
                    self._type(OPERATOR if line.who == "operator" else other, line.typed.replace(NEW, other))
                self._time(line, OPERATOR if line.who == "operator" else NEW, line.typed)

    def _time(self, line: Line, who: str, typed: str) -> None:
        begun = time.monotonic()
        self._type(who, typed)
        self.timed.append(Timed(line=line, who=who, seconds=time.monotonic() - begun))
        print(f"{who}$ {typed}  ({self.timed[-1].seconds:.1f} s)", file=sys.stderr)

    def _type(self, who: str, typed: str) -> None:
        words = shlex.split(typed)
        if words[0] == "cd":
            self.at[who] /= words[1]
        elif words[0] != "rainhill":
            self._shell(who, typed)
        elif "serve" in words:
            with (self.at[who] / "serve.log").open("w") as log:
                self.serving.append(
                    subprocess.Popen(self._command(who, words), cwd=self.at[who], env=self.environment, stdout=log, stderr=log)
                )
        else:
            self._wait(words)
            here = ["localhost" if word == "rainhill.example.org" else word for word in words]
            said = self._said(who, [*here, *self._beside(words)])
            self._mail(who, words, said)

    def _command(self, who: str, words: list[str]) -> list[str]:
        own = self.folder / NEW / "venv" / "bin" / "rainhill"
        return [str(own if who == NEW and self.install else Path(sys.executable).parent / "rainhill"), *words[1:]]

    def _said(self, who: str, words: list[str]) -> str:
        return _run(self._command(who, words), self.at[who], self.environment)

    def _shell(self, who: str, typed: str) -> None:
        # What an `activate` changes is for a shell that goes on: the commands that follow name what it would find.
        venv = f"PATH={shlex.quote(str(self.folder / NEW / 'venv' / 'bin'))}:$PATH; " if who == NEW else ""
        _run(["bash", "-ec", venv + typed], self.at[who], self.environment)

    def _wait(self, words: list[str]) -> None:
        """For what the document says has to be so."""
        match words[1:3]:
            case ["coordinator", "run"]:
                self._until(lambda: all(one["contact"] == "connected" for one in self.asked("sites")))
            case ["site", "pending"]:
                name = words[3].removesuffix(".toml")
                self._until(lambda: "asked by" in self._said(name, ["rainhill", "site", "log", words[3]]))
            case ["coordinator", "status"]:
                self._until(lambda: self.asked("status", RUN)["state"] == "finished")

    def _until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + WITHIN_S
        while not holds():
            if any(process.poll() is not None for process in self.serving):
                raise ChildProcessError(f"a daemon has ended; see the files serve.log in {self.folder}")
            if time.monotonic() > end:
                raise TimeoutError(f"what the next command waits for is not so after {WITHIN_S:g} s")
            time.sleep(LOOK_S)

    def asked(self, *words: str) -> Any:
        return json.loads(self._said(OPERATOR, ["rainhill", "coordinator", *words, "--json"]))

    def _beside(self, words: list[str]) -> list[str]:
        """What people would read to each other, and this machine in place of the operator's."""
        match words[1:3]:
            case ["coordinator", "init"]:
                public, private = free_ports(2)
                return ["--bind", "127.0.0.1", "--port", str(public), "--private-port", str(private), "--metrics-port", "0"]
            case ["coordinator", "enrol"]:
                return ["--fingerprint", self.told[words[3].removesuffix(".request")]]
            case ["site", "join"]:
                return ["--fingerprint", self.told[OPERATOR]]
        return []

    def _mail(self, who: str, words: list[str], said: str) -> None:
        if words[2] == "init":
            self.told[who] = KEY.findall(said)[-1]
        for name in (NEW, *OTHERS):
            for file, start, end in ((f"{name}.request", name, OPERATOR), (f"{name}.bundle", OPERATOR, name)):
                if words[2] in ("init", "bundle") and (self.at[start] / file).exists():
                    (self.at[start] / file).replace(self.at[end] / file)

    def end(self) -> None:
        for process in self.serving:
            process.send_signal(signal.SIGTERM)
        for process in self.serving:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def walked(folder: Path, *, install: bool) -> Way:
    """RuntimeError with what a command said where it fails."""
    shutil.rmtree(folder, ignore_errors=True)
    at = {name: folder / name for name in (OPERATOR, NEW, *OTHERS)}
    for place in at.values():
        place.mkdir(parents=True)
    # The copy of the repository that the document begins with.
    for who in (OPERATOR, NEW):
        _copy(at[who] / "rainhill")
    drawn = {"RAINHILL_SITES": str(_sites(folder / "sites")), "RAINHILL_CACHE": str(folder / "cache")}
    environment = {**os.environ, **drawn, "FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    way = Way(folder=folder, environment=environment, install=install, at=at)
    try:
        way.walk(lines_of(DOCUMENT.read_text(encoding="utf-8")))
        rounds = way.asked("status", RUN)["rounds"]
        way.answered, way.rounds = sum(NEW in one["answered"] for one in rounds), len(rounds)
    finally:
        way.end()
    return way


def _copy(folder: Path) -> None:
    folder.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x"], cwd=folder, input=archive, check=True)


def _sites(folder: Path) -> Path:
    """As those that ship with Rainhill; the new one whole, the others with few patients."""
    for path in (*(HERE / f"{name}.toml" for name in (NEW, *OTHERS)), HERE / "source" / "halifax.toml"):
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        if path.stem in OTHERS:
            document["phantom"] |= {"patients": PATIENTS, "test_patients": 6, "images_per_patient": [1, 1]}
        target = folder / path.relative_to(HERE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(tomli_w.dumps(document), encoding="utf-8")
    return folder


def _run(command: list[str], cwd: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{cwd}: `{shlex.join(command)}`: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def report(way: Way) -> str:
    lines = ["| part of the document | at | commands | minutes |", "|---|---|---|---|"]
    for part, who in dict.fromkeys((one.line.part, one.who) for one in way.timed):
        lines.append(f"| {part} | {who} | {_summed([one for one in way.timed if (one.line.part, one.who) == (part, who)])} |")
    new, theirs = ([one for one in way.timed if one.who == who and one.line.part != FOUNDED] for who in (NEW, OPERATOR))
    lines += [f"| all of it | {NEW} | {_summed(new)} |", f"| all of it, once there is a coordinator | {OPERATOR} | {_summed(theirs)} |"]
    if not way.install:
        lines += ["", f"Without the installation: {NEW} ran the Rainhill that is installed here."]
    return "\n".join(lines)


def _summed(some: Sequence[Timed]) -> str:
    return f"{len(some)} | {sum(one.seconds for one in some) / 60:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-install", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/perf-new-site"))
    options = parser.parse_args()
    way = walked(options.out.absolute(), install=not options.no_install)
    print(report(way))
    print(f"\n{NEW} answered in {way.answered} of {way.rounds} rounds")
    sys.exit(0 if way.rounds and way.answered == way.rounds else 1)


if __name__ == "__main__":
    main()
