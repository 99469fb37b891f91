"""`rainhill coordinator serve`: keeps the SuperLink running, and has it know the sites that are enrolled and no others."""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from rainhill.errors import RainhillError
from rainhill.exposed import exposing
from rainhill.files import held
from rainhill.messages import SiteId
from rainhill.supervise import Child, keep_running, stopped_by_signals
from server.chain import days_left
from server.console import process as console
from server.console.accounts import wanted as console_wanted
from server.database import Database
from server.flower.link import Link, admit_only, import_flower
from server.flower.superlink import LOOPBACK, LinkConfig, bound
from server.home import WARN_DAYS, Home, checked, secret_of
from server.metrics import coordinator_metrics
from server.registry import Registry
from server.runs import Runs

log = logging.getLogger(__name__)

SYNC_S = 2.0
"""How long at most a site that was revoked is still heard."""
LEAN = {"MALLOC_MMAP_THRESHOLD_": str(2**18), "MALLOC_ARENA_MAX": "4"}
"""Of processes that handle large messages in many threads: glibc gives what was freed back, mallopt(3)."""
REMIND_OF_EXPIRY_S = 24 * 3600.0
_RUN = "run "
REMIND_S = 60.0
"""The SuperLink is told all again now and then: it may have been restarted with an empty database."""


def serve(home: Home, *, json_logs: bool = False) -> None:
    """Until SIGTERM or SIGINT.

    RefusedError where one runs in this folder already, CredentialError for certificates that do not hold, OSError for a port that is taken:
    what would be wrong again after each restart of the SuperLink ends it at once.
    """
    with held(home.folder / "serve.lock", "a coordinator"):
        registry, address = Registry(database=Database.open(home.database_url)), home.config.address
        checked(home)
        for host, port in ((address.bind, address.port), (LOOPBACK, address.private_port)):
            bound(host, port).close()
        stop, wanted = stopped_by_signals(), _Wanted()
        children = [superlink(home, json_logs=json_logs)]
        import_flower()
        syncing = threading.Thread(target=_sync, args=(home, registry, children[0], wanted, stop), name="registry", daemon=True)
        syncing.start()
        with exposing(coordinator_metrics(home, link_of(home), registry, children), home.config.metrics):
            keep_running(children, stop=stop, meanwhile=lambda: _tend(home, children, wanted.runs, json_logs=json_logs))
        syncing.join(SYNC_S)


def link_of(home: Home) -> Link:
    return Link(port=home.config.address.private_port, ca=home.ca, secret=secret_of(home))


def superlink(home: Home, *, json_logs: bool = False) -> Child:
    address = home.config.address
    config = LinkConfig(
        host=address.bind,
        port=address.port,
        private_port=address.private_port,
        ca=home.ca,
        certificate=home.certificate,
        key=home.server_key,
        database=home.link_database,
        secret=home.secret,
        parent=os.getpid(),
        json_logs=json_logs,
    )
    # -P: not what lies in the folder that somebody happens to be in.
    command = [sys.executable, "-P", "-m", "server.flower.superlink", json.dumps(config.model_dump(mode="json"))]
    return Child(name="SuperLink", command=command, environment=LEAN)


@dataclass(kw_only=True)
class _Wanted:
    """What the database last said, for whoever must not wait for it."""

    runs: frozenset[str] = frozenset()
    """That are to be conducted."""


def _tend(home: Home, children: list[Child], runs: frozenset[str], *, json_logs: bool) -> None:
    """A process for each run, begun and stopped as the database says; and one for the console, once somebody may sign in."""
    if console_wanted(home) and all(one.name != console.NAME for one in children):
        children.append(console.child(home, json_logs=json_logs))
    # One that is over may have been resumed since.
    for child in [one for one in children if one.ends and (one.over or one.name.removeprefix(_RUN) not in runs)]:
        child.stop()
        children.remove(child)
    for name in sorted(runs - {one.name.removeprefix(_RUN) for one in children}):
        about = json.dumps({"home": str(home.folder), "run": name, "parent": os.getpid(), "json_logs": json_logs})
        command = [sys.executable, "-P", "-m", "server.flower.conduct", about]
        children.append(Child(name=_RUN + name, command=command, environment=LEAN, ends=True))


def _sync(home: Home, registry: Registry, link: Child, wanted: _Wanted, stop: threading.Event) -> None:
    """Goes on whatever happens: a site that was revoked must be noticed, though the disk was full or the database gone for a while."""
    told: tuple[Mapping[SiteId, bytes], int] | None = None
    age, warned, words = 0.0, -REMIND_OF_EXPIRY_S, ""
    runs = Runs(database=registry.database)
    while not stop.wait(SYNC_S):
        age += SYNC_S
        try:
            wanted.runs = frozenset(run.name for run in (*runs.active(), *runs.undelivered(datetime.now(UTC))))
            # A SuperLink that was started again knows nobody.
            keys, starts = _keys(registry), link.starts
            if (keys, starts) != told or age >= REMIND_S:
                admit_only(link_of(home), keys)
                told, age = (keys, starts), 0.0
            if time.monotonic() - warned >= REMIND_OF_EXPIRY_S:
                _warn_of_expiry(home)
                warned = time.monotonic()
            words = ""
        except Exception as error:
            told, before, words = None, words, f"the SuperLink is not told which sites are enrolled: {error}"
            # Once, and not every two seconds; that it does not answer before it has started is as it should be.
            level = logging.INFO if isinstance(error, httpx.ConnectError) else logging.WARNING
            if words != before:
                log.log(level, "%s", words, exc_info=None if isinstance(error, RainhillError | httpx.HTTPError | OSError) else error)


def _warn_of_expiry(home: Home) -> None:
    for path, remedy in (
        (home.certificate, "`rainhill coordinator renew` makes a new one"),
        (home.ca, "a new authority means new bundles"),
    ):
        left = days_left(path.read_bytes(), datetime.now(UTC))
        if left < WARN_DAYS:
            log.warning("%s: %s; %s", path, f"expires in {left} days" if left >= 0 else "has expired", remedy)


def _keys(registry: Registry) -> Mapping[SiteId, bytes]:
    return {name: site.node_key.encode() for name, site in registry.active().items()}
