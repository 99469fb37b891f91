"""A site's training, in a process of its own: what torch takes is given back when it ends, and who kills it ends no daemon.

Both ends speak over a socket pair: what is asked for, an offer and a plan go in, and what was done comes out.
"""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rainhill import wire
from rainhill.errors import TrainerError
from rainhill.messages import Plan, Refusal, Update
from rainhill.supervise import end_with_parent, how_it_ended

log = logging.getLogger(__name__)

IDLE_S = 600.0
"""Without work, after which the process ends by itself."""
TRIES = 3
"""How often it may end over one plan."""
STOP_S = 5.0
ANSWER, OUTCOME = b"answer", b"outcome"
"""What the process may be asked for."""


@dataclass(kw_only=True)
class Trainer:
    """The daemon's end. One plan at a time."""

    site_file: Path
    idle_s: float = IDLE_S
    json_logs: bool = False
    starts: int = 0
    fit_s: float | None = None
    """That the last answer took, with what had to be loaded for it."""
    peak_bytes: int = 0
    """Most memory that a process of it was seen to hold."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _process: "subprocess.Popen[bytes] | None" = None
    _line: Connection | None = None
    _closed: bool = False

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def look(self) -> None:
        """How much memory the process has held: Linux tells it only while it is there, proc_pid_status(5)."""
        try:
            found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        except OSError:
            return
        self.peak_bytes = max(self.peak_bytes, 1024 * int(found[1]) if found else 0)

    def answer(self, offer: bytes, plan: Plan) -> Update | Refusal:
        """`offer` is sealed. A process that was killed is started again, and does the same again. Raises TrainerError."""
        return wire.answer_from_bytes(self._done(ANSWER, offer, plan))

    def outcome(self, offer: bytes, plan: Plan) -> dict[str, Any]:
        """What a run came to at this site, of the plan that follows its last round; empty where it could not be found out."""
        return dict(json.loads(self._done(OUTCOME, offer, plan)))

    def _done(self, what: bytes, offer: bytes, plan: Plan) -> bytes:
        with self._lock:
            for _ in range(TRIES):
                started = time.monotonic()
                try:
                    done = self._exchange([what, offer, wire.plan_to_bytes(plan)])
                    self.fit_s = time.monotonic() - started
                    self.look()
                    return done
                except (EOFError, OSError):
                    ended = self._ended()
                    if self._closed:
                        raise TrainerError("the daemon stops") from None
                    log.warning("the training process ended (%s) in round %d of run %s", ended, plan.round, plan.run)
        raise TrainerError(f"the training process ended {TRIES} times in round {plan.round}, the last time by {ended}")

    def close(self) -> None:
        """Ends it, whatever it is at."""
        self._closed = True
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
        with self._lock:
            self._ended()

    def _exchange(self, parts: Sequence[bytes]) -> bytes:
        line = self._line if self.pid is not None and self._line is not None else self._start()
        for part in parts:
            line.send_bytes(part)
        return line.recv_bytes()

    def _start(self) -> Connection:
        self._ended()
        if self._closed:
            raise EOFError
        ours, theirs = socket.socketpair()
        with theirs:
            about = {
                "site": str(self.site_file),
                "line": theirs.fileno(),
                "idle_s": self.idle_s,
                "json_logs": self.json_logs,
                "parent": os.getpid(),
            }
            # -P: not what lies in the folder that somebody happens to be in.
            command = [sys.executable, "-P", "-m", "client.trainer", json.dumps(about)]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: S603 - our own program
        self.starts += 1
        self._line = Connection(ours.detach())
        if self._closed:
            # Since it was looked at: `close` has found nothing to end.
            self._process.kill()
            raise EOFError
        return self._line

    def _ended(self) -> str:
        """How it did, where it has; its line is closed either way."""
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._process is None:
            return "nothing"
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process = None
        return how_it_ended(code)


def main(about: str) -> None:
    """The other end: answers until the line is closed, or nothing has come for a while."""
    said = json.loads(about)
    # Ctrl-C at a terminal is for the daemon, which then ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Before torch is imported, which takes a while: a plan that waits on the line would be worked on for nobody.
    end_with_parent(int(said["parent"]))
    from client.home import SiteHome
    from client.workshop import Workshop
    from rainhill import logs

    logs.to_stderr(as_json=bool(said["json_logs"]))
    line, workshop = Connection(int(said["line"])), Workshop(SiteHome.open(Path(said["site"])))
    try:
        while line.poll(float(said["idle_s"])):
            what, offer, plan = line.recv_bytes(), line.recv_bytes(), wire.plan_from_bytes(line.recv_bytes())
            if what == ANSWER:
                line.send_bytes(wire.answer_to_bytes(workshop.answer(offer, plan)))
            else:
                line.send_bytes(json.dumps(workshop.outcome(offer, plan)).encode())
    except EOFError:
        pass
    # Not by way of every destructor of what was loaded: the daemon may wait.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
