"""Certificates: held against every way in which they can be wrong, and shown to Python's own TLS on 127.0.0.1."""

import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rainhill.errors import CredentialError
from server.authority import Server, check_chain, days_left, load_authority, load_server, new_authority, server_certificate
from server.chain import key_print

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
HOSTS = ("coordinator.example.org", "10.1.2.3")
AUTHORITY = new_authority("liverpool", days=3650, now=NOW)
NAMESAKE = new_authority("liverpool", days=3650, now=NOW)
SERVER = server_certificate(AUTHORITY, HOSTS, days=365, now=NOW)


def refused(ca: bytes, certificate: bytes, hosts: tuple[str, ...] = HOSTS, now: datetime = NOW) -> str:
    with pytest.raises(CredentialError) as error:
        check_chain(ca, certificate, hosts, now)
    assert "\n" not in str(error.value)
    return str(error.value)


def made(subject, key, *, issuer=None, ca=False, names=()) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    above, signing = issuer or (None, key)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
    )
    builder = (
        x509.CertificateBuilder(subject_name=name, issuer_name=above.subject if above else name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + 90 * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=ca, crl_sign=ca, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    return builder.sign(signing, SHA256())


class Own:
    """An institution's own certificates, RSA, made by hand: a root, one between, and a server's for a whole domain."""

    def __init__(self, *, between_is_ca: bool = True) -> None:
        self.root_key, self.key, between_key = (rsa.generate_private_key(65537, 2048) for _ in range(3))
        self.root = made("Trust Root", self.root_key, ca=True)
        between = made("Trust Issuing", between_key, issuer=(self.root, self.root_key), ca=between_is_ca)
        self.leaf = made("coordinator", self.key, issuer=(between, between_key), names=["*.trust.example"])
        self.ca_pem, self.chain_pem = (
            self.root.public_bytes(Encoding.PEM),
            self.leaf.public_bytes(Encoding.PEM) + between.public_bytes(Encoding.PEM),
        )

    def write(self, folder: Path) -> tuple[Path, Path, Path]:
        paths = folder / "ca.pem", folder / "chain.pem", folder / "server.pem"
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        for path, data in zip(paths, (self.ca_pem, self.chain_pem, key), strict=True):
            path.write_bytes(data)
        paths[2].chmod(0o600)
        return paths


@pytest.fixture(scope="module")
def own() -> Own:
    return Own()


def test_the_authority_issues_certificates_and_no_authorities() -> None:
    ca = x509.load_pem_x509_certificate(AUTHORITY.certificate)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.key_cert_sign and usage.value.crl_sign and not usage.value.digital_signature
    assert ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value == x509.SubjectKeyIdentifier.from_public_key(
        ca.public_key()
    )
    assert ca.subject.rfc4514_string() == "CN=liverpool CA,O=liverpool"
    assert isinstance(ca.public_key().curve, ec.SECP384R1)
    assert ca.not_valid_after_utc == NOW + 3650 * DAY
    ca.verify_directly_issued_by(ca)


def test_the_servers_certificate_is_for_its_hosts_and_its_own_machine() -> None:
    certificate = x509.load_pem_x509_certificate(SERVER.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["coordinator.example.org", "localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.1.2.3", "127.0.0.1", "::1"]
    assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert isinstance(certificate.public_key().curve, ec.SECP384R1)
    assert b"BEGIN PRIVATE KEY" in SERVER.key
    check_chain(SERVER.ca, SERVER.certificate, (*HOSTS, "localhost", "127.0.0.1", "::1"), NOW)


def test_a_host_that_is_asked_for_twice_is_named_once() -> None:
    server = server_certificate(AUTHORITY, ("localhost", "a.example", "a.example"), days=1, now=NOW)
    names = x509.load_pem_x509_certificate(server.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "a.example"]


def test_days_left_are_whole_and_below_zero_once_expired() -> None:
    assert days_left(SERVER.certificate, NOW) == 365
    assert days_left(SERVER.certificate, NOW + timedelta(seconds=1)) == 364
    assert days_left(SERVER.certificate, NOW + 365 * DAY) == 0
    assert days_left(SERVER.certificate, NOW + 365 * DAY + timedelta(seconds=1)) == -1


def test_an_expired_certificate_is_refused_with_both_times() -> None:
    late = NOW + 365 * DAY + timedelta(seconds=1)
    check_chain(SERVER.ca, SERVER.certificate, HOSTS, late - timedelta(seconds=1))
    message = refused(SERVER.ca, SERVER.certificate, now=late)
    assert (
        message
        == f"certificate CN=coordinator,O=liverpool: expired {NOW + 365 * DAY:%Y-%m-%d %H:%M:%S} UTC; now is {late:%Y-%m-%d %H:%M:%S}"
    )
    assert refused(SERVER.ca, SERVER.certificate, now=NOW + 3651 * DAY).startswith("certificate CN=liverpool CA,O=liverpool: expired")


def test_a_certificate_of_tomorrow_is_refused_with_both_times() -> None:
    tomorrow = server_certificate(AUTHORITY, HOSTS, days=365, now=NOW + DAY)
    message = refused(tomorrow.ca, tomorrow.certificate)
    expected = f"is not valid before {NOW + DAY - timedelta(minutes=5):%Y-%m-%d %H:%M:%S} UTC; now is {NOW:%Y-%m-%d %H:%M:%S}"
    assert message == f"certificate CN=coordinator,O=liverpool: {expected}"
    check_chain(SERVER.ca, SERVER.certificate, HOSTS, NOW - timedelta(minutes=5))
    assert "is not valid before" in refused(SERVER.ca, SERVER.certificate, now=NOW - timedelta(minutes=5, seconds=1))


def test_another_authority_of_the_same_name_is_told_apart_by_its_key() -> None:
    message = refused(NAMESAKE.certificate, SERVER.certificate)
    assert "is issued by CN=liverpool CA,O=liverpool, which does not lead to certificate CN=liverpool CA,O=liverpool with key " in message
    assert key_print(x509.load_pem_x509_certificate(NAMESAKE.certificate).public_key()) in message
    stranger = new_authority("manchester", days=30, now=NOW)
    assert "which does not lead to certificate CN=manchester CA,O=manchester" in refused(stranger.certificate, SERVER.certificate)


@pytest.mark.parametrize("host", ["example.org", "a.coordinator.example.org", "coordinator.example.com", "10.1.2.4", "::2"])
def test_a_wrong_name_is_refused_with_those_that_it_is_for(host: str) -> None:
    message = refused(SERVER.ca, SERVER.certificate, (HOSTS[0], host))
    assert (
        message
        == f"certificate CN=coordinator,O=liverpool: is for coordinator.example.org, localhost, 10.1.2.3, 127.0.0.1, ::1, not for {host}"
    )


def test_a_chain_is_held_against_at_least_one_host() -> None:
    assert "is held against no host" in refused(NAMESAKE.certificate, SERVER.certificate, ())
    assert "host '*.example.org': a host is an IP address, or a name of" in refused(SERVER.ca, SERVER.certificate, ("*.example.org",))


def test_a_certificate_that_is_its_own_authority_is_refused() -> None:
    assert "is for no host" in refused(AUTHORITY.certificate, AUTHORITY.certificate)
    assert refused(SERVER.certificate, SERVER.certificate) == "certificate CN=coordinator,O=liverpool: is not a CA's"
    own = self_signed()
    assert refused(own.certificate, own.certificate) == "certificate CN=coordinator: is not a CA's"
    assert "is issued by CN=coordinator, which does not lead to" in refused(own.ca, own.certificate, HOSTS[:1])


def test_what_is_no_certificate_is_refused_by_name() -> None:
    assert refused(b"", SERVER.certificate) == "the CA's certificate: holds no certificates in PEM"
    assert refused(SERVER.ca, SERVER.key) == "the server's certificate: holds no certificates in PEM"
    assert refused(SERVER.ca * 2, SERVER.certificate) == "the CA's certificate: holds 2 certificates, not 1"
    truncated = SERVER.certificate[:200] + SERVER.certificate[-40:]
    assert refused(SERVER.ca, truncated) == "the server's certificate: holds no certificates in PEM"


@pytest.mark.parametrize("days", [0, -1, 36_501, 10**10])
def test_a_certificate_is_made_for_a_sensible_time(days: int) -> None:
    with pytest.raises(CredentialError, match=f"for 1 to 36500 days, not for {days}"):
        new_authority("liverpool", days=days, now=NOW)
    with pytest.raises(CredentialError, match=f"for 1 to 36500 days, not for {days}"):
        server_certificate(AUTHORITY, HOSTS, days=days, now=NOW)


def test_a_server_does_not_outlive_its_authority() -> None:
    server_certificate(AUTHORITY, HOSTS, days=3650, now=NOW)
    with pytest.raises(
        CredentialError, match=f"3650 days from .* end after the CA's certificate, which expires {NOW + 3650 * DAY:%Y-%m-%d}"
    ):
        server_certificate(AUTHORITY, HOSTS, days=3650, now=NOW + timedelta(seconds=1))


def test_a_consortiums_name_fits_into_a_certificate() -> None:
    for name in ("", "a" * 51):
        with pytest.raises(CredentialError, match=f"a name has 1 to 50 characters, not {len(name)}"):
            new_authority(name, days=1, now=NOW)
    new_authority("a" * 50, days=1, now=NOW)


def test_an_authority_is_kept_for_its_owner_alone_and_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "authority"
    AUTHORITY.keep(folder)
    assert load_authority(folder) == AUTHORITY
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "ca.key").stat().st_mode) == 0o600
    with pytest.raises(CredentialError, match="authority: is there already, and is not replaced"):
        NAMESAKE.keep(folder)
    (folder / "ca.key").chmod(0o640)
    with pytest.raises(CredentialError, match=r"ca\.key: has mode 640, not 600"):
        load_authority(folder)
    (folder / "ca.key").chmod(0o600)
    (folder / "ca.key").write_bytes(NAMESAKE.key)
    with pytest.raises(CredentialError, match=r"ca\.key: is of public key .*, and certificate CN=liverpool CA,O=liverpool is of "):
        load_authority(folder)


def test_no_private_key_is_shown() -> None:
    for shown in (repr(AUTHORITY), repr(SERVER)):
        assert "PRIVATE" not in shown and "BEGIN CERTIFICATE" in shown


def test_what_the_coordinator_keeps_is_what_it_loads(tmp_path: Path) -> None:
    SERVER.keep(tmp_path / "tls")
    paths = [tmp_path / "tls" / name for name in ("ca.crt", "server.crt", "server.key")]
    assert load_server(*paths, hosts=HOSTS, now=NOW) == SERVER
    renewed = server_certificate(AUTHORITY, HOSTS, days=400, now=NOW)
    renewed.keep(tmp_path / "tls")
    assert load_server(*paths, hosts=HOSTS, now=NOW + 380 * DAY) == renewed


def test_a_consortiums_own_certificates_are_taken_with_those_between(tmp_path: Path, own: Own) -> None:
    server = load_server(*own.write(tmp_path), hosts=["coordinator.trust.example"], now=NOW)
    assert server == Server(ca=own.ca_pem, certificate=own.chain_pem, key=server.key)
    assert days_left(server.certificate, NOW) == 90


def test_a_consortiums_own_certificates_are_held_against_the_same_rules(tmp_path: Path, own: Own) -> None:
    paths = own.write(tmp_path)

    def refusal(hosts: tuple[str, ...] = ("a.trust.example",), now: datetime = NOW) -> str:
        with pytest.raises(CredentialError) as error:
            load_server(*paths, hosts=hosts, now=now)
        return str(error.value)

    assert refusal(hosts=("trust.example",)) == r"certificate CN=coordinator: is for *.trust.example, not for trust.example"
    assert "certificate CN=Trust Root: expired" in refusal(now=NOW + 91 * DAY)
    paths[1].write_bytes(own.leaf.public_bytes(Encoding.PEM))
    assert "is issued by CN=Trust Issuing, which does not lead to certificate CN=Trust Root" in refusal()
    paths[1].write_bytes(own.chain_pem)
    password = own.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    for data, message in (
        (own.root_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "server.pem: is of public key"),
        (password, "server.pem: holds no private key in PEM that opens without a password"),
        (own.chain_pem, "server.pem: holds no private key in PEM"),
    ):
        paths[2].write_bytes(data)
        assert message in refusal()
    paths[2].chmod(0o604)
    assert "server.pem: has mode 604, not 600" in refusal()
    paths[1].unlink()
    assert refusal() == f"{paths[1]}: cannot be read: No such file or directory"


def test_one_between_that_may_not_issue_is_refused() -> None:
    own = Own(between_is_ca=False)
    assert "does not lead to certificate CN=Trust Root" in refused(own.ca_pem, own.chain_pem, ("a.trust.example",))


@contextmanager
def answering(server: Server, folder: Path) -> Iterator[int]:
    """The port of a TLS server on 127.0.0.1 that answers each connection with one byte."""
    folder.mkdir(mode=0o700)
    server.keep(folder / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls" / "server.crt", folder / "tls" / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, args=(listening, context))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            # Wakes the thread that waits for the next connection.
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def answer(listening: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection:
            try:
                with context.wrap_socket(connection, server_side=True) as tls:
                    tls.sendall(b"1")
            except OSError:
                continue


def asked(port: int, *, ca: bytes, host: str) -> bytes:
    context = ssl.create_default_context(cadata=ca.decode())
    # As Python does from 3.13 on.
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, context.wrap_socket(plain, server_hostname=host) as tls:
        return tls.recv(1)


@pytest.mark.parametrize("host", [*HOSTS, "localhost", "127.0.0.1", "::1"])
def test_tls_accepts_the_coordinator_by_every_name(tmp_path: Path, host: str) -> None:
    with answering(SERVER, tmp_path / "a") as port:
        assert asked(port, ca=AUTHORITY.certificate, host=host) == b"1"


def test_tls_accepts_an_institutions_own_chain(tmp_path: Path, own: Own) -> None:
    server = load_server(*own.write(tmp_path), hosts=["a.trust.example"], now=NOW)
    with answering(server, tmp_path / "a") as port:
        assert asked(port, ca=own.ca_pem, host="a.trust.example") == b"1"


def made_long_ago() -> Server:
    authority = new_authority("liverpool", days=3650, now=NOW - 400 * DAY)
    return server_certificate(authority, HOSTS, days=365, now=NOW - 400 * DAY)


def self_signed() -> Server:
    key = rsa.generate_private_key(65537, 2048)
    certificate = made("coordinator", key, names=[HOSTS[0]]).public_bytes(Encoding.PEM)
    return Server(
        ca=AUTHORITY.certificate, certificate=certificate, key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )


@pytest.mark.parametrize(
    ("server", "ca", "host", "reason"),
    [
        (SERVER, AUTHORITY.certificate, "other.example.org", "Hostname mismatch"),
        (SERVER, AUTHORITY.certificate, "10.1.2.4", "IP address mismatch"),
        (SERVER, NAMESAKE.certificate, HOSTS[0], "certificate verify failed"),
        (made_long_ago(), None, HOSTS[0], "certificate has expired"),
        (self_signed(), AUTHORITY.certificate, HOSTS[0], "self-signed certificate"),
    ],
    ids=["another name", "another address", "another authority", "expired", "self-signed"],
)
def test_tls_refuses_what_check_chain_refuses(tmp_path: Path, server: Server, ca: bytes | None, host: str, reason: str) -> None:
    trusted = ca or server.ca
    refused(trusted, server.certificate, (host,), datetime.now(UTC))
    with answering(server, tmp_path / "a") as port, pytest.raises(ssl.SSLCertVerificationError, match=reason):
        asked(port, ca=trusted, host=host)
