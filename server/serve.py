"""`rainhill coordinator serve`: keeps the SuperLink running, and has it know the sites that are enrolled and no others."""

import json
import logging
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import httpx

from rainhill.errors import DatabaseError
from rainhill.files import held
from rainhill.messages import SiteId
from rainhill.supervise import Child, keep_running, stopped_by_signals
from server.chain import days_left
from server.database import Database
from server.flower.link import Link, admit_only
from server.flower.superlink import LinkConfig
from server.home import WARN_DAYS, Home, secret_of
from server.registry import Registry

log = logging.getLogger(__name__)

SYNC_S = 2.0
"""How long at most a site that was revoked is still heard."""
REMIND_OF_EXPIRY_S = 24 * 3600.0
REMIND_S = 60.0
"""The SuperLink is told all again now and then: it may have been restarted with an empty database."""


def serve(home: Home, *, json_logs: bool = False) -> None:
    """Until SIGTERM or SIGINT. RefusedError where one runs in this folder already."""
    with held(home.folder / "serve.lock", "a coordinator"):
        registry = Registry(database=Database.open(home.database_url))
        stop = stopped_by_signals()
        syncing = threading.Thread(target=_sync, args=(home, registry, stop), name="registry", daemon=True)
        syncing.start()
        keep_running([superlink(home, json_logs=json_logs)], stop=stop)
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
        json_logs=json_logs,
    )
    return Child(name="SuperLink", command=[sys.executable, "-m", "server.flower.superlink", json.dumps(config.model_dump(mode="json"))])


def _sync(home: Home, registry: Registry, stop: threading.Event) -> None:
    link, told, age, warned = link_of(home), None, 0.0, -REMIND_OF_EXPIRY_S
    while not stop.wait(SYNC_S):
        age += SYNC_S
        if time.monotonic() - warned >= REMIND_OF_EXPIRY_S:
            _warn_of_expiry(home)
            warned = time.monotonic()
        try:
            keys = _keys(registry)
            if keys != told or age >= REMIND_S:
                admit_only(link, keys)
                told, age = keys, 0.0
        except DatabaseError as error:
            log.warning("the SuperLink goes on with the sites that it knows: %s", error)
        except (httpx.HTTPError, OSError) as error:
            told = None
            log.info("the SuperLink does not answer yet: %s", error)


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
