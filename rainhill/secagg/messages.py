"""What crosses in a round of secure aggregation, as frozen data; `to_bytes` and `from_bytes` hold each against the round's terms."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rainhill.errors import ProtocolError
from rainhill.messages import SiteId
from rainhill.secagg import blob
from rainhill.secagg.blob import Blob, Form
from rainhill.secagg.keys import KEY, SEALED_EXTRA, SIGNATURE
from rainhill.secagg.quantise import Words
from rainhill.secagg.terms import Terms

_ADVERTISEMENT = Form(kind="advertisement", row=3 * KEY + SIGNATURE)
_ROSTER = Form(kind="roster", row=3 * KEY + SIGNATURE)
_SHARES = Form(kind="shares", row=2 * KEY + SEALED_EXTRA)
_INBOX = Form(kind="inbox", row=2 * KEY + SEALED_EXTRA)
_MASKED = Form(kind="masked input", vector=True)
_REQUEST = Form(kind="unmask request")
_CONFIRMATION = Form(kind="confirmation", row=SIGNATURE)
_CONFIRMATIONS = Form(kind="confirmations", row=SIGNATURE)
_REVEALED = Form(kind="revealed", row=KEY, other=KEY)


@dataclass(frozen=True, kw_only=True)
class Advertisement:
    """(0) A site's public keys for the round, signed with its long-term key."""

    site: SiteId
    cipher: bytes = field(repr=False)
    mask: bytes = field(repr=False)
    commitment: bytes = field(repr=False)
    """To the seed of the self mask."""
    signature: bytes = field(repr=False)

    def row(self) -> bytes:
        return self.cipher + self.mask + self.commitment + self.signature

    @classmethod
    def from_row(cls, site: SiteId, row: bytes) -> "Advertisement":
        cipher, mask, commitment = (row[start : start + KEY] for start in range(0, 3 * KEY, KEY))
        return cls(site=site, cipher=cipher, mask=mask, commitment=commitment, signature=row[3 * KEY :])

    def to_bytes(self, terms: Terms) -> bytes:
        return blob.to_bytes(Blob(site=self.site, rows={self.site: self.row()}), _ADVERTISEMENT, terms)

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> "Advertisement":
        read = blob.from_bytes(data, _ADVERTISEMENT, terms)
        return cls.from_row(read.site, only(read.rows, read.site))


@dataclass(frozen=True, kw_only=True)
class Roster:
    """(0) Everybody who advertised."""

    entries: Mapping[SiteId, Advertisement]

    def to_bytes(self, terms: Terms) -> bytes:
        return blob.to_bytes(Blob(rows={site: entry.row() for site, entry in self.entries.items()}), _ROSTER, terms)

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> "Roster":
        read = blob.from_bytes(data, _ROSTER, terms)
        return cls(entries={site: Advertisement.from_row(site, row) for site, row in read.rows.items()})


@dataclass(frozen=True, kw_only=True)
class SealedShares:
    """(1) From one site: what only each receiver can open."""

    site: SiteId
    sealed: Mapping[SiteId, bytes] = field(repr=False)

    def to_bytes(self, terms: Terms) -> bytes:
        return blob.to_bytes(Blob(site=self.site, rows=self.sealed), _SHARES, terms)

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> "SealedShares":
        read = blob.from_bytes(data, _SHARES, terms)
        return cls(site=read.site, sealed=read.rows)


@dataclass(frozen=True, kw_only=True)
class Inbox:
    """(1) For one site: the sealed shares of its neighbours, by sender."""

    site: SiteId
    sealed: Mapping[SiteId, bytes] = field(repr=False)
    present: tuple[SiteId, ...]
    """Everybody who shared, neighbour or not, in order."""

    def to_bytes(self, terms: Terms) -> bytes:
        return blob.to_bytes(Blob(site=self.site, rows=self.sealed, others=dict.fromkeys(self.present, b"")), _INBOX, terms)

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> "Inbox":
        read = blob.from_bytes(data, _INBOX, terms)
        return cls(site=read.site, sealed=read.rows, present=tuple(read.others))


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedInput:
    """(2) A site's update as whole numbers, under all its masks."""

    site: SiteId
    vector: Words = field(repr=False)

    def to_bytes(self, terms: Terms) -> bytes:
        return blob.to_bytes(Blob(site=self.site, vector=self.vector), _MASKED, terms)

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> "MaskedInput":
        read = blob.from_bytes(data, _MASKED, terms)
        assert read.vector is not None
        return cls(site=read.site, vector=read.vector)


@dataclass(frozen=True, kw_only=True)
class UnmaskRequest:
    """(3) Who is in the sum, and who shared but gave no masked input; in order."""

    survivors: tuple[SiteId, ...]
    dropped: tuple[SiteId, ...]

    def to_bytes(self, terms: Terms) -> bytes:
        lists = Blob(rows=dict.fromkeys(self.survivors, b""), others=dict.fromkeys(self.dropped, b""))
        return blob.to_bytes(lists, _REQUEST, terms)

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> "UnmaskRequest":
        read = blob.from_bytes(data, _REQUEST, terms)
        return cls(survivors=tuple(read.rows), dropped=tuple(read.others))


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """(3) A site's signature under the unmask request that it was shown."""

    site: SiteId
    signature: bytes = field(repr=False)

    def to_bytes(self, terms: Terms) -> bytes:
        return blob.to_bytes(Blob(site=self.site, rows={self.site: self.signature}), _CONFIRMATION, terms)

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> "Confirmation":
        read = blob.from_bytes(data, _CONFIRMATION, terms)
        return cls(site=read.site, signature=only(read.rows, read.site))


@dataclass(frozen=True, kw_only=True)
class Confirmations:
    """(4) Everybody's, for everybody: that all were shown the same request."""

    signatures: Mapping[SiteId, bytes] = field(repr=False)

    def to_bytes(self, terms: Terms) -> bytes:
        return blob.to_bytes(Blob(rows=self.signatures), _CONFIRMATIONS, terms)

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> "Confirmations":
        return cls(signatures=blob.from_bytes(data, _CONFIRMATIONS, terms).rows)


@dataclass(frozen=True, kw_only=True)
class Revealed:
    """(4) From one site: its share of the seed of every survivor, and of the mask key of every dropped site, that it holds shares of."""

    site: SiteId
    seeds: Mapping[SiteId, bytes] = field(repr=False)
    keys: Mapping[SiteId, bytes] = field(repr=False)

    def to_bytes(self, terms: Terms) -> bytes:
        return blob.to_bytes(Blob(site=self.site, rows=self.seeds, others=self.keys), _REVEALED, terms)

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> "Revealed":
        read = blob.from_bytes(data, _REVEALED, terms)
        return cls(site=read.site, seeds=read.rows, keys=read.others)


def only(rows: Mapping[SiteId, bytes], site: SiteId) -> bytes:
    """The one row of a message that may hold no other."""
    if list(rows) != [site]:
        raise ProtocolError(f"{site}: speaks for {', '.join(rows) or 'nobody'}")
    return rows[site]
