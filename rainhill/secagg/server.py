"""The coordinator's side of one round. It only ever holds what it is sent; of secrets, those that the holders' shares rebuild."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rainhill.adapter import Adapter
from rainhill.errors import MergeError, ProtocolError, QuorumError
from rainhill.messages import SiteId
from rainhill.secagg import keys, masks, shares
from rainhill.secagg.messages import (
    Advertisement,
    Confirmation,
    Confirmations,
    Inbox,
    MaskedInput,
    Revealed,
    Roster,
    SealedShares,
    UnmaskRequest,
)
from rainhill.secagg.quantise import Words
from rainhill.secagg.roster import check_confirmations, check_quorum, check_roster, digest, holders
from rainhill.secagg.senders import by_site
from rainhill.secagg.terms import Terms

Holders = Mapping[SiteId, tuple[SiteId, ...]]


@dataclass(frozen=True, kw_only=True)
class Opened:
    terms: Terms
    roster: Roster
    holders: Holders


@dataclass(frozen=True, kw_only=True)
class Routed:
    opened: Opened
    present: tuple[SiteId, ...]
    """Who shared: pairwise masks are among these."""


@dataclass(frozen=True, kw_only=True)
class AddedUp:
    opened: Opened
    request: UnmaskRequest
    masked: Words = field(repr=False)
    """The sum of the masked inputs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SecureSum:
    survivors: tuple[SiteId, ...]
    weight: int
    """Of the survivors together."""
    total: NDArray[np.float64]
    """(size,): the weighted sum of the survivors' updates, off by at most `error_bound` in any entry."""
    error_bound: float
    mean: Adapter
    """`total` over `weight`, as float32."""


def gather(terms: Terms, advertisements: Iterable[Advertisement], *, pinned: Mapping[SiteId, bytes]) -> tuple[Opened, Roster]:
    """(0) The roster that goes to everybody on it. Who is not pinned or not rightly signed must be left out before."""
    roster = Roster(entries=by_site(advertisements, terms.sites, "advertises"))
    check_roster(roster, terms, pinned)
    return Opened(terms=terms, roster=roster, holders=holders(roster, terms)), roster


def route(state: Opened, sent: Iterable[SealedShares]) -> tuple[Routed, dict[SiteId, Inbox]]:
    """(1) The inbox of every site that shared."""
    boxes = by_site(sent, state.roster.entries, "shares")
    for box in boxes.values():
        check_shares(state, box)
    check_quorum(len(boxes), "shared their secrets", state.terms)
    present = tuple(boxes)
    inboxes = {
        site: Inbox(
            site=site,
            present=present,
            sealed={peer: boxes[peer].sealed[site] for peer in state.holders[site] if peer in boxes and peer != site},
        )
        for site in boxes
    }
    return Routed(opened=state, present=present), inboxes


def add_up(state: Routed, inputs: Iterable[MaskedInput]) -> tuple[AddedUp, UnmaskRequest]:
    """(2) What every survivor is asked. QuorumError where too few survived, or too few that hold a site's shares: nobody is asked then."""
    opened, terms = state.opened, state.opened.terms
    given = by_site(inputs, state.present, "gives a masked input")
    check_quorum(len(given), "gave a masked input", terms)
    for site in state.present:
        left = [holder for holder in opened.holders[site] if holder in given]
        if len(left) < terms.threshold:
            raise QuorumError(
                f"round {terms.round}: {len(left)} of the {len(opened.holders[site])} holders of the shares of {site} are left, "
                f"the threshold is {terms.threshold}; nothing was revealed"
            )
    masked = np.zeros(terms.layout.size, terms.quantiser.dtype)
    for one in given.values():
        masked += one.vector
    request = UnmaskRequest(survivors=tuple(given), dropped=tuple(site for site in state.present if site not in given))
    return AddedUp(opened=opened, request=request, masked=masked), request


def confirm(state: AddedUp, sent: Iterable[Confirmation], *, pinned: Mapping[SiteId, bytes]) -> Confirmations:
    """(3) What every site that confirmed is shown before it reveals anything. Who has not rightly signed must be left out before."""
    signatures = {site: one.signature for site, one in by_site(sent, state.request.survivors, "confirms").items()}
    opened = state.opened
    check_confirmations(signatures, state.request, opened.terms, roster=digest(opened.roster, opened.terms), pinned=pinned)
    return Confirmations(signatures=signatures)


