"""The coordinator's five exchanges of secure aggregation, after the round's updates were made and before anything is merged.

A site that fails in one of them is left out by name; whether the round bears that is for `rainhill.secagg` to say.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from rainhill import wire
from rainhill.errors import ProtocolError, RefusedError
from rainhill.messages import Refusal, SecureMessage, SiteId
from rainhill.secagg import (
    Advertisement,
    Confirmation,
    MaskedInput,
    Revealed,
    SealedShares,
    SecureSum,
    Terms,
    keys,
    roster,
    server,
)

log = logging.getLogger(__name__)

Exchange = Callable[[Mapping[SiteId, bytes]], Iterable[tuple[SiteId, bytes]]]
"""One message to each of these sites, and their answers in any order. A site may give none."""
Message = TypeVar("Message")


@dataclass(frozen=True, kw_only=True)
class Secure:
    """What a round loop needs for secure aggregation."""

    exchange: Exchange
    pinned: Mapping[SiteId, bytes]
    """The Ed25519 public key by which each site is known."""


@dataclass(frozen=True, kw_only=True)
class Talk:
    """One round's exchanges, and what became of them."""

    terms: Terms
    secure: Secure
    lost: dict[SiteId, str] = field(default_factory=dict)
    """Why a site is not in the sum, or did not help to unmask it."""
    down_bytes: dict[SiteId, int] = field(default_factory=dict)
    up_bytes: dict[SiteId, int] = field(default_factory=dict)

    def ask(self, phase: int, bodies: Mapping[SiteId, bytes], read: Callable[[bytes], Message]) -> dict[SiteId, Message]:
        """What the sites answered, read and checked; in the order of their names."""
        terms = self.terms
        blobs = {
            site: wire.secure_to_bytes(SecureMessage(run=terms.run, round=terms.round, site=site, phase=phase, body=body))
            for site, body in bodies.items()
        }
        for site, blob in blobs.items():
            self.down_bytes[site] = self.down_bytes.get(site, 0) + len(blob)
        found: dict[SiteId, Message] = {}
        for site, blob in self.secure.exchange(blobs):
            if site not in bodies or site in found:
                log.warning("an answer from %r, who was not asked or has answered, is left out", site)
                continue
            self.up_bytes[site] = self.up_bytes.get(site, 0) + len(blob)
            try:
                found[site] = read(self._body(blob, site, phase))
            except (ProtocolError, RefusedError) as error:
                self.lost[site] = str(error)
        for site in bodies.keys() - found.keys() - self.lost.keys():
            self.lost[site] = f"no answer to exchange {phase} of secure aggregation"
        return dict(sorted(found.items()))

    def _body(self, blob: bytes, site: SiteId, phase: int) -> bytes:
        answer = wire.secure_from_bytes(blob)
        if isinstance(answer, Refusal):
            raise RefusedError(answer.reason)
        asked = (self.terms.run, self.terms.round, site, phase)
        if (answer.run, answer.round, answer.site, answer.phase) != asked:
            raise ProtocolError(f"{site}: answers exchange {answer.phase} of round {answer.round}, asked was {phase} of {self.terms.round}")
        return answer.body


def aggregate(talk: Talk) -> SecureSum:
    """Raises QuorumError where too few are left, MergeError for a sum that the survivors cannot have sent."""
    terms, pinned = talk.terms, talk.secure.pinned

    def advertisement(body: bytes) -> Advertisement:
        entry = Advertisement.from_bytes(body, terms)
        roster.check_advertisement(entry, terms, pinned)
        return entry

    advertised = talk.ask(0, dict.fromkeys(terms.sites, terms.to_bytes()), advertisement)
    opened, everybody = server.gather(terms, advertised.values(), pinned=pinned)

    def shares(body: bytes) -> SealedShares:
        box = SealedShares.from_bytes(body, terms)
        server.check_shares(opened, box)
        return box

    boxes = talk.ask(1, dict.fromkeys(advertised, everybody.to_bytes(terms)), shares)
    routed, inboxes = server.route(opened, boxes.values())
    masked = talk.ask(2, {site: inbox.to_bytes(terms) for site, inbox in inboxes.items()}, lambda body: MaskedInput.from_bytes(body, terms))
    added, request = server.add_up(routed, masked.values())
    seen = roster.digest(everybody, terms)

    def confirmation(body: bytes) -> Confirmation:
        one = Confirmation.from_bytes(body, terms)
        if not keys.is_signed(roster.request_statement(request, terms, seen), one.signature, pinned[one.site]):
            raise ProtocolError(f"{one.site}: has not signed the unmask request that it was shown")
        return one

    confirmed = talk.ask(3, dict.fromkeys(masked, request.to_bytes(terms)), confirmation)
    confirmations = server.confirm(added, confirmed.values(), pinned=pinned)

    def shown(body: bytes) -> Revealed:
        answer = Revealed.from_bytes(body, terms)
        server.check_revealed(added, answer)
        return answer

    revealed = talk.ask(4, dict.fromkeys(confirmed, confirmations.to_bytes(terms)), shown)
    return server.unmask(added, revealed.values())
