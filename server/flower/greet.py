"""Who is in contact, asked: each site says what it runs and what its clock shows, and proves who it is."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rainhill.errors import CredentialError
from rainhill.greeting import NONCE, opened_greeting
from rainhill.messages import SiteId
from server.flower.link import Link, admit_only, connected, opened_grid
from server.registry import Site

WITHIN_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Greeted:
    software: str
    protocols: tuple[int, ...]
    ahead_s: float
    """Of its clock before this one, less than the time that the answer took; Flower bears 5 s at most."""


def greet(link: Link, sites: Mapping[SiteId, Site], *, within_s: float = WITHIN_S) -> dict[SiteId, Greeted | str]:
    """Of the sites that are in contact: what they say, or why nothing is known of them."""
    from flwr.app import ConfigRecord, RecordDict

    from server.flower.grid import HELLO, exchanged

    keys = {name: site.node_key.encode() for name, site in sites.items()}
    nodes = admit_only(link, keys)
    here = {nodes[name]: name for name, there in connected(link, keys).items() if there}
    nonces = {node: os.urandom(NONCE) for node in here}
    found: dict[SiteId, Greeted | str] = dict.fromkeys(here.values(), f"did not answer within {within_s:g} s")
    if not here:
        return found
    with opened_grid(link) as grid:
        questions = {node: RecordDict({"hello": ConfigRecord({"nonce": nonce})}) for node, nonce in nonces.items()}
        for node, reply in exchanged(grid, questions, HELLO, within_s=within_s):
            name = here[node]
            found[name] = _said(reply, sites[name], nonces[node])
    return found


def _said(reply: object, site: Site, nonce: bytes) -> Greeted | str:
    from flwr.app import Message

    assert isinstance(reply, Message)
    if reply.has_error():
        return f"failed (Flower error {reply.error.code})"
    try:
        data = reply.content.config_records["hello"]["greeting"]
        said = opened_greeting(data if isinstance(data, bytes) else b"", site=site.name, nonce=nonce, public=site.signing_key)
    except (KeyError, CredentialError) as error:
        return f"is not who it says: {error}"
    return Greeted(software=said.software, protocols=said.protocols, ahead_s=(said.time - datetime.now(UTC)).total_seconds())
