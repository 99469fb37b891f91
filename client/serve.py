"""`rainhill site serve`: the hospital's daemon, which dials the coordinator and says that the site is there."""

import logging
import os
import threading

from client.flower.line import Contact, Where
from client.flower.node import Node
from client.home import SiteHome
from client.status import keep_status
from rainhill import logs
from rainhill.files import held
from rainhill.supervise import stopped_by_signals

log = logging.getLogger(__name__)


def serve(home: SiteHome) -> None:
    """Until SIGTERM or SIGINT. RefusedError where one of this site runs already, CredentialError where it has joined no consortium."""
    # Before Flower is imported, which reads them then.
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    if home.config.network.proxy:
        os.environ["HTTPS_PROXY"] = home.config.network.proxy
    from client.flower.app import at_work, greeter

    # First, so that a site which has neither gets no folder by asking.
    bundle, identity = home.bundle(), home.identity()
    with held(home.lock, f"the daemon of {home.config.name}"):
        stop, contact = stopped_by_signals(), Contact()
        work = at_work(greeter(lambda _: home.config.name, identity.signing))
        where = Where(address=home.address, trusted=home.trusted(), key=identity.node)
        log.info("%s of %s, for %s", home.config.name, bundle.consortium, where.address)
        logs.quieten()
        keeping = threading.Thread(target=keep_status, args=(home, contact, stop), name="status")
        keeping.start()
        try:
            Node(where, work, stop=stop, contact=contact, memory=home.node).run()
        finally:
            stop.set()
            keeping.join()
