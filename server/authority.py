"""A consortium's certificate authority and the coordinator's certificate: X.509, RFC 5280, ECDSA on P-384.

The authority issues certificates directly and none for other authorities. A consortium may bring its own certificates instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rainhill.enrolment import LONGEST_NAME
from rainhill.errors import CredentialError
from rainhill.files import keep_new, private_folder, read_private, write_whole
from server.chain import certificates, check_chain, check_pair, days_left, general_name, one_certificate, private_key

__all__ = ["Authority", "Server", "check_chain", "days_left", "load_authority", "load_server", "new_authority", "server_certificate"]

ALWAYS = ("localhost", "127.0.0.1", "::1")
"""The coordinator's own machine reaches it by these."""
EARLY = timedelta(minutes=5)
"""So far may the clock of a site be behind."""
_CA, _CA_KEY = "ca.crt", "ca.key"
_MOST_DAYS = 36_500


@dataclass(frozen=True, kw_only=True)
class Authority:
    """PEM; the key in PKCS8."""

    certificate: bytes
    key: bytes = field(repr=False)

    def keep(self, folder: Path) -> None:
        """Raises CredentialError where one is kept already, and for a folder that others may look into."""
        keep_new(folder, {_CA: self.certificate, _CA_KEY: self.key})


@dataclass(frozen=True, kw_only=True)
class Server:
    """What the coordinator answers TLS with. PEM; a key made here in PKCS8."""

    ca: bytes
    certificate: bytes
    """Followed by those between it and the CA, where there are any."""
    key: bytes = field(repr=False)

    def keep(self, folder: Path) -> None:
        """As the three files that Flower takes; those of an earlier certificate are replaced."""
        private_folder(folder)
        for name, data in ((_CA, self.ca), ("server.crt", self.certificate), ("server.key", self.key)):
            write_whole(folder / name, data, private=True)


def new_authority(consortium: str, *, days: int, now: datetime) -> Authority:
    """Self-signed; its subject names the consortium."""
    if not 0 < len(consortium) <= LONGEST_NAME:
        raise CredentialError(f"consortium {consortium!r}: a name has 1 to {LONGEST_NAME} characters, not {len(consortium)}")
    key = ec.generate_private_key(ec.SECP384R1())
    name = _name(consortium, f"{consortium} CA")
    builder = (
        _builder(name, key, now, days)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
    )
    return Authority(certificate=_pem(builder, key), key=_key_pem(key))


def load_authority(folder: Path) -> Authority:
    """Raises CredentialError where the files are missing, others may read them, or the key is not the certificate's."""
    authority = Authority(certificate=read_private(folder / _CA), key=read_private(folder / _CA_KEY))
    _signing_key(authority, what=str(folder / _CA_KEY))
    return authority


def server_certificate(authority: Authority, hosts: Sequence[str], *, days: int, now: datetime) -> Server:
    """For `hosts`, names and IP addresses, and for the coordinator's own machine. Raises CredentialError for more days than the CA has."""
    issuer = _signing_key(authority, what="the CA's key")
    ca = one_certificate(authority.certificate, what="the CA's certificate")
    key = ec.generate_private_key(ec.SECP384R1())
    names = [general_name(host) for host in dict.fromkeys((*hosts, *ALWAYS))]
    builder = (
        _builder(_name(_consortium(ca), "coordinator"), key, now, days)
        .issuer_name(ca.subject)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)
    )
    last = ca.not_valid_after_utc
    if now + timedelta(days=days) > last:
        raise CredentialError(f"{days} days from {now:%Y-%m-%d %H:%M} end after the CA's certificate, which expires {last:%Y-%m-%d %H:%M}")
    return Server(ca=authority.certificate, certificate=_pem(builder, issuer), key=_key_pem(key))


def load_server(ca: Path, certificate: Path, key: Path, *, hosts: Sequence[str], now: datetime) -> Server:
    """Three files, also of a consortium's own CA. Raises CredentialError unless they hold now, for every host, and belong together."""
    server = Server(ca=_read(ca), certificate=_read(certificate), key=read_private(key))
    one_certificate(server.ca, what=str(ca))
    leaf = certificates(server.certificate, what=str(certificate))[0]
    check_pair(leaf, private_key(server.key, what=str(key)), what=str(key))
    check_chain(server.ca, server.certificate, hosts, now)
    return server


def _signing_key(authority: Authority, *, what: str) -> ec.EllipticCurvePrivateKey:
    key = private_key(authority.key, what=what)
    check_pair(one_certificate(authority.certificate, what="the CA's certificate"), key, what=what)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CredentialError(f"{what}: is of kind {type(key).__name__}, not an elliptic curve's")
    return key


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int) -> x509.CertificateBuilder:
    if not 1 <= days <= _MOST_DAYS:
        raise CredentialError(f"a certificate is made for 1 to {_MOST_DAYS} days, not for {days}")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLY)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(consortium: str, own: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, consortium), x509.NameAttribute(NameOID.COMMON_NAME, own)])


def _consortium(ca: x509.Certificate) -> str:
    found = ca.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if not found:
        raise CredentialError(f"the CA's certificate: its subject {ca.subject.rfc4514_string()} names no organisation")
    return str(found[0].value)


def _usage(*, ca: bool) -> x509.KeyUsage:
    # An authority signs certificates and nothing else; with elliptic curves a server signs its handshakes, and nothing is encrypted to it.
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(builder: x509.CertificateBuilder, issuer: ec.EllipticCurvePrivateKey) -> bytes:
    return builder.sign(issuer, SHA384()).public_bytes(Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CredentialError(f"{path}: cannot be read: {error.strerror}") from error
