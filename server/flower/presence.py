"""What the SuperLink knows of sites and callers, for the coordinator's metrics: who is there, since when not, and what was refused."""

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from rainhill.messages import SiteId
from server.flower.link import Link, control_of
from server.flower.superlink import BEARER, COUNTS

CALL_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Presence:
    here: bool
    silent_s: float | None
    """Since its last heartbeat, a minute too much where it said that it leaves; None where it never came."""


def presence(link: Link, keys: Mapping[SiteId, bytes]) -> dict[SiteId, Presence]:
    """Of each of these sites, by their node keys (PEM)."""
    from flwr.common.constant import HEARTBEAT_PATIENCE
    from flwr.proto.control_pb2 import ListNodesRequest

    with control_of(link) as control:
        nodes = {bytes(node.public_key): node for node in control.ListNodes(ListNodesRequest()).nodes_info}
    now, found = time.time(), {}
    for site, pem in keys.items():
        node = nodes.get(pem)
        came = node is not None and node.online_until > 0
        # Flower keeps only until when it takes a node to be there: so many intervals after the last heartbeat.
        last = node.online_until - HEARTBEAT_PATIENCE * node.heartbeat_interval if node is not None else 0.0
        found[site] = Presence(here=node is not None and node.status == "online", silent_s=max(now - last, 0.0) if came else None)
    return found


def refused_calls(link: Link) -> dict[str, int]:
    """How many calls the guard has refused since the SuperLink began, by `server.flower.superlink.Kind`."""
    trusted = ssl.create_default_context(cadata=link.ca.read_bytes().decode("ascii"))
    shown = {"authorization": BEARER + link.secret.decode()}
    answer = httpx.get(f"https://{link.address}{COUNTS}", verify=trusted, headers=shown, timeout=CALL_S)
    return {str(kind): int(count) for kind, count in answer.raise_for_status().json().items()}
