"""Whether a certificate holds: who issued it, for which hosts, from when until when. RFC 5280.

The decision is cryptography's, by the rules of the web's own certificates; what is wrong is told here, with both values.
"""

from collections.abc import Sequence
from datetime import datetime
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from rainhill.address import checked_host, is_ip
from rainhill.errors import CredentialError
from rainhill.signed import fingerprint
from rainhill.text import shown


def days_left(pem: bytes, now: datetime) -> int:
    """Whole days until the certificate expires, the first one where there are several; below 0 once it has."""
    return (certificates(pem, what="certificate")[0].not_valid_after_utc - now).days


def check_chain(ca_pem: bytes, cert_pem: bytes, hosts: Sequence[str], now: datetime) -> None:
    """Raises CredentialError unless the first certificate of `cert_pem` holds now and for every host, and those after it lead to the CA."""
    ca = one_certificate(ca_pem, what="the CA's certificate")
    leaf, *between = certificates(cert_pem, what="the server's certificate")
    if not hosts:
        raise CredentialError(f"{_subject(leaf)}: is held against no host")
    for certificate in (ca, *between, leaf):
        _check_time(certificate, now)
    _check_ca(ca)
    policy = PolicyBuilder().store(Store([ca])).time(now)
    for host in hosts:
        name = general_name(host)
        try:
            policy.build_server_verifier(name).verify(leaf, between)
        except VerificationError as error:
            _check_name(leaf, host)
            reason = str(error).removeprefix("validation failed: ").partition(" (encountered")[0]
            raise CredentialError(
                f"{_subject(leaf)}: is issued by {shown(leaf.issuer.rfc4514_string())}, which does not lead to {_subject(ca)} "
                f"with key {key_print(ca.public_key())}: {reason}"
            ) from error


def check_pair(certificate: x509.Certificate, key: PrivateKeyTypes, *, what: str) -> None:
    got, expected = key_print(key.public_key()), key_print(certificate.public_key())
    if got != expected:
        raise CredentialError(f"{what}: is of public key {got}, and {_subject(certificate)} is of {expected}")


def certificates(pem: bytes, *, what: str) -> list[x509.Certificate]:
    """One or more, in the order of the file."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CredentialError(f"{what}: holds no certificates in PEM") from error


def one_certificate(pem: bytes, *, what: str) -> x509.Certificate:
    found = certificates(pem, what=what)
    if len(found) != 1:
        raise CredentialError(f"{what}: holds {len(found)} certificates, not 1")
    return found[0]


def private_key(pem: bytes, *, what: str) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CredentialError(f"{what}: holds no private key in PEM that opens without a password") from error


def key_print(key: PublicKeyTypes) -> str:
    """The fingerprint of a public key of any kind."""
    return fingerprint(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def general_name(host: str) -> x509.DNSName | x509.IPAddress:
    """Raises CredentialError for what is no host."""
    try:
        checked_host(host)
    except ValueError as error:
        raise CredentialError(f"host {shown(host)!r}: {error}") from error
    return x509.IPAddress(ip_address(host)) if is_ip(host) else x509.DNSName(host)


def _check_time(certificate: x509.Certificate, now: datetime) -> None:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < first:
        raise CredentialError(f"{_subject(certificate)}: is not valid before {first:%Y-%m-%d %H:%M:%S} UTC; now is {now:%Y-%m-%d %H:%M:%S}")
    if now > last:
        raise CredentialError(f"{_subject(certificate)}: expired {last:%Y-%m-%d %H:%M:%S} UTC; now is {now:%Y-%m-%d %H:%M:%S}")


def _check_ca(certificate: x509.Certificate) -> None:
    # Anything may be trusted, and a server's certificate that is would vouch for itself.
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        raise CredentialError(f"{_subject(certificate)}: is not a CA's")


def _check_name(certificate: x509.Certificate, host: str) -> None:
    """Only to say what is wrong with a certificate that was refused."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = []
    else:
        names = [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]
    if not {host, f"*.{host.partition('.')[2]}"} & set(names):
        raise CredentialError(f"{_subject(certificate)}: is for {', '.join(map(shown, names)) or 'no host'}, not for {host}")


def _subject(certificate: x509.Certificate) -> str:
    return f"certificate {shown(certificate.subject.rfc4514_string())}"
