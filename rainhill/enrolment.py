"""The two documents by which a site and a coordinator come to know one another: a site's request, and the bundle it is given.

A request is signed with the site's signing key and proved with its node key, so that nobody registers the key of another.
"""

import json
from collections import Counter
from datetime import datetime, timedelta
from typing import Annotated, TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from pydantic import AfterValidator, AwareDatetime, Field, ValidationError, model_validator

from rainhill import signed
from rainhill.address import Address
from rainhill.config import Name
from rainhill.errors import CredentialError
from rainhill.recipe import Sha256
from rainhill.text import shown
from rainhill.toml import Section

REQUEST, BUNDLE = "site request 1", "bundle 1"
"""What they are signed for. The numbers are of their form."""
_PROOF = "proof of a node key 1"
LONGEST_NAME = 50


def _short(name: str) -> str:
    # It becomes part of file names and of a certificate's subject, which holds 64 characters.
    if len(name) > LONGEST_NAME:
        raise ValueError(f"a name here has at most {LONGEST_NAME} characters, not {len(name)}")
    return name


def _printable(text: str) -> str:
    # It is shown to people who decide by it: no character that moves the cursor or hides what follows.
    if not text.isprintable():
        raise ValueError("holds a character that cannot be printed")
    return text


def _utc(time: datetime) -> datetime:
    if time.utcoffset() != timedelta(0):
        raise ValueError("is not in UTC")
    return time


def _p384_pem(pem: str) -> str:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("is not a public key in PEM") from error
    kind = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
    if kind != ec.SECP384R1.name:
        raise ValueError(f"is of kind {kind}, not {ec.SECP384R1.name}")
    assert isinstance(key, ec.EllipticCurvePublicKey)
    if pem != node_pem(key):
        raise ValueError("is not in the canonical form of PEM")
    return pem


def node_pem(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


ShortName = Annotated[Name, AfterValidator(_short)]
Line = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
Utc = Annotated[AwareDatetime, AfterValidator(_utc)]
PublicKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""Ed25519, in hex."""
NodeKey = Annotated[str, Field(max_length=1000), AfterValidator(_p384_pem)]
"""A public key on P-384 in PEM: Flower signs with a NIST curve."""
Protocol = Annotated[int, Field(ge=1, le=10**6)]
Size = Annotated[int, Field(ge=1, le=2**50)]
WheelFile = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]{0,200}\.whl$")]


class Document(Section):
    def canonical(self) -> bytes:
        """JSON with sorted keys, no spaces, defaults written out."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class SiteRequest(Document):
    """What a site tells of itself when it asks to take part."""

    name: ShortName
    title: Line
    node_key: NodeKey
    signing_key: PublicKey
    made: Utc
    software: Line
    protocols: Annotated[tuple[Protocol, ...], Field(min_length=1, max_length=20)]
    """Versions of the wire form that the site speaks."""


class _ProvedRequest(Document):
    proof: Annotated[str, Field(pattern=r"^[0-9a-f]{16,240}$")]
    """ECDSA over the request with the node key, DER in hex."""
    request: SiteRequest


class BundledBase(Section):
    """A base model that the bundle carries."""

    name: ShortName
    sha256: Sha256
    """As recipes pin it: `rainhill.weights.digest` of its folder."""
    size: Size
    """Bytes of all its pinned files."""


class BundledWheel(Section):
    file: WheelFile
    sha256: Sha256
    size: Size


class Bundle(Document):
    """What a consortium gives to a site that it lets take part."""

    consortium: ShortName
    title: Line
    site: ShortName
    coordinator: Address
    ca: Sha256
    """Of ca.crt, the CA that the coordinator's certificate is issued by."""
    consortium_key: PublicKey
    """Signs recipes and bundles, this one too."""
    peers: Annotated[dict[ShortName, PublicKey], Field(max_length=10_000)] = {}
    """Each site's signing key: what secure aggregation pins."""
    bases: tuple[BundledBase, ...] = ()
    wheels: tuple[BundledWheel, ...] = ()
    made: Utc
    expires: Utc

    @model_validator(mode="after")
    def _names_nothing_twice(self) -> "Bundle":
        for what, all_of_it in (
            ("bases", [base.name for base in self.bases]),
            ("wheels", [wheel.file for wheel in self.wheels]),
            ("keys of peers", list(self.peers.values())),
        ):
            twice = sorted(one for one, count in Counter(all_of_it).items() if count > 1)
            if twice:
                raise ValueError(f"{what} named twice: {', '.join(twice)}")
        if self.expires <= self.made:
            raise ValueError(f"expires {self.expires.isoformat()}, and is made {self.made.isoformat()}")
        return self


AnyDocument = TypeVar("AnyDocument", bound=Document)


def read_document(body: bytes, model: type[AnyDocument], *, what: str) -> AnyDocument:
    """Raises CredentialError that names `what`, the field and its value; also for another spelling than the canonical one."""
    try:
        document = model.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"])) or "it"
        message = problem["msg"].removeprefix("Value error, ")
        raise CredentialError(f"{what}: {shown(place)} = {shown(repr(problem['input']))}: {message}") from error
    if document.canonical() != body:
        raise CredentialError(f"{what} ({len(body)} bytes) is not in its canonical form")
    return document


def sealed_request(request: SiteRequest, *, signing: bytes, node: ec.EllipticCurvePrivateKey) -> bytes:
    """An envelope. `signing` is the Ed25519 private key; raises CredentialError unless both keys are those that the request names."""
    for what, got, named in (
        ("signing_key", signed.public_key(signing).hex(), request.signing_key),
        ("node_key", node_pem(node.public_key()), request.node_key),
    ):
        if got != named:
            raise CredentialError(f"{REQUEST}: {what} is {shown(named)}, and is signed with {shown(got)}")
    proof = node.sign(signed.bound(request.canonical(), purpose=_PROOF), ec.ECDSA(SHA384()))
    return signed.sealed(_ProvedRequest(proof=proof.hex(), request=request).canonical(), signing, purpose=REQUEST)


def opened_request(data: bytes) -> SiteRequest:
    """Raises CredentialError unless both keys that the request names have signed it. Whose they are is for people to find out."""
    key = signed.Envelope.from_bytes(data).key
    proved = read_document(signed.opened(data, purpose=REQUEST, trusted=(key,)), _ProvedRequest, what=REQUEST)
    request = proved.request
    if request.signing_key != key.hex():
        raise CredentialError(f"{REQUEST}: {request.name}: signing_key is {request.signing_key}, and is signed with {key.hex()}")
    node = load_pem_public_key(request.node_key.encode())
    assert isinstance(node, ec.EllipticCurvePublicKey)
    try:
        node.verify(bytes.fromhex(proved.proof), signed.bound(request.canonical(), purpose=_PROOF), ec.ECDSA(SHA384()))
    except (InvalidSignature, ValueError) as error:
        pinned = signed.fingerprint(request.node_key.encode())
        raise CredentialError(f"{REQUEST}: {request.name}: is not proved with the node key it names, {pinned}") from error
    return request
