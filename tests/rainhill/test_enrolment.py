import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rainhill import signed
from rainhill.address import Address
from rainhill.enrolment import (
    REQUEST,
    Bundle,
    BundledBase,
    BundledWheel,
    SiteRequest,
    node_pem,
    opened_request,
    read_document,
    sealed_request,
)
from rainhill.errors import CredentialError

SIGNING, OTHER_SIGNING = b"\1" * 32, b"\2" * 32
NODE, OTHER_NODE = (ec.derive_private_key(secret, ec.SECP384R1()) for secret in (10**80, 10**81))
REQUESTED = SiteRequest(
    name="aintree",
    title="Aintree General",
    node_key=node_pem(NODE.public_key()),
    signing_key=signed.public_key(SIGNING).hex(),
    made=datetime(2026, 11, 22, 15, 0, tzinfo=UTC),
    software="rainhill 0.1.0",
    protocols=(3,),
)
SEALED = sealed_request(REQUESTED, signing=SIGNING, node=NODE)
MADE = Bundle(
    consortium="liverpool",
    title="Liverpool and Manchester",
    site="aintree",
    coordinator=Address(host="coordinator.example.org", port=8443),
    ca="a" * 64,
    consortium_key=signed.public_key(OTHER_SIGNING).hex(),
    peers={"aintree": "1" * 64, "broadgreen": "2" * 64},
    bases=(BundledBase(name="thorax", sha256="b" * 64, size=1000),),
    wheels=(BundledWheel(file="rainhill-0.1.0-py3-none-any.whl", sha256="c" * 64, size=10),),
    made=datetime(2026, 11, 22, 15, 0, tzinfo=UTC),
    expires=datetime(2027, 11, 22, 15, 0, tzinfo=UTC),
)

names = st.from_regex(r"[a-z_][a-z0-9_]{0,30}", fullmatch=True)
lines = st.text(max_size=200).filter(str.isprintable)
times = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))
hexes = st.binary(min_size=32, max_size=32).map(bytes.hex)
requests = st.builds(
    REQUESTED.model_copy,
    update=st.fixed_dictionaries(
        {
            "name": names,
            "title": lines,
            "made": times,
            "software": lines,
            "protocols": st.lists(st.integers(1, 99), min_size=1, max_size=20).map(tuple),
        }
    ),
)


def refused(data: bytes) -> str:
    with pytest.raises(CredentialError) as error:
        opened_request(data)
    assert "\n" not in str(error.value)
    return str(error.value)


def forged(*, proof: str | None = None, key: bytes = SIGNING, **changes: object) -> bytes:
    """A request that somebody with the signing key `key` has put together by hand."""
    body = json.loads(signed.opened(SEALED, purpose=REQUEST, trusted=[bytes.fromhex(REQUESTED.signing_key)]))
    body = {"proof": proof or body["proof"], "request": {**body["request"], **changes}}
    return signed.sealed(json.dumps(body, sort_keys=True, separators=(",", ":")).encode(), key, purpose=REQUEST)


@given(request=requests)
def test_a_request_comes_back_as_it_was(request: SiteRequest) -> None:
    assert SiteRequest.model_validate(request.model_dump()) == request
    assert opened_request(sealed_request(request, signing=SIGNING, node=NODE)) == request


@given(place=st.integers(0, len(SEALED) - 1), byte=st.integers(0, 255))
def test_any_changed_byte_of_a_request_is_refused(place: int, byte: int) -> None:
    if SEALED[place] != byte:
        refused(SEALED[:place] + bytes([byte]) + SEALED[place + 1 :])


def test_a_request_is_not_sealed_with_keys_that_it_does_not_name() -> None:
    with pytest.raises(CredentialError, match=f"signing_key is {REQUESTED.signing_key[:10]}.*, and is signed with"):
        sealed_request(REQUESTED, signing=OTHER_SIGNING, node=NODE)
    with pytest.raises(CredentialError, match="node_key is .*, and is signed with"):
        sealed_request(REQUESTED, signing=SIGNING, node=OTHER_NODE)


def test_nobody_registers_the_node_key_of_another() -> None:
    """The thief signs with its own signing key, and has seen the other's request."""
    thief = signed.public_key(OTHER_SIGNING).hex()
    own_proof = json.loads(
        signed.opened(
            sealed_request(REQUESTED.model_copy(update={"node_key": node_pem(OTHER_NODE.public_key())}), signing=SIGNING, node=OTHER_NODE),
            purpose=REQUEST,
            trusted=[bytes.fromhex(REQUESTED.signing_key)],
        )
    )["proof"]
    for proof in (None, own_proof, "00" * 50, "0" * 51):
        message = refused(forged(key=OTHER_SIGNING, signing_key=thief, proof=proof))
        assert message.startswith("site request 1: aintree: is not proved with the node key it names, ")
    assert "is not proved with the node key" in refused(forged(node_key=node_pem(OTHER_NODE.public_key())))


def test_nobody_registers_the_signing_key_of_another() -> None:
    message = refused(forged(key=OTHER_SIGNING))
    assert message.endswith(f"signing_key is {REQUESTED.signing_key}, and is signed with {signed.public_key(OTHER_SIGNING).hex()}")


