"""The exchanges of secure aggregation with sites over the network: signed by who says it, as plans and answers are."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from rainhill import wire
from rainhill.errors import CredentialError, ProtocolError
from rainhill.messages import SiteId
from rainhill.stamp import EXCHANGE, EXCHANGED, stamped, unstamped
from server.flower.grid import SECURE, exchanged
from server.flower.live import Member
from server.secure import Exchange

if TYPE_CHECKING:
    from flwr.serverapp import Grid

log = logging.getLogger(__name__)

WITHIN_S = 120.0
"""For a site to answer one exchange: no fit is in it. Who has not by then is lost to the round's sum."""


def exchange_live(grid: "Grid", members: Callable[[], Mapping[SiteId, Member]], *, key: bytes, within_s: float = WITHIN_S) -> Exchange:
    """`members` are looked up anew for each exchange; `key` is the consortium's Ed25519 private key."""

    def exchange(blobs: Mapping[SiteId, bytes]) -> Iterable[tuple[SiteId, bytes]]:
        known = members()
        sites = {known[site].node: site for site in blobs if site in known}
        questions = {node: wire.to_record(stamped(blobs[site], key, purpose=EXCHANGE)) for node, site in sites.items()}
        for node, reply in exchanged(grid, questions, SECURE, within_s=within_s):
            site = sites[node]
            if reply.has_error():
                log.warning("%s: its process failed in secure aggregation (Flower error %d)", site, reply.error.code)
                continue
            try:
                yield site, unstamped(wire.from_record(reply.content), known[site].signing_key, purpose=EXCHANGED)
            except (ProtocolError, CredentialError) as error:
                log.warning("%s: its answer in secure aggregation does not hold: %s", site, error)

    return exchange
