"""Where the private step's randomness comes from: the ChaCha20 keystream of a secret key. RFC 8439.

numpy's and torch's generators can be run backwards from what they gave, and noise that can be foretold protects nobody.
"""

import hashlib
import secrets
from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

KEY_BYTES = 32
_UNITS = 2**53
"""Equal steps of the unit interval: the most that float64 tells apart everywhere in it."""
_SUMMED = 4
"""Draws whose sum, halved, is one normal draw. A single Box-Muller draw has holes among the floats that it can be, by which a sum can be
told from its neighbour's; who wants to undo four has to search all combinations. Holohan & Braghin 2021, arXiv:2107.10138."""
_BLOCK = 1 << 18
"""Normal draws made at a time, so that memory does not grow with the adapter."""


def fresh_key() -> bytes:
    """32 bytes of the operating system's randomness."""
    return secrets.token_bytes(KEY_BYTES)


def simulated_key(seed: Sequence[int]) -> bytes:
    """A key that anybody can work out from a seed: for simulations alone, which are to give the same each time and promise nothing."""
    return hashlib.sha256(f"simulated noise {list(seed)}".encode()).digest()


def derived_key(key: bytes, purpose: str) -> bytes:
    """A key for a second stream beside that of `key`; neither tells of the other."""
    return hashlib.sha256(purpose.encode() + b" of " + key).digest()


def commitment(key: bytes) -> str:
    """sha256 of a key: a ledger names the key by it, and does not give it away."""
    return hashlib.sha256(key).hexdigest()


class Stream:
    """Draws of one key, one after the other; the same key gives the same draws."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
        # The counter begins at 0. A key is used for one stream only, so no nonce needs to tell streams apart.
        self._cipher = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()

    def words(self, count: int) -> NDArray[np.uint64]:
        """(count,) uniform 64-bit words."""
        return np.frombuffer(self._cipher.update(bytes(8 * count)), dtype="<u8").astype(np.uint64, copy=False)

    def mask(self, count: int, rate: float) -> NDArray[np.bool_]:
        """(count,) independent draws, each True with probability `rate`, to within 2**-53: Poisson sampling."""
        return (self.words(count) >> np.uint64(11)) < np.uint64(round(rate * _UNITS))

    def subset(self, count: int, size: int) -> NDArray[np.int64]:
        """`size` of the places 0..count-1, every subset as likely as any other; all of them where there are no more."""
        return np.arange(count) if size >= count else np.sort(np.argsort(self.words(count), kind="stable")[:size])

    def normal(self, count: int) -> NDArray[np.float64]:
        """(count,) standard normal draws."""
        blocks = [self._normal(min(_BLOCK, count - start)) for start in range(0, count, _BLOCK)]
        return np.concatenate(blocks) if blocks else np.zeros(0)

    def _normal(self, count: int) -> NDArray[np.float64]:
        half = -(-count * _SUMMED // 2)
        uniform = ((self.words(2 * half) >> np.uint64(11)) + np.uint64(1)).astype(np.float64) / _UNITS
        # Box & Muller 1958; `uniform` is in (0, 1], so the logarithm is finite.
        radius, angle = np.sqrt(-2 * np.log(uniform[:half])), 2 * np.pi * uniform[half:]
        draws = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[: count * _SUMMED]
        return np.asarray(draws.reshape(_SUMMED, count).sum(axis=0) / np.sqrt(_SUMMED))
