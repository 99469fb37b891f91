"""What both sides demand of the advertised keys, and the graph that follows from them."""

import hashlib
import json
from collections.abc import Mapping

from rainhill.errors import ProtocolError, QuorumError, RefusedError
from rainhill.messages import SiteId
from rainhill.secagg import graph, keys
from rainhill.secagg.messages import Advertisement, Roster, UnmaskRequest
from rainhill.secagg.terms import Terms


def statement(entry: Advertisement, terms: Terms) -> bytes:
    """What a site signs: these keys are its own, in this round on these terms."""
    return json.dumps(
        ["rainhill secagg 1 advertisement", terms.digest, entry.site, entry.cipher.hex(), entry.mask.hex(), entry.commitment.hex()],
        separators=(",", ":"),
    ).encode()


def check_advertisement(entry: Advertisement, terms: Terms, pinned: Mapping[SiteId, bytes]) -> None:
    """`pinned` are the Ed25519 public keys by which the sites are known, 32 bytes each."""
    if entry.site not in pinned:
        raise RefusedError(
            f"{entry.site}: takes part in round {terms.round}, and its signing key is not among the {len(pinned)} pinned ones"
        )
    if not keys.is_signed(statement(entry, terms), entry.signature, pinned[entry.site]):
        raise ProtocolError(f"{entry.site}: its keys for round {terms.round} are not signed with the key that is pinned for it")


def request_statement(request: UnmaskRequest, terms: Terms, roster: str) -> bytes:
    """What a site signs of the request it was shown. The digest of the roster is in it: terms may be tried again, its keys are fresh."""
    return json.dumps(
        ["rainhill secagg 1 unmask request", terms.digest, roster, request.survivors, request.dropped], separators=(",", ":")
    ).encode()


def check_confirmations(
    signatures: Mapping[SiteId, bytes], request: UnmaskRequest, terms: Terms, *, roster: str, pinned: Mapping[SiteId, bytes]
) -> None:
    """Enough survivors have signed this very request. Bonawitz's consistency check."""
    said = request_statement(request, terms, roster)
    for site, signature in signatures.items():
        if site not in request.survivors:
            raise ProtocolError(f"{site}: confirms an unmask request, and is not one of its {len(request.survivors)} survivors")
        if site not in pinned or not keys.is_signed(said, signature, pinned[site]):
            raise ProtocolError(f"{site}: has not signed this unmask request of round {terms.round} with the key that is pinned for it")
    check_quorum(len(signatures), "confirmed the unmask request", terms)


def check_roster(roster: Roster, terms: Terms, pinned: Mapping[SiteId, bytes]) -> None:
    check_quorum(len(roster.entries), "advertised keys", terms)
    for entry in roster.entries.values():
        check_advertisement(entry, terms, pinned)
    public = [key for entry in roster.entries.values() for key in (entry.cipher, entry.mask)]
    if len(set(public)) < len(public):
        raise ProtocolError(f"round {terms.round}: {len(public)} advertised keys, of which only {len(set(public))} differ")


def check_quorum(count: int, did: str, terms: Terms) -> None:
    if count < terms.quorum:
        raise QuorumError(
            f"round {terms.round}: {count} of {len(terms.sites)} sites {did}, the quorum of secure aggregation is {terms.quorum}; "
            "nothing was revealed"
        )


def digest(roster: Roster, terms: Terms) -> str:
    """sha256 of its bytes, in hex."""
    return hashlib.sha256(roster.to_bytes(terms)).hexdigest()


def holders(roster: Roster, terms: Terms) -> Mapping[SiteId, tuple[SiteId, ...]]:
    """Of each site's shares, itself included; a holder's place is the index of its share."""
    return graph.holders(sorted(roster.entries), degree=terms.degree, seed=bytes.fromhex(digest(roster, terms)))