def test_a_field_that_was_changed_after_the_proof_is_refused() -> None:
    for changes in ({"name": "broadgreen"}, {"title": "x"}, {"made": "2026-11-22T15:00:01Z"}, {"software": "x"}, {"protocols": [4]}):
        assert "is not proved with the node key" in refused(forged(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a-b"}, "site request 1: request.name = 'a-b': a name is letters"),
        ({"name": "a" * 51}, "a name here has at most 50 characters, not 51"),
        ({"title": "a\x1b[2Jb"}, "request.title = "),
        ({"title": "a\u202eb"}, "holds a character that cannot be printed"),
        ({"title": "é" * 201}, "at most 200 characters"),
        ({"node_key": "none"}, "request.node_key = 'none': is not a public key in PEM"),
        ({"node_key": REQUESTED.node_key + "\n"}, "is not in the canonical form of PEM"),
        ({"signing_key": "A" * 64}, "request.signing_key"),
        ({"made": "2026-11-22T15:00:00"}, "should have timezone info"),
        ({"made": "2026-11-22T15:00:00+01:00"}, "is not in UTC"),
        ({"made": 1}, "is not in its canonical form"),
        ({"made": "2026-11-22T15:00:00+00:00"}, "is not in its canonical form"),
        ({"protocols": []}, "request.protocols = []"),
        ({"protocols": [0]}, "request.protocols.0 = 0: Input should be greater"),
        ({"more": 1}, "request.more = 1: Extra inputs"),
    ],
)
def test_a_request_names_the_field_and_its_value(changes: dict[str, object], message: str) -> None:
    assert message in refused(forged(**changes))


def test_a_node_key_is_one_on_p384() -> None:
    for key, message in (
        (ec.derive_private_key(5, ec.SECP256R1()).public_key(), "is of kind secp256r1, not secp384r1"),
        (rsa.generate_private_key(65537, 2048).public_key(), "is of kind RSAPublicKey, not secp384r1"),
    ):
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        assert message in refused(forged(node_key=pem))


def test_what_was_signed_for_something_else_is_no_request() -> None:
    body = signed.opened(SEALED, purpose=REQUEST, trusted=[bytes.fromhex(REQUESTED.signing_key)])
    assert (
        refused(signed.sealed(body, SIGNING, purpose="site request 2")) == "a signed document is a 'site request 2', not a 'site request 1'"
    )
    # Anything at all may be inside what somebody signed.
    for odd in (b"", b"[" * 100_000, b"null", b'{"request":{}}'):
        assert refused(signed.sealed(odd, SIGNING, purpose=REQUEST)).startswith("site request 1: ")


@given(
    consortium=names,
    peers=st.lists(st.tuples(names, hexes), unique_by=(lambda peer: peer[0], lambda peer: peer[1]), max_size=5),
    title=lines,
    made=times,
    port=st.integers(1, 65535),
)
def test_a_manifest_comes_back_as_it_was(consortium: str, peers: list[tuple[str, str]], title: str, made: datetime, port: int) -> None:
    address = Address(host="10.0.0.1", port=port)
    changes = {"consortium": consortium, "peers": dict(peers), "title": title, "made": made, "expires": made + timedelta(seconds=1)}
    bundle = MADE.model_copy(update=changes | {"coordinator": address})
    assert read_document(bundle.canonical(), Bundle, what="bundle") == bundle
    # The order in which peers were put in is no part of what is said.
    assert bundle.model_copy(update={"peers": dict(reversed(peers))}).canonical() == bundle.canonical()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bases": MADE.bases * 2}, "bases named twice: thorax"),
        ({"wheels": MADE.wheels * 2}, "wheels named twice: rainhill-0.1.0-py3-none-any.whl"),
        ({"peers": {"a": "1" * 64, "b": "1" * 64}}, f"keys of peers named twice: {'1' * 64}"),
        ({"expires": MADE.made}, "expires 2026-11-22T15:00:00+00:00, and is made 2026-11-22T15:00:00+00:00"),
        ({"wheels": [{"file": "../a.whl", "sha256": "c" * 64, "size": 1}]}, "wheels.0.file"),
        ({"bases": [{"name": "../a", "sha256": "c" * 64, "size": 1}]}, "a name is letters"),
        ({"bases": [{"name": "a", "sha256": "c" * 64, "size": 0}]}, "greater than or equal to 1"),
        ({"coordinator": {"host": "a", "port": 0}}, "coordinator.port"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        Bundle.model_validate({**MADE.model_dump(), **changes})
    assert message in str(error.value)


def test_a_time_elsewhere_is_refused_even_where_it_is_the_same_moment() -> None:
    with pytest.raises(ValidationError, match="is not in UTC"):
        SiteRequest.model_validate({**REQUESTED.model_dump(), "made": REQUESTED.made.astimezone(timezone(timedelta(hours=1)))})


@pytest.mark.parametrize("host", ["localhost", "a.example.org", "10.0.0.1", "::1", "2001:db8::1", "xn--bcher-kva.example", "h2"])
def test_a_host_is_a_name_or_an_ip_address(host: str) -> None:
    assert Address(host=host, port=1).host == host


@pytest.mark.parametrize(
    "host",
    [
        "",
        "A.example",
        "a_b",
        "-a",
        "a-",
        "a..b",
        "a.",
        "*.a",
        "10.0.0.256",
        "1.2.3",
        "[::1]",
        "2001:DB8::1",
        "fe80::1%eth0",
        "bücher",
        "a" * 64,
        "a\n",
        "a b",
        "https://a",
        "a:1",
        ("a" * 60 + ".") * 5 + "a",
    ],
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValidationError, match="host"):
        Address(host=host, port=1)
