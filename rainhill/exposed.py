"""What a daemon tells Prometheus, and whether it is ready: /metrics, /healthz and /readyz, over plain HTTP.

Each part of a daemon is looked at on a thread of its own, so that one that hangs holds up no scrape, and hides none of the others.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socket import AF_INET, AF_INET6
from socketserver import ThreadingTCPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rainhill.errors import RainhillError
from rainhill.listening import MetricsConfig
from rainhill.text import one_line

log = logging.getLogger(__name__)

KEEP_S = 3.0
"""For so long what was seen is told again, without another look."""
WITHIN_S = 1.5
"""For all parts together to answer a scrape."""
CLIENT_S = 10.0
"""For whoever asks to say what."""
LONGEST = 300
"""Characters that are told of a problem."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    metrics: Sequence[Metric] = ()
    problem: str = ""
    """Why this part does not do its work; empty where it does."""


class Part:
    """One thing that a daemon rests on, and how it is looked at."""

    def __init__(self, name: str, look: Callable[[], Seen], *, stale_s: float = 0.0) -> None:
        """What was seen last is told for `stale_s` more while a look takes long: of what does not change by itself."""
        self.name = name
        self._look, self._stale_s = look, stale_s
        self._lock = threading.Lock()
        self._under_way: threading.Event | None = None
        self._seen, self._at = Seen(), -float("inf")

    def begin(self) -> None:
        """Looks anew, where nobody does and what was seen is old."""
        with self._lock:
            if self._under_way is None and time.monotonic() - self._at >= KEEP_S:
                self._under_way = threading.Event()
                # A daemon: one that hangs must not keep the process from ending.
                threading.Thread(target=self._run, args=(self._under_way,), name=f"look at {self.name}", daemon=True).start()

    def seen(self, stop: float) -> Seen:
        """Waits until `stop`, by time.monotonic(), for a look that is under way."""
        under_way = self._under_way
        done = under_way is None or under_way.wait(max(stop - time.monotonic(), 0.0))
        with self._lock:
            if done or time.monotonic() - self._at < KEEP_S + self._stale_s:
                return self._seen
        return Seen(problem=f"does not answer within {WITHIN_S:g} s")

    def _run(self, under_way: threading.Event) -> None:
        try:
            seen = self._look()
        except (RainhillError, OSError) as error:
            seen = Seen(problem=str(error))
        except Exception as error:
            seen = Seen(problem=f"{type(error).__name__}, told in the log")
            if seen.problem != self._seen.problem:
                log.exception("%s cannot be looked at", self.name)
        with self._lock:
            self._seen, self._at, self._under_way = seen, time.monotonic(), None
        under_way.set()


class Exposed(Collector):
    """All parts of a daemon."""

    def __init__(self, prefix: str, parts: Sequence[Part]) -> None:
        self._prefix, self._parts = prefix, parts

    def collect(self) -> Iterator[Metric]:
        seen = self._seen()
        words = "1 where this part does its work, as /readyz wants it, 0 where it does not"
        ready = GaugeMetricFamily(f"{self._prefix}_ready", words, labels=["part"])
        for name, one in seen.items():
            ready.add_metric([name], 0.0 if one.problem else 1.0)
        yield ready
        for one in seen.values():
            yield from one.metrics

    def problems(self) -> list[str]:
        return [one_line(f"{name}: {one.problem}", LONGEST) for name, one in self._seen().items() if one.problem]

    def _seen(self) -> dict[str, Seen]:
        for part in self._parts:
            part.begin()
        stop = time.monotonic() + WITHIN_S
        return {part.name: part.seen(stop) for part in self._parts}


def gauge(name: str, words: str, value: float | None) -> list[Metric]:
    """Without a sample where there is nothing to tell."""
    return [GaugeMetricFamily(name, words, value=value)] if value is not None else [GaugeMetricFamily(name, words)]


@contextmanager
def exposing(exposed: Exposed, where: MetricsConfig) -> Iterator[None]:
    """Answers while the block lasts, where the section has a port. OSError for one that is taken."""
    if where.port == 0:
        yield
        return
    try:
        server = _Server(exposed, where)
    except OSError as error:
        raise OSError(error.errno, f"[metrics] cannot listen at {where.bind}:{where.port}: {error.strerror}") from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    log.info("metrics at http://%s:%d/metrics", where.bind, where.port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, exposed: Exposed, where: MetricsConfig) -> None:
        self.exposed = exposed
        self.address_family = AF_INET6 if ":" in where.bind else AF_INET
        super().__init__((where.bind, where.port), _Answer)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - socketserver's signature
        log.debug("a call for metrics was broken off")


class _Answer(BaseHTTPRequestHandler):
    timeout = CLIENT_S
    server: _Server

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                self._say(HTTPStatus.OK, generate_latest(self.server.exposed), CONTENT_TYPE_LATEST)
            case "/healthz":
                self._line(HTTPStatus.OK, "alive")
            case "/readyz":
                problems = self.server.exposed.problems()
                self._line(HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK, "; ".join(problems) or "ready")
            case _:
                self._line(HTTPStatus.NOT_FOUND, "here are /metrics, /healthz and /readyz")

    def _line(self, status: HTTPStatus, words: str) -> None:
        self._say(status, f"{words}\n".encode(), "text/plain; charset=utf-8")

    def _say(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "rainhill"

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - http.server's name
        """Of each scrape nothing is written."""
