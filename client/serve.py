"""`rainhill site serve`: the hospital's daemon, which dials the coordinator and says that the site is there."""

import logging
import os
import threading

from client.desk import desk_of
from client.flower.line import Contact, Where
from client.flower.node import Node
from client.home import SiteHome
from client.metrics import site_metrics
from client.status import keep_status
from client.trainer import Trainer
from rainhill import logs
from rainhill.exposed import exposing
from rainhill.files import held
from rainhill.supervise import stopped_by_signals

log = logging.getLogger(__name__)


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
        desk = desk_of(home, trainer)
        consortium = bytes.fromhex(bundle.consortium_key)
        work = at_work(live_app(home.config.name, desk.answer, stand=desk.stand, signing=identity.signing, consortium=consortium))
        where = Where(address=home.address, trusted=home.trusted(), key=identity.node)
        log.info("%s of %s, for %s", home.config.name, bundle.consortium, where.address)
        logs.quieten()
        _warn(home)
        with exposing(site_metrics(home, contact, trainer), home.config.metrics):
            _work(home, Node(where, work, stop=stop, contact=contact, memory=home.node), trainer, stop)


def _work(home: SiteHome, node: Node, trainer: Trainer, stop: threading.Event) -> None:
    keeping = threading.Thread(target=keep_status, args=(home, node.contact, stop), name="status")
    keeping.start()
    try:
        # At once, so that what is being trained on is not waited for.
        threading.Thread(target=_close_after, args=(stop, trainer), name="trainer", daemon=True).start()
        node.run()
    finally:
        stop.set()
        trainer.close()
        keeping.join()


def _close_after(stop: threading.Event, trainer: Trainer) -> None:
    stop.wait()
    trainer.close()


def _warn(home: SiteHome) -> None:
    if home.config.privacy is not None and home.config.privacy.noise == "simulated":
        log.warning("%s: noise is simulated, anybody can work it out: not for patients", home.config.name)
