"""`rainhill site serve`: the hospital's daemon, which dials the coordinator and says that the site is there."""

import logging
import os
import threading
from functools import partial

from client.console import process as console
from client.console.accounts import wanted as console_wanted
from client.desk import desk_of
from client.flower.line import Contact, Where
from client.flower.node import Node
from client.home import SiteHome
from client.metrics import site_metrics
from client.offers import room
from client.results import Results
from client.status import keep_status
from client.trainer import Trainer
from rainhill import logs
from rainhill.errors import RainhillError
from rainhill.exposed import exposing
from rainhill.files import held
from rainhill.supervise import Child, keep_running, stopped_by_signals

log = logging.getLogger(__name__)

SETTLE_S = 5.0
"""Between two looks for runs that are over."""


def serve(home: SiteHome, *, json_logs: bool = False) -> None:
    """Until SIGTERM or SIGINT. RefusedError where one of this site runs already, CredentialError where it has joined no consortium."""
    # Before Flower is imported, which reads them then.
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    if home.config.network.proxy:
        os.environ["HTTPS_PROXY"] = home.config.network.proxy
    from client.flower.app import at_work
    from client.flower.live import live_app

    # First, so that a site which has neither gets no folder by asking.
    bundle, identity = home.bundle(), home.identity()
    with held(home.lock, f"the daemon of {home.config.name}"):
        stop, contact = stopped_by_signals(), Contact()
        trainer = Trainer(site_file=home.file, json_logs=json_logs)
        desk = desk_of(home, trainer.answer, trainer.outcome)
        consortium = bytes.fromhex(bundle.consortium_key)
        app = live_app(
            home.config.name, desk.answer, stand=desk.stand, exchange=desk.exchange, signing=identity.signing, consortium=consortium
        )
        work = at_work(app)
        where = Where(address=home.address, trusted=home.trusted(), key=identity.node)
        log.info("%s of %s, for %s", home.config.name, bundle.consortium, where.address)
        logs.quieten()
        _warn(home)
        node = Node(where, work, stop=stop, contact=contact, memory=home.node, room=partial(room, home, desk.journal))
        with exposing(site_metrics(home, contact, trainer), home.config.metrics):
            _work(home, node, desk.results, trainer, stop, json_logs=json_logs)


def _work(home: SiteHome, node: Node, results: Results, trainer: Trainer, stop: threading.Event, *, json_logs: bool) -> None:
    keeping = threading.Thread(target=keep_status, args=(home, node.contact, stop), name="status")
    shown = threading.Thread(target=_show, args=(home, stop), kwargs={"json_logs": json_logs}, name="console")
    keeping.start()
    shown.start()
    try:
        # At once, so that what is being trained on is not waited for.
        threading.Thread(target=_close_after, args=(stop, trainer), name="trainer", daemon=True).start()
        threading.Thread(target=_settle, args=(results, stop), name="outcomes", daemon=True).start()
        node.run()
    finally:
        stop.set()
        trainer.close()
        keeping.join()
        shown.join()


def _show(home: SiteHome, stop: threading.Event, *, json_logs: bool) -> None:
    """Keeps the console running, once somebody may sign in."""
    children: list[Child] = []

    def look() -> None:
        if not children and console_wanted(home):
            children.append(console.child(home, json_logs=json_logs))

    keep_running(children, stop=stop, meanwhile=look)


def _settle(results: Results, stop: threading.Event) -> None:
    """Looks now and then: a run may be over while it is not the site's hours, and the training process may have been ended."""
    while not stop.wait(SETTLE_S):
        try:
            results.settle()
        except (RainhillError, OSError) as error:
            log.warning("what a run came to waits: %s", error)


def _close_after(stop: threading.Event, trainer: Trainer) -> None:
    stop.wait()
    trainer.close()


def _warn(home: SiteHome) -> None:
    if home.config.privacy is not None and home.config.privacy.noise == "simulated":
        log.warning("%s: noise is simulated, anybody can work it out: not for patients", home.config.name)