def unmask(state: AddedUp, answers: Iterable[Revealed]) -> SecureSum:
    """(4) QuorumError where too few answered, ProtocolError where a secret is not the one that was advertised.

    MergeError for a sum that the survivors cannot have sent.
    """
    terms, request, quantiser = state.opened.terms, state.request, state.opened.terms.quantiser
    given = by_site(answers, request.survivors, "reveals shares")
    for answer in given.values():
        check_revealed(state, answer)
    total = state.masked.copy()
    for site in request.survivors:
        total -= _self_mask(state, site, _rebuilt(state, site, {holder: answer.seeds for holder, answer in given.items()}))
    for site in request.dropped:
        total += _left_behind(state, site, _rebuilt(state, site, {holder: answer.keys for holder, answer in given.items()}))
    weight = sum(terms.weights[site] for site in request.survivors)
    whole = quantiser.whole(total)
    if (np.abs(whole) > quantiser.levels * weight).any():
        raise MergeError(
            f"round {terms.round}: the unmasked sum holds values beyond ±{weight} x {quantiser.bound:g}, which no sites can have sent"
        )
    real = quantiser.decode(whole)
    return SecureSum(
        survivors=request.survivors,
        weight=weight,
        total=real,
        error_bound=quantiser.error_bound(weight),
        mean=terms.layout.unflatten(real / weight),
    )


def check_shares(state: Opened, box: SealedShares) -> None:
    """ProtocolError unless there is one for each neighbour: a round goes on without a site that fails here."""
    expected = set(state.holders[box.site]) - {box.site}
    if set(box.sealed) != expected:
        raise ProtocolError(f"{box.site}: shares with {len(box.sealed)} sites that are not its {len(expected)} neighbours")


def check_revealed(state: AddedUp, answer: Revealed) -> None:
    """Neighbourhoods are mutual: a site holds shares of those that hold shares of it."""
    held = state.opened.holders[answer.site]
    for got, of, kind in ((answer.seeds, state.request.survivors, "seeds"), (answer.keys, state.request.dropped, "mask keys")):
        expected = {peer for peer in held if peer in of}
        if set(got) != expected:
            raise ProtocolError(
                f"{answer.site}: reveals shares of the {kind} of {len(got)} sites, not of the {len(expected)} it was asked for"
            )


def _self_mask(state: AddedUp, site: SiteId, seed: bytes) -> Words:
    terms = state.opened.terms
    if keys.commitment(seed, site, terms=terms.digest) != state.opened.roster.entries[site].commitment:
        raise ProtocolError(f"{site}: the seed that its holders' shares give is not the one it committed to")
    return masks.self_mask(seed, site, terms=terms.digest, size=terms.layout.size, ring=terms.quantiser.ring)


def _left_behind(state: AddedUp, gone: SiteId, secret: bytes) -> Words:
    """What the dropped site would have added for the survivors, which takes away what they added for it."""
    terms, roster = state.opened.terms, state.opened.roster
    if keys.public(secret) != roster.entries[gone].mask:
        raise ProtocolError(f"{gone}: the mask key that its holders' shares give is not the one it advertised")
    size, ring = terms.layout.size, terms.quantiser.ring
    lost = np.zeros(size, terms.quantiser.dtype)
    for peer in state.opened.holders[gone]:
        if peer in state.request.survivors:
            lost += masks.pair_mask(secret, roster.entries[peer].mask, site=gone, peer=peer, terms=terms.digest, size=size, ring=ring)
    return lost


def _rebuilt(state: AddedUp, site: SiteId, revealed: Mapping[SiteId, Mapping[SiteId, bytes]]) -> bytes:
    terms = state.opened.terms
    places = {place: revealed[holder][site] for place, holder in enumerate(state.opened.holders[site]) if holder in revealed}
    if len(places) < terms.threshold:
        raise QuorumError(
            f"round {terms.round}: {len(places)} of the {len(state.opened.holders[site])} holders revealed a share of {site}, "
            f"the threshold is {terms.threshold}; the sum stays masked"
        )
    return shares.combine(places, threshold=terms.threshold)
