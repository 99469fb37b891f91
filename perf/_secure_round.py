"""One round of secure aggregation in this process, every message as bytes, with sites that drop out; and what each side spent."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rainhill.adapter import Adapter
from rainhill.messages import SiteId
from rainhill.secagg import (
    Advertisement,
    Confirmation,
    Confirmations,
    Inbox,
    MaskedInput,
    Revealed,
    Roster,
    SealedShares,
    SecureSum,
    Terms,
    UnmaskRequest,
    client,
    server,
)

Phase = Literal["asked", "advertise", "share", "mask", "confirm"]
"""The last thing that a site did before it was gone; `asked` for one that never answered."""
_ORDER: tuple[Phase, ...] = ("asked", "advertise", "share", "mask", "confirm")

Sent = TypeVar("Sent", Advertisement, SealedShares, MaskedInput, Confirmation, Revealed)
Got = TypeVar("Got", Roster, Inbox, UnmaskRequest, Confirmations)


@dataclass(kw_only=True)
class Spent:
    client_s: dict[SiteId, float] = field(default_factory=dict)
    server_s: float = 0.0
    up_bytes: dict[SiteId, int] = field(default_factory=dict)
    down_bytes: dict[SiteId, int] = field(default_factory=dict)

    @contextmanager
    def at(self, site: SiteId | None) -> Iterator[None]:
        """CPU seconds, so that a busy machine does not count."""
        started = time.process_time()
        yield
        seconds = time.process_time() - started
        if site is None:
            self.server_s += seconds
        else:
            self.client_s[site] = self.client_s.get(site, 0.0) + seconds


@dataclass(frozen=True, kw_only=True)
class Identities:
    private: Mapping[SiteId, bytes]
    pinned: Mapping[SiteId, bytes]


def identities(sites: Mapping[SiteId, object]) -> Identities:
    made = {site: Ed25519PrivateKey.generate() for site in sites}
    return Identities(
        private={site: key.private_bytes_raw() for site, key in made.items()},
        pinned={site: key.public_key().public_bytes_raw() for site, key in made.items()},
    )


def sum_securely(
    inputs: Mapping[SiteId, Adapter], terms: Terms, *, drop_after: Mapping[SiteId, Phase] | None = None, spent: Spent | None = None
) -> SecureSum:
    """The sum over the sites that do not drop out before they have given their masked input."""
    gone, cost, who = drop_after or {}, spent or Spent(), identities(inputs)

    def there(phase: Phase) -> list[SiteId]:
        return [site for site in inputs if site not in gone or _ORDER.index(gone[site]) >= _ORDER.index(phase)]

    def up(site: SiteId, message: Sent) -> Sent:
        with cost.at(site):
            data = message.to_bytes(terms)
        cost.up_bytes[site] = cost.up_bytes.get(site, 0) + len(data)
        with cost.at(None):
            return message.from_bytes(data, terms)

    def down(site: SiteId, message: Got) -> Got:
        with cost.at(None):
            data = message.to_bytes(terms)
        cost.down_bytes[site] = cost.down_bytes.get(site, 0) + len(data)
        with cost.at(site):
            return message.from_bytes(data, terms)

    states, advertisements = _each(there("advertise"), cost, up, lambda site: client.advertise(terms, site, identity=who.private[site]))
    with cost.at(None):
        opened, roster = server.gather(terms, advertisements, pinned=who.pinned)
    rosters = {site: down(site, roster) for site in states}
    sharing, boxes = _each(there("share"), cost, up, lambda site: client.share(states[site], rosters[site], pinned=who.pinned))
    with cost.at(None):
        routed, inboxes = server.route(opened, boxes)
    received = {site: down(site, inbox) for site, inbox in inboxes.items()}
    masking, vectors = _each(there("mask"), cost, up, lambda site: client.mask(sharing[site], received[site], inputs[site]))
    with cost.at(None):
        added, request = server.add_up(routed, vectors)
    asked = {site: down(site, request) for site in masking}
    confirming, signed = _each(
        there("confirm"), cost, up, lambda site: client.confirm(masking[site], asked[site], identity=who.private[site])
    )
    with cost.at(None):
        confirmations = server.confirm(added, signed, pinned=who.pinned)
    shown = {site: down(site, confirmations) for site in confirming}
    answering = [site for site in confirming if site not in gone]
    _, answers = _each(answering, cost, up, lambda site: (None, client.reveal(confirming[site], shown[site], pinned=who.pinned)))
    with cost.at(None):
        return server.unmask(added, answers)


State = TypeVar("State")


def _each(
    sites: list[SiteId], cost: Spent, up: Callable[[SiteId, Sent], Sent], act: Callable[[SiteId], tuple[State, Sent]]
) -> tuple[dict[SiteId, State], list[Sent]]:
    states, sent = {}, []
    for site in sites:
        with cost.at(site):
            states[site], message = act(site)
        sent.append(up(site, message))
    return states, sent
