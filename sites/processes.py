"""`rainhill` commands as processes of their own, none of which outlives the one that started it, however that ends."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

from rainhill.errors import RehearsalError
from rainhill.supervise import STOP_S, end_with_parent, how_it_ended

LOOK_S = 0.2
ASK_S = 2.0
"""Between two looks whether a condition holds: it may be a command."""
TAIL = 12
"""Lines of a daemon's log that are shown where it ended."""


@dataclass(kw_only=True)
class Processes:
    """What is worked with while a block lasts. `stop` ends whatever is waited for by KeyboardInterrupt."""

    stop: threading.Event
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside this process's own."""
    within: Callable[[Path], Sequence[str]] = lambda cwd: ()  # noqa: ARG005
    """What begins a command in that folder, such as one that runs it in a network of its own, and becomes it."""
    _daemons: "dict[str, tuple[subprocess.Popen[str], Path]]" = field(default_factory=dict)
    _once: "subprocess.Popen[str] | None" = None

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *error: object) -> None:
        """All at once are asked to end, and waited for."""
        running = [process for process, _ in self._daemons.values()] + ([self._once] if self._once else [])
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, *arguments: str, cwd: Path) -> str:
        """`rainhill ARGUMENTS`, to its end; what it printed. RehearsalError, with what it said, where its exit code is not 0."""
        self._once = process = self._start(arguments, cwd, out=subprocess.PIPE, error=subprocess.PIPE)
        while True:
            if self.stop.is_set():
                raise KeyboardInterrupt
            try:
                printed, said = process.communicate(timeout=LOOK_S)
            except subprocess.TimeoutExpired:
                continue
            self._once = None
            if process.returncode:
                words = said.strip() or how_it_ended(process.returncode)
                raise RehearsalError(f"{cwd}: `rainhill {' '.join(arguments)}`: {words}")
            return printed

    def follow(self, *arguments: str, cwd: Path, within_s: float) -> Iterator[str]:
        """`rainhill ARGUMENTS`: what it prints line by line, as it prints it, until it ends with whatever exit code.

        RehearsalError where it does not end by then, or a daemon has ended meanwhile.
        """
        self._once = process = self._start(arguments, cwd, out=subprocess.PIPE, error=subprocess.DEVNULL)
        assert process.stdout is not None
        lines: SimpleQueue[str] = SimpleQueue()
        threading.Thread(target=_each_line, args=(process.stdout, lines), daemon=True).start()
        end = time.monotonic() + within_s
        while True:
            if self.stop.is_set():
                raise KeyboardInterrupt
            try:
                line = lines.get(timeout=LOOK_S)
            except Empty:
                self._refuse_dead()
                self._refuse_late(end, f"`rainhill {' '.join(arguments)}`", within_s)
                continue
            if not line:
                break
            yield line
        process.stdout.close()
        process.wait()
        self._once = None

    def serve(self, name: str, *arguments: str, cwd: Path) -> None:
        """`rainhill ARGUMENTS` until the block ends; what it writes goes into `serve.log` of that folder."""
        path = cwd / "serve.log"
        with path.open("a") as log:
            self._daemons[name] = self._start(arguments, cwd, out=log.fileno(), error=log.fileno()), path

    def pid(self, name: str) -> int | None:
        """Of the daemon of that name; None where it has ended."""
        process, _ = self._daemons[name]
        return process.pid if process.poll() is None else None

    def until(self, holds: Callable[[], bool], *, what: str, within_s: float) -> None:
        """RehearsalError where it does not hold by then, or a daemon has ended meanwhile."""
        end = time.monotonic() + within_s
        while not holds():
            if self.stop.wait(ASK_S):
                raise KeyboardInterrupt
            self._refuse_dead()
            self._refuse_late(end, what, within_s)

    def _refuse_dead(self) -> None:
        for name, (process, log) in self._daemons.items():
            if process.poll() is not None:
                tail = "\n".join(log.read_text().splitlines()[-TAIL:])
                raise RehearsalError(f"the daemon of {name} ended ({how_it_ended(process.returncode)}): {log}\n{tail}")

    def _refuse_late(self, end: float, what: str, within_s: float) -> None:
        if time.monotonic() > end:
            logs = ", ".join(str(log) for _, log in self._daemons.values())
            raise RehearsalError(f"{what}: not after {within_s:.0f} s; {logs} may tell why")

    def _start(self, arguments: tuple[str, ...], cwd: Path, *, out: int, error: int) -> "subprocess.Popen[str]":
        # -P: not what lies in the folder that somebody is in. A group of its own: Ctrl-C at a terminal is for this process alone.
        command = [*self.within(cwd), sys.executable, "-P", "-m", "sites.processes", str(os.getpid()), *arguments]
        environment = {**os.environ, **self.environment}
        return subprocess.Popen(  # noqa: S603 - our own programs
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=error, text=True, process_group=0
        )


def _each_line(file: IO[str], lines: SimpleQueue[str]) -> None:
    """And an empty one when there are no more."""
    for line in file:
        lines.put(line)
    lines.put("")


def main(parent: int, *arguments: str) -> None:
    """The command, for as long as the process with that number is this one's parent."""
    end_with_parent(parent)
    from rainhill import cli

    sys.argv = ["rainhill", *arguments]
    cli.main()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
