"""By which keys a site is known: one that its node proves itself to the coordinator with, and one that it signs with.

The node's is on P-384 and kept in OpenSSH's form, the one that Flower's SuperNode loads; the other is Ed25519, RFC 8032.
"""

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_ssh_private_key

from rainhill import signed
from rainhill.enrolment import node_pem
from rainhill.errors import CredentialError
from rainhill.files import keep_new, read_private

NODE, SIGNING = "node.key", "signing.key"


@dataclass(frozen=True, kw_only=True)
class Identity:
    node: ec.EllipticCurvePrivateKey = field(repr=False)
    signing: bytes = field(repr=False)
    """The Ed25519 private key, 32 bytes."""

    @property
    def node_public(self) -> str:
        """PEM."""
        return node_pem(self.node.public_key())

    @property
    def signing_public(self) -> bytes:
        return signed.public_key(self.signing)

    def __repr__(self) -> str:
        return f"Identity({signed.fingerprint(self.signing_public)})"

    def keep(self, folder: Path) -> None:
        """Raises CredentialError where a site has an identity already, and for a folder that others may look into."""
        keep_new(
            folder,
            {
                NODE: self.node.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
                SIGNING: signed.key_to_pem(self.signing),
            },
        )


def new_identity() -> Identity:
    return Identity(node=ec.generate_private_key(ec.SECP384R1()), signing=signed.new_key())


def load(folder: Path) -> Identity:
    """Raises CredentialError that names the file, for one that is missing, that others may read, or that holds a key of another kind."""
    return Identity(node=_node(folder / NODE), signing=signed.read_key(folder / SIGNING))


def _node(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_ssh_private_key(read_private(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CredentialError(f"{path}: holds no private key in OpenSSH's form that opens without a password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        kind = key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey) else type(key).__name__.removesuffix("PrivateKey")
        raise CredentialError(f"{path}: is of kind {kind}, not {ec.SECP384R1.name}")
    return key
