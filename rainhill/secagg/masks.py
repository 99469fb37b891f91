"""Vectors that hide an update: the ChaCha20 keystream of a key that was made for this one mask. RFC 8439."""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from rainhill.messages import SiteId
from rainhill.secagg.keys import agreed, derived
from rainhill.secagg.quantise import Ring, Words

_COUNTER_AND_NONCE = bytes(16)
"""Zero: each key is derived for one mask of one round, and used once."""


def keystream(key: bytes, *, size: int, ring: Ring) -> Words:
    """(size,) words, little-endian, uniform modulo 2^ring to whoever lacks the key."""
    raw = Cipher(ChaCha20(key, _COUNTER_AND_NONCE), mode=None).encryptor().update(bytes(size * ring // 8))
    if ring == 32:
        return np.frombuffer(raw, dtype="<u4").astype(np.uint32, copy=False)
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64, copy=False)


def self_mask(seed: bytes, site: SiteId, *, terms: str, size: int, ring: Ring) -> Words:
    return keystream(derived(seed, "self mask", site, terms=terms), size=size, ring=ring)


def pair_mask(secret: bytes, peer_key: bytes, *, site: SiteId, peer: SiteId, terms: str, size: int, ring: Ring) -> Words:
    """What `site` adds for `peer`: the one whose name comes first adds the common mask, and the other takes it away."""
    first, second = sorted((site, peer))
    mask = keystream(agreed(secret, peer_key, "pairwise mask", first, second, terms=terms), size=size, ring=ring)
    return mask if site == first else -mask
