"""A site's side of one round: five steps, each of which takes the state that the one before it gave.

A state is used once, and holds secrets: whoever keeps it between messages (`kept.to_bytes`) puts the next one in its place before the
message leaves the site, and deletes the last when the round is over. A site that has lost its state has dropped out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rainhill.adapter import Adapter
from rainhill.errors import ProtocolError, RefusedError
from rainhill.messages import SiteId
from rainhill.secagg import keys, masks, roster, shares
from rainhill.secagg.keys import KEY, Route, Secrets
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
from rainhill.secagg.terms import Terms


@dataclass(frozen=True, kw_only=True)
class Advertised:
    terms: Terms
    site: SiteId
    secrets: Secrets


@dataclass(frozen=True, kw_only=True)
class Shared:
    terms: Terms
    site: SiteId
    secrets: Secrets
    roster: Roster
    own: bytes = field(repr=False)
    """The site's shares of its own two secrets: of the mask key, then of the seed."""


@dataclass(frozen=True, kw_only=True)
class Masked:
    """No key is left in it: what a site still gives are its shares."""

    terms: Terms
    site: SiteId
    roster: str
    """Its digest."""
    present: tuple[SiteId, ...]
    held: Mapping[SiteId, bytes] = field(repr=False)
    """By whose they are: the share of the mask key, then of the seed."""
    confirmed: UnmaskRequest | None = None


def advertise(terms: Terms, site: SiteId, *, identity: bytes) -> tuple[Advertised, Advertisement]:
    """(0) Fresh keys, signed with the site's long-term Ed25519 private key, `identity`."""
    if site not in terms.weights:
        raise RefusedError(f"{site}: is not one of the {len(terms.sites)} sites of round {terms.round}")
    secrets = Secrets.fresh()
    entry = Advertisement(
        site=site,
        cipher=keys.public(secrets.cipher),
        mask=keys.public(secrets.mask),
        commitment=keys.commitment(secrets.seed, site, terms=terms.digest),
        signature=b"",
    )
    signed = replace(entry, signature=keys.sign(roster.statement(entry, terms), identity))
    return Advertised(terms=terms, site=site, secrets=secrets), signed


def share(state: Advertised, received: Roster, *, pinned: Mapping[SiteId, bytes]) -> tuple[Shared, SealedShares]:
    """(1) One share of each of the two secrets for every holder. `pinned`: the long-term Ed25519 public keys of the sites."""
    terms, secrets = state.terms, state.secrets
    roster.check_roster(received, terms, pinned)
    entry = received.entries.get(state.site)
    if entry is None or (entry.cipher, entry.mask) != (keys.public(secrets.cipher), keys.public(secrets.mask)):
        raise RefusedError(f"{state.site}: the roster of round {terms.round} does not hold the keys that it advertised")
    holders = roster.holders(received, terms)[state.site]
    parts = [shares.split(secret, threshold=terms.threshold, count=len(holders)) for secret in (secrets.mask, secrets.seed)]
    plain = {holder: parts[0][place] + parts[1][place] for place, holder in enumerate(holders)}
    own, seen = plain.pop(state.site), roster.digest(received, terms)
    sealed = {
        holder: keys.seal(
            both,
            Route(sender=state.site, receiver=holder, terms=terms.digest, roster=seen),
            secret=secrets.cipher,
            peer=received.entries[holder].cipher,
        )
        for holder, both in plain.items()
    }
    return Shared(terms=terms, site=state.site, secrets=secrets, roster=received, own=own), SealedShares(site=state.site, sealed=sealed)


def mask(state: Shared, inbox: Inbox, update: Adapter) -> tuple[Masked, MaskedInput]:
    """(2) The update as whole numbers, plus the site's own mask, plus or minus one with each neighbour that shared.

    RefusedError for a value outside the declared range. Two different updates under one state would tell their difference.
    """
    terms, quantiser = state.terms, state.terms.quantiser
    held = _opened(state, inbox)
    vector = quantiser.encode(update, terms.layout, weight=terms.weights[state.site])
    size, ring, digest = terms.layout.size, quantiser.ring, terms.digest
    vector += masks.self_mask(state.secrets.seed, state.site, terms=digest, size=size, ring=ring)
    for peer in inbox.sealed:
        key = state.roster.entries[peer].mask
        vector += masks.pair_mask(state.secrets.mask, key, site=state.site, peer=peer, terms=digest, size=size, ring=ring)
    seen = roster.digest(state.roster, terms)
    return Masked(terms=terms, site=state.site, roster=seen, present=inbox.present, held=held), MaskedInput(site=state.site, vector=vector)


