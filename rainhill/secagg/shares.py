"""Shamir's secret sharing of 32 bytes. Shamir 1979, Communications of the ACM 22(11).

By pycryptodome, over GF(2^128): the implementation that Flower's SecAgg+ rests on too. Flower's own wrapper is not taken: it would bring
Flower into this package, starts a pool of threads for every call, and carries the index of a share on the wire, where a holder could
choose it. Here the index is the holder's place among the holders, which everybody knows.
"""

from collections.abc import Mapping

from Crypto.Protocol.SecretSharing import Shamir

from rainhill.errors import QuorumError
from rainhill.secagg.keys import KEY

_HALF = 16
"""The library shares 16 bytes at a time; halves are shared apart, with coefficients of their own."""


def split(secret: bytes, *, threshold: int, count: int) -> list[bytes]:
    """One share of 32 bytes for each holder, in their order; fewer than `threshold` of them say nothing of the secret."""
    assert len(secret) == KEY
    first, second = (Shamir.split(threshold, count, half, ssss=False) for half in (secret[:_HALF], secret[_HALF:]))
    return [a + b for (_, a), (_, b) in zip(first, second, strict=True)]


def combine(shares: Mapping[int, bytes], *, threshold: int) -> bytes:
    """The secret, from shares by the holder's place, counted from 0. A wrong share gives a wrong secret: see what it was committed to."""
    if len(shares) < threshold:
        raise QuorumError(f"{len(shares)} shares of a secret, {threshold} are needed")
    used = sorted(shares.items())[:threshold]
    first, second = (
        Shamir.combine([(place + 1, share[part]) for place, share in used], ssss=False) for part in (slice(_HALF), slice(_HALF, KEY))
    )
    return bytes(first + second)
