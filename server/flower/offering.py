"""An offer brought to the sites in contact, and how each stands to it."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rainhill.errors import CredentialError
from rainhill.greeting import NONCE
from rainhill.messages import SiteId
from rainhill.offer import Offer
from rainhill.standing import Standing, opened_standing
from server.flower.grid import exchanged
from server.flower.live import Member

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.serverapp import Grid

OFFER = "query.offer"
WITHIN_S, EACH_S = 10.0, 0.5
"""For a site to answer; and so much more of each that is asked: an answer takes twenty calls, and a SuperLink some hundred a second."""


def standings(
    grid: "Grid", members: Mapping[SiteId, Member], sealed: bytes, offer: Offer, *, number: int = 0, within_s: float = WITHIN_S
) -> dict[SiteId, Standing | str]:
    """Of the members in contact, before round `number`, 0 where none has begun. Of one that does not answer as it should, why."""
    from flwr.app import ConfigRecord, RecordDict

    online = {node.node_id for node in grid.get_nodes() if node.status == "online"}
    here = {member.node: site for site, member in members.items() if member.node in online}
    nonces = {node: os.urandom(NONCE) for node in here}
    questions = {
        node: RecordDict({"offer": ConfigRecord({"offer": sealed, "round": number, "nonce": nonce})}) for node, nonce in nonces.items()
    }
    within_s += EACH_S * len(here)
    found: dict[SiteId, Standing | str] = dict.fromkeys(here.values(), f"did not answer within {within_s:g} s")
    for node, reply in exchanged(grid, questions, OFFER, within_s=within_s):
        site = here[node]
        found[site] = _said(reply, site, offer, nonces[node], members[site].signing_key)
    return found


def _said(reply: "Message", site: SiteId, offer: Offer, nonce: bytes, public: bytes) -> Standing | str:
    if reply.has_error():
        return f"could not take the offer (Flower error {reply.error.code})"
    try:
        data = reply.content.config_records["offer"]["standing"]
        sealed = data if isinstance(data, bytes) else b""
        return opened_standing(sealed, site=site, run=offer.run, offer=offer.sha256, nonce=nonce, public=public)
    except (KeyError, CredentialError) as error:
        return f"its answer to the offer does not hold: {error}"
