"""A site's state between two messages, for a daemon whose process ends after each. The bytes hold secrets, and stay at the site.

They belong in a file that only the daemon can read, written before the message that the same step made leaves the site: a site that
went back to an older state could be made to answer twice. The last is deleted when the round is over.
"""

from rainhill.secagg import blob
from rainhill.secagg.blob import Blob, Form
from rainhill.secagg.client import Advertised, Masked, Shared
from rainhill.secagg.keys import KEY, SIGNATURE, Secrets
from rainhill.secagg.messages import Advertisement, Roster, UnmaskRequest, only
from rainhill.secagg.terms import Terms

_ADVERTISED = Form(kind="kept keys", row=3 * KEY)
_SHARED = Form(kind="kept roster", row=3 * KEY + SIGNATURE, other=5 * KEY)
_MASKED = Form(kind="kept shares", row=2 * KEY, other=1 + KEY)
_UNASKED, _SURVIVOR, _DROPPED = b"?", b"+", b"-"


def to_bytes(state: Advertised | Shared | Masked) -> bytes:
    if isinstance(state, Advertised):
        return blob.to_bytes(Blob(site=state.site, rows={state.site: _joined(state.secrets)}), _ADVERTISED, state.terms)
    if isinstance(state, Shared):
        rows = {site: entry.row() for site, entry in state.roster.entries.items()}
        return blob.to_bytes(
            Blob(site=state.site, rows=rows, others={state.site: _joined(state.secrets) + state.own}), _SHARED, state.terms
        )
    marks = {site: _mark(site, state.confirmed) + bytes.fromhex(state.roster) for site in state.present}
    return blob.to_bytes(Blob(site=state.site, rows=state.held, others=marks), _MASKED, state.terms)


def advertised(data: bytes, terms: Terms) -> Advertised:
    read = blob.from_bytes(data, _ADVERTISED, terms)
    return Advertised(terms=terms, site=read.site, secrets=_apart(only(read.rows, read.site)))


def shared(data: bytes, terms: Terms) -> Shared:
    read = blob.from_bytes(data, _SHARED, terms)
    own = only(read.others, read.site)
    roster = Roster(entries={site: Advertisement.from_row(site, row) for site, row in read.rows.items()})
    return Shared(terms=terms, site=read.site, secrets=_apart(own[: 3 * KEY]), roster=roster, own=own[3 * KEY :])


def masked(data: bytes, terms: Terms) -> Masked:
    read = blob.from_bytes(data, _MASKED, terms)
    marked = {mark: tuple(site for site, one in read.others.items() if one[:1] == mark) for mark in (_SURVIVOR, _DROPPED)}
    confirmed = UnmaskRequest(survivors=marked[_SURVIVOR], dropped=marked[_DROPPED]) if any(marked.values()) else None
    roster = read.others[read.site][1:].hex()
    return Masked(terms=terms, site=read.site, roster=roster, present=tuple(read.others), held=read.rows, confirmed=confirmed)


def _mark(site: str, confirmed: UnmaskRequest | None) -> bytes:
    if confirmed is None:
        return _UNASKED
    return _SURVIVOR if site in confirmed.survivors else _DROPPED


def _joined(secrets: Secrets) -> bytes:
    return secrets.cipher + secrets.mask + secrets.seed


def _apart(joined: bytes) -> Secrets:
    return Secrets(cipher=joined[:KEY], mask=joined[KEY : 2 * KEY], seed=joined[2 * KEY :])
