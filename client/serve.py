"""`rainhill site serve`: the hospital's daemon, which dials the coordinator and says that the site is there."""

import logging
import os
import threading
from typing import TYPE_CHECKING

from client.home import SiteHome
from client.node import Contact, Node, Where, Work
from client.status import keep_status
from rainhill import logs
from rainhill.files import held
from rainhill.supervise import stopped_by_signals

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.clientapp import ClientApp

log = logging.getLogger(__name__)


def serve(home: SiteHome) -> None:
    """Until SIGTERM or SIGINT. RefusedError where one of this site runs already, CredentialError where it has joined no consortium."""
    # Before Flower is imported, which reads them then.
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    if home.config.network.proxy:
        os.environ["HTTPS_PROXY"] = home.config.network.proxy
    from client.app import greeter

    with held(home.lock, f"the daemon of {home.config.name}"):
        bundle, identity = home.bundle(), home.identity()
        stop = stopped_by_signals()
        address = f"{bundle.coordinator.host}:{bundle.coordinator.port}"
        where = Where(address=address, trusted=home.trusted(), key=identity.node)
        log.info("%s of %s, for %s", home.config.name, bundle.consortium, where.address)
        contact, work = Contact(), at_work(greeter(lambda _: home.config.name, identity.signing))
        logs.quieten()
        keeping = threading.Thread(target=keep_status, args=(home, contact, stop), name="status")
        keeping.start()
        Node(where, work, stop=stop, contact=contact, memory=home.state / "node").run()
        keeping.join()


def at_work(app: "ClientApp") -> Work:
    """What a node does with a message: has the installed app answer it, which keeps nothing from one to the next."""
    from flwr.app import Context, RecordDict

    def work(message: "Message") -> "Message":
        about = message.metadata
        context = Context(run_id=about.run_id, node_id=about.dst_node_id, node_config={}, state=RecordDict(), run_config={})
        return app(message, context)

    return work