def confirm(state: Masked, request: UnmaskRequest, *, identity: bytes) -> tuple[Masked, Confirmation]:
    """(3) The site's signature under the request, of which it signs one in a round.

    RefusedError for a request that would give more away than the sum, or another one than it has confirmed.
    """
    _check_request(state, request)
    signature = keys.sign(roster.request_statement(request, state.terms, state.roster), identity)
    return replace(state, confirmed=request), Confirmation(site=state.site, signature=signature)


def reveal(state: Masked, received: Confirmations, *, pinned: Mapping[SiteId, bytes]) -> Revealed:
    """(4) For each site whose shares it holds, the share of one secret: of the seed if it survived, of the mask key if it dropped out.

    Not before a quorum of survivors has confirmed the request that this site has.
    """
    request = state.confirmed
    if request is None:
        raise RefusedError(f"{state.site}: is asked to reveal shares in round {state.terms.round}, and has confirmed no request")
    roster.check_confirmations(received.signatures, request, state.terms, roster=state.roster, pinned=pinned)
    seeds = {site: both[KEY:] for site, both in state.held.items() if site in request.survivors}
    mask_keys = {site: both[:KEY] for site, both in state.held.items() if site in request.dropped}
    return Revealed(site=state.site, seeds=seeds, keys=mask_keys)


def _opened(state: Shared, inbox: Inbox) -> dict[SiteId, bytes]:
    """The shares that this site holds from now on, by whose they are. They are opened before the update is masked, so that it is masked
    only with sites that are there: nobody else can have sealed for this round's keys."""
    _check_inbox(state, inbox)
    seen = roster.digest(state.roster, state.terms)
    opened = {
        sender: keys.unseal(
            sealed,
            Route(sender=sender, receiver=state.site, terms=state.terms.digest, roster=seen),
            secret=state.secrets.cipher,
            peer=state.roster.entries[sender].cipher,
        )
        for sender, sealed in inbox.sealed.items()
    }
    return {**opened, state.site: state.own}


def _check_inbox(state: Shared, inbox: Inbox) -> None:
    terms, site = state.terms, state.site
    if inbox.site != site:
        raise ProtocolError(f"{site}: the inbox is for {inbox.site}")
    if site not in inbox.present or not set(inbox.present) <= set(state.roster.entries):
        raise ProtocolError(f"{site}: the {len(inbox.present)} sites said to have shared lack it, or are not all on the roster")
    roster.check_quorum(len(inbox.present), "shared their secrets", terms)
    senders = {holder for holder in roster.holders(state.roster, terms)[site] if holder in inbox.present} - {site}
    if odd := senders ^ set(inbox.sealed):
        what = "is said to have shared, and its shares are missing" if min(odd) in senders else "is no neighbour that shared"
        raise ProtocolError(f"{site}: {min(odd)} {what}")
    if len(senders) + 1 < terms.threshold:
        raise RefusedError(f"{site}: {len(senders) + 1} holders of its shares are left, the threshold is {terms.threshold}")


def _check_request(state: Masked, request: UnmaskRequest) -> None:
    site, survivors, dropped = state.site, set(request.survivors), set(request.dropped)
    if state.confirmed not in (None, request):
        raise RefusedError(f"{site}: has confirmed {len(state.confirmed.survivors)} survivors, and is shown {len(survivors)} others")
    if both := survivors & dropped:
        raise RefusedError(f"{site}: is asked for both secrets of {min(both)}, which together would lay its update bare")
    if odd := (survivors | dropped) ^ set(state.present):
        raise RefusedError(f"{site}: {min(odd)} is {'not said to have survived or dropped out' if min(odd) in state.present else 'new'}")
    if site in dropped:
        raise RefusedError(f"{site}: is said to have dropped out, and has given its masked update")
    if len(survivors) < state.terms.quorum:
        raise RefusedError(
            f"{site}: is asked to unmask a sum of {len(survivors)} sites, the quorum of secure aggregation is {state.terms.quorum}"
        )
