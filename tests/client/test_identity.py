import argparse
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from client.identity import NODE, SIGNING, Identity, load, new_identity
from rainhill import signed
from rainhill.errors import CredentialError

OPENSSH, PKCS8 = (Encoding.PEM, PrivateFormat.OpenSSH), (Encoding.PEM, PrivateFormat.PKCS8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    new_identity().keep(tmp_path / "identity")
    return tmp_path / "identity"


def refused(folder: Path) -> str:
    with pytest.raises(CredentialError) as error:
        load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_identity_is_loaded_as_it_was_kept(tmp_path: Path) -> None:
    identity = new_identity()
    identity.keep(tmp_path / "a")
    found = load(tmp_path / "a")
    assert found.signing == identity.signing
    assert found.node.private_numbers() == identity.node.private_numbers()
    assert (found.node_public, found.signing_public) == (identity.node_public, identity.signing_public)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").iterdir()} == {0o600}


def test_two_identities_have_no_key_in_common() -> None:
    one, other = new_identity(), new_identity()
    assert one.signing != other.signing
    assert one.node_public != other.node_public


def test_flower_loads_the_node_key_and_takes_its_curve(folder: Path) -> None:
    from flwr.supercore.primitives.asymmetric import bytes_to_public_key, sign_message, uses_nist_ec_curve, verify_signature
    from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

    asked = argparse.Namespace(auth_supernode_private_key=str(folder / NODE), auth_supernode_public_key=None)
    keys = _try_setup_client_authentication(asked)
    assert keys is not None
    registered = bytes_to_public_key(load(folder).node_public.encode())
    assert keys[1] == registered
    assert uses_nist_ec_curve(registered)
    assert verify_signature(registered, b"2026-11-22", sign_message(keys[0], b"2026-11-22"))


def test_the_public_keys_are_those_of_the_private_ones(folder: Path) -> None:
    identity = load(folder)
    signed.check(b"body", signed.sign(b"body", identity.signing, purpose="note"), identity.signing_public, purpose="note")
    identity.node.public_key().verify(identity.node.sign(b"body", ec.ECDSA(SHA256())), b"body", ec.ECDSA(SHA256()))
    assert identity.node_public.startswith("-----BEGIN PUBLIC KEY-----")


def test_no_secret_is_shown() -> None:
    identity = new_identity()
    for text in (repr(identity), str(identity), f"{identity}", repr([identity])):
        assert f"Identity({signed.fingerprint(identity.signing_public)})" in text
        for secret in (identity.signing.hex(), repr(identity.signing), str(identity.node.private_numbers().private_value)):
            assert secret not in text


def test_an_identity_is_never_replaced(folder: Path) -> None:
    before = load(folder)
    for _ in range(2):
        with pytest.raises(CredentialError, match=f"{folder}: is there already, and is not replaced"):
            new_identity().keep(folder)
        (folder / NODE).unlink(missing_ok=True)
    assert not (folder / NODE).exists()
    before.node.public_key()


@pytest.mark.parametrize("name", [NODE, SIGNING])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o644])
def test_a_key_that_others_may_read_is_refused_by_name(folder: Path, name: str, mode: int) -> None:
    (folder / name).chmod(mode)
    assert refused(folder) == f"{folder / name}: has mode {mode:o}, not 600: others may read or change it"


@pytest.mark.parametrize("name", [NODE, SIGNING])
def test_a_missing_key_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert refused(folder) == f"{folder / name}: no such file"


def test_an_empty_folder_that_others_may_look_into_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    new_identity().keep(tmp_path / "open")
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o700
    assert sorted(path.name for path in (tmp_path / "open").iterdir()) == [NODE, SIGNING]


def node_keys() -> list[tuple[bytes, str]]:
    p384 = ec.generate_private_key(ec.SECP384R1())
    kind = "holds no private key in OpenSSH's form that opens without a password"
    return [
        (b"", kind),
        (p384.private_bytes(*PKCS8, NoEncryption()), kind),
        (p384.private_bytes(*OPENSSH, NoEncryption())[:-60], kind),
        (ec.generate_private_key(ec.SECP256R1()).private_bytes(*OPENSSH, NoEncryption()), "is of kind secp256r1, not secp384r1"),
        (Ed25519PrivateKey.generate().private_bytes(*OPENSSH, NoEncryption()), "is of kind Ed25519, not secp384r1"),
    ]


@pytest.mark.parametrize(("data", "message"), node_keys())
def test_a_node_key_of_another_kind_is_refused(folder: Path, data: bytes, message: str) -> None:
    (folder / NODE).write_bytes(data)
    assert refused(folder) == f"{folder / NODE}: {message}"


def signing_keys() -> list[tuple[bytes, str]]:
    ed25519 = Ed25519PrivateKey.generate()
    kind = "holds no private key in PEM that opens without a password"
    return [
        (b"1" * 32, kind),
        (ed25519.private_bytes(*PKCS8, BestAvailableEncryption(b"secret")), kind),
        (X25519PrivateKey.generate().private_bytes(*PKCS8, NoEncryption()), "is of kind X25519, not Ed25519"),
        (ec.generate_private_key(ec.SECP384R1()).private_bytes(*PKCS8, NoEncryption()), "is of kind secp384r1, not Ed25519"),
    ]


@pytest.mark.parametrize(("data", "message"), signing_keys())
def test_a_signing_key_of_another_kind_is_refused(folder: Path, data: bytes, message: str) -> None:
    (folder / SIGNING).write_bytes(data)
    assert refused(folder) == f"{folder / SIGNING}: {message}"


def test_an_identity_of_a_wrong_signing_key_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="has 32 bytes, not 1"):
        Identity(node=new_identity().node, signing=b"1").keep(tmp_path / "a")
    assert not (tmp_path / "a").exists()
