"""Key pairs, agreed keys, sealed shares and signatures: X25519, HKDF-SHA256, ChaCha20-Poly1305 and Ed25519.

Every derived key is bound to its purpose, to the digest of the round's terms (so to the run and the round) and to the sites it is for.
"""

import json
import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from rainhill.errors import ProtocolError
from rainhill.messages import SiteId

KEY = 32
"""Bytes of every key, seed and commitment here."""
SIGNATURE = 64
NONCE, TAG = 12, 16
SEALED_EXTRA = NONCE + TAG
_LABEL = "rainhill secagg 1"


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """What a site makes anew for each round: two X25519 private keys and the seed of its self mask, 32 bytes each."""

    cipher: bytes = field(repr=False)
    """Opens what others seal for the site. Bonawitz's c^SK."""
    mask: bytes = field(repr=False)
    """Agrees on pairwise masks, and is shared. Bonawitz's s^SK."""
    seed: bytes = field(repr=False)
    """Bonawitz's b."""

    @classmethod
    def fresh(cls) -> "Secrets":
        return cls(
            cipher=X25519PrivateKey.generate().private_bytes_raw(),
            mask=X25519PrivateKey.generate().private_bytes_raw(),
            seed=os.urandom(KEY),
        )


@dataclass(frozen=True, kw_only=True)
class Route:
    """What sealed shares are bound to."""

    sender: SiteId
    receiver: SiteId
    terms: str
    """Digest of the terms: of the run and the round."""
    roster: str
    """Digest of the roster: who was shown another one cannot open them."""

    def bound(self) -> bytes:
        return _bound("shares", self.terms, self.roster, self.sender, self.receiver)


def public(secret: bytes) -> bytes:
    """The X25519 public key of a private one."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def derived(secret: bytes, purpose: str, *parts: str, terms: str) -> bytes:
    """32 bytes for one purpose. HKDF, RFC 5869; the salt is the digest of the terms."""
    return HKDF(algorithm=SHA256(), length=KEY, salt=bytes.fromhex(terms), info=_bound(purpose, *parts)).derive(secret)


def agreed(secret: bytes, peer: bytes, purpose: str, *parts: str, terms: str) -> bytes:
    """32 bytes that this private key and the peer's public one agree on, for one purpose."""
    try:
        shared = X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError as error:
        # A point of small order, for which the shared secret would be zero whatever the private key.
        raise ProtocolError(f"{purpose} of {' and '.join(parts)}: a public key that agrees on nothing") from error
    # The public keys too, as RFC 7748, section 6.1, advises: different ones can lead to the same shared secret.
    pair = sorted((public(secret).hex(), peer.hex()))
    return derived(shared, purpose, *parts, *pair, terms=terms)


def commitment(seed: bytes, site: SiteId, *, terms: str) -> bytes:
    """Tells nothing of a seed of 32 random bytes, and shows whether one that was rebuilt is the same."""
    return derived(seed, "commitment", site, terms=terms)


def seal(plain: bytes, route: Route, *, secret: bytes, peer: bytes) -> bytes:
    """Nonce and ciphertext. The nonce is random: were a site to share twice in a round, the key would be the same."""
    nonce = os.urandom(NONCE)
    return nonce + _cipher(route, secret, peer).encrypt(nonce, plain, route.bound())


def unseal(sealed: bytes, route: Route, *, secret: bytes, peer: bytes) -> bytes:
    """ProtocolError unless just these bytes were sealed for just this route."""
    try:
        return _cipher(route, secret, peer).decrypt(sealed[:NONCE], sealed[NONCE:], route.bound())
    except InvalidTag as error:
        raise ProtocolError(
            f"{route.receiver}: the shares from {route.sender} were not sealed for this site, round and roster, or were changed"
        ) from error


def _cipher(route: Route, secret: bytes, peer: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(agreed(secret, peer, "shares", route.sender, route.receiver, terms=route.terms))


def sign(message: bytes, identity: bytes) -> bytes:
    """`identity` is the site's long-term Ed25519 private key, 32 bytes."""
    return Ed25519PrivateKey.from_private_bytes(identity).sign(message)


def is_signed(message: bytes, signature: bytes, pinned: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(pinned).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _bound(*parts: str) -> bytes:
    # As JSON, so that no two lists of parts are the same bytes.
    return json.dumps([_LABEL, *parts], separators=(",", ":")).encode()
