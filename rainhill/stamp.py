"""A message with its sender's signature before it: 64 bytes of Ed25519 over its purpose and its sha256.

Flower's own signature covers a time and not what is said; behind the SuperLink anybody who is enrolled could speak for another.
"""

import hashlib

from rainhill import signed
from rainhill.errors import CredentialError

PLAN, ANSWER = "plan 1", "answer 1"
"""What the coordinator asks for, signed by the consortium's key; what a site gives back, by its own."""
EXCHANGE, EXCHANGED = "exchange 1", "exchanged 1"
"""The same of secure aggregation."""
_SIGNATURE = 64


def stamped(message: bytes, private: bytes, *, purpose: str) -> bytes:
    return signed.sign(_digest(message), private, purpose=purpose) + message


def unstamped(data: bytes, public: bytes, *, purpose: str) -> bytes:
    """The message. Raises CredentialError unless just this was stamped with the key of `public`, for just this purpose."""
    if len(data) < _SIGNATURE:
        raise CredentialError(f"{purpose}: {len(data)} bytes are too few for a signature of {_SIGNATURE}")
    signature, message = data[:_SIGNATURE], data[_SIGNATURE:]
    signed.check(_digest(message), signature, public, purpose=purpose)
    return message


def _digest(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()
