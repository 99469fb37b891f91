"""Processes that are kept running: started again with growing pauses, stopped the last one first, never left behind."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType

log = logging.getLogger(__name__)

PAUSE_S = (0.5, 60.0)
"""Before a process that ended is started again: at first, and at most. It doubles each time, until one has run for STEADY_S."""
STEADY_S = 60.0
STOP_S = 15.0
"""For a process to end by itself when it is asked to; then it is ended."""
LOOK_S = 0.2


@dataclass(kw_only=True)
class Child:
    """One process, and how often it had to be started."""

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    """Beside this process's own."""
    ends: bool = False
    """Whether exit code 0 says that all is done: then it is not started again."""
    over: bool = False
    """It has done all."""
    starts: int = 0
    started: float = 0.0
    """time.monotonic() of the last start."""
    ended: str = ""
    """How the last one ended."""
    _process: "subprocess.Popen[bytes] | None" = None
    _pause: float = PAUSE_S[0]
    _due: float = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def look(self, now: float) -> None:
        """Starts it where it is due."""
        if self.running:
            if now - self.started > STEADY_S:
                self._pause = PAUSE_S[0]
            return
        if self.over:
            return
        if self._process is not None:
            self.ended = how_it_ended(self._process.returncode)
            self.over = self.ends and self._process.returncode == 0
            if self.over:
                self._process = None
                return
            log.warning("%s ended (%s); it is started again in %.1f s", self.name, self.ended, self._pause)
            self._process, self._due = None, now + self._pause
            self._pause = min(2 * self._pause, PAUSE_S[1])
        if now >= self._due:
            self.starts, self.started = self.starts + 1, now
            # In a process group of its own: Ctrl-C at a terminal is this process's, which ends the others.
            self._process = subprocess.Popen(  # noqa: S603 - our own programs
                self.command, env={**os.environ, **self.environment}, process_group=0
            )
            log.info("%s runs as process %d", self.name, self._process.pid)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            log.warning("%s did not end within %g s and is ended", self.name, STOP_S)
            self._process.kill()
            self._process.wait()


def keep_running(children: Sequence[Child], *, stop: threading.Event, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Until `stop` is set; then the last child is stopped first. `meanwhile` is called at every look."""
    try:
        while not stop.wait(LOOK_S):
            for child in children:
                child.look(time.monotonic())
            meanwhile()
    finally:
        for child in reversed(children):
            child.stop()


def stopped_by_signals() -> threading.Event:
    """Set by SIGTERM and SIGINT. A second one ends the process at once, and its children by themselves."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop


def end_with_parent(parent: int) -> None:
    """Has this process stop as by SIGTERM when its parent is gone, however that ended; and end it where it does not.

    `parent` is the number of the process that started this one, as that one told it: before this one looks it may be gone already.
    """

    def watch() -> None:
        # Not time.sleep, which fails where the clock is another than the machine's: then nobody would look any more.
        never = threading.Event()
        while os.getppid() == parent:
            never.wait(LOOK_S)
        log.warning("the process that started this one is gone")
        os.kill(os.getpid(), signal.SIGTERM)
        # It may be waiting for somebody who has gone too.
        never.wait(STOP_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def how_it_ended(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
