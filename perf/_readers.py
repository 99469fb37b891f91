"""Every reader of bytes from outside, with good messages for it and the ways to spoil them."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from perf import _mutants as spoil
from perf._mutants import Mutate
from perf._secure_round import identities
from rainhill import signed, wire
from rainhill.adapter import Adapter
from rainhill.address import Address
from rainhill.bundle import opened_bundle, write_bundle
from rainhill.compression import ENCODINGS, lossy
from rainhill.enrolment import BUNDLE, REQUEST, Bundle, SiteRequest, node_pem, opened_request, sealed_request
from rainhill.errors import ProtocolError
from rainhill.greeting import GREETING, opened_greeting, sealed_greeting
from rainhill.messages import Evaluation, LocalRule, Plan, Receipt, Refusal, SecureMessage, Update, Waiting
from rainhill.offer import OFFER, Offer, opened_offer, sealed_offer
from rainhill.recipe import Recipe
from rainhill.secagg import Advertisement, Layout, Terms, agree, client, server
from rainhill.stamp import ANSWER, PLAN, stamped, unstamped
from rainhill.told import Gains, Interval, Levels, Told

KEY, OTHER_KEY = b"\1" * 32, b"\2" * 32
PUBLIC = signed.public_key(KEY)
NOW = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
SMALL, SPARSE = 64, 1_100
"""Bytes of memory that a reader may take for each byte of a message: of JSON at its worst, and of a tensor whose largest entries came."""


def _never(message: bytes, mutant: bytes) -> bool:
    return False


def _always(message: bytes, mutant: bytes) -> bool:
    return True


def _one_of(*blobs: bytes) -> Mutate:
    """A good message of something else."""

    def chosen(message: bytes, rng: Random) -> bytes:
        return rng.choice(blobs)

    return chosen


def _same(message: bytes, rng: Random) -> bytes:
    return message


@dataclass(frozen=True, kw_only=True)
class Reader:
    name: str
    read: Callable[[bytes], object]
    """A RainhillError, or what was said, which can be compared."""
    messages: tuple[bytes, ...] = field(repr=False)
    kinds: Mapping[str, Mutate] = field(repr=False)
    another: Callable[[bytes, bytes], bool] = _never
    """Whether flipped bits have made another well-formed message of this one, which only a signature can tell."""
    times: int = SMALL


def every_reader(folder: Path) -> tuple[Reader, ...]:
    """`folder` takes the bundles, which are read from a file."""
    return (*_wire_readers(), *_secure_readers(), *_signed_readers(folder))


def _in(opened: Callable[[bytes], bytes], mutate: Mutate, seal: Callable[[bytes], bytes]) -> Mutate:
    """Spoilt within, and then signed as if it were good: a peer that is enrolled and hostile."""

    def mutated(message: bytes, rng: Random) -> bytes | None:
        spoilt = mutate(opened(message), rng)
        return None if spoilt is None else seal(spoilt)

    return mutated


_BYTES: dict[str, Mutate] = {
    "truncated": spoil.truncated,
    "appended": spoil.appended,
    "bits flipped": spoil.flipped,
    "arbitrary": spoil.arbitrary,
    "pickled": spoil.pickled,
}
_TENSORS: dict[str, Mutate] = {
    "length declared": spoil.length_declared,
    "JSON confused": spoil.header_confused,
    "safetensors confused": spoil.outer_confused,
    "shape huge": spoil.shape_huge,
    "shape wrong": spoil.shape_wrong,
    "shape odd": spoil.shape_odd,
    "dtype wrong": spoil.dtype_wrong,
    "tensor extra": spoil.tensor_extra,
    "tensor missing": spoil.tensor_missing,
}
_WITH_TENSORS = ("shape huge", "shape wrong", "shape odd", "dtype wrong", "tensor missing")
_VALUES: dict[str, Mutate] = {"not finite": spoil.not_finite, "too large": spoil.too_large}
_ANOTHER_VERSION = spoil.header_set("version", (0, 1, 4, -1, 10**30, 10**400, 2.0, 3.0, "3", True, None, [3], {"3": 3}))


def _some(*mutates: Mutate) -> Mutate:
    return lambda message, rng: rng.choice(mutates)(message, rng)


# The wire.

ADAPTER = Adapter(
    {"m.lora_A": np.full((2, 3), 0.5, np.float32), "m.lora_B": np.full((4, 2), -0.25, np.float32), "head.bias": np.ones(5, np.float32)}
)
PLAN_SENT = Plan(
    run="spring",
    recipe="f" * 64,
    round=3,
    site="bury",
    adapter=ADAPTER,
    rule=LocalRule(train=frozenset({"B"}), send=frozenset({"B"}), mu=0.5, keep=("tail.*",), variate=True, correction=ADAPTER, kept_first=2),
    choices=(ADAPTER * 2, ADAPTER * 3),
)
EXPECTED = {name: array.shape for name, array in ADAPTER.items() if PLAN_SENT.rule.sends(name)}
_FIELDS: dict[str, tuple[object, ...]] = {"run": ("winter", ""), "round": (2, 4, 0, -3), "site": ("oldham", "Bury", "")}
_REPLAYED = _some(*(spoil.header_set(name, values) for name, values in _FIELDS.items()))
_COUNTS = _some(
    *(
        spoil.header_set(name, (10**9 + 1, 2**63, 10**30, 10**400, -1))
        for name in ("round", "choices", "kept_first", "patients", "steps", "choice", "phase")
    ),
    spoil.header_set("share", (0, -1.0, 1.5, 1e-9, 10**400)),
    spoil.header_set("mu", (-1.0, 10**400)),
    spoil.header_set("retry_s", (-1.0, 1e9)),
)


def _updates() -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    drawn = Adapter({name: rng.normal(size=shape).astype(np.float32) for name, shape in EXPECTED.items()})
    for encoding in ENCODINGS:
        delta = lossy(drawn, encoding, share=0.5)
        update = Update(
            run="spring",
            round=3,
            site="bury",
            delta=delta,
            variate=drawn,
            patients=40,
            steps=7,
            loss=0.25,
            epsilon=0.5,
            choice=1,
            encoding=encoding,
            share=0.5,
            evaluation=Evaluation(patients=9, metrics={"auroc": 0.75}),
        )
        yield wire.answer_to_bytes(update)
    yield wire.answer_to_bytes(replace(update, epsilon=None), version=2)


def _wire_readers() -> Iterator[Reader]:
    updates, refusal = tuple(_updates()), Refusal(run="spring", round=3, site="bury", reason="no patient to train on")
    waiting = wire.answer_to_bytes(Waiting(run="spring", round=3, site="bury", reason="waits for approval", retry_s=30.0))
    gain = Interval(value=0.05, low=-0.01, high=0.1)
    told = Told(
        confidence=0.95, measure="auroc", levels=Levels(base=None, shared=gain, private=gain), gain=Gains(shared=gain, private=None)
    )
    receipt = wire.answer_to_bytes(Receipt(run="spring", round=3, site="bury", adapter="a" * 64, told=told))
    plans = (wire.plan_to_bytes(PLAN_SENT), wire.plan_to_bytes(PLAN_SENT, version=2))
    answers = (*updates, wire.answer_to_bytes(refusal))
    secure = wire.secure_to_bytes(SecureMessage(run="spring", round=3, site="bury", phase=0, body=b"body"))
    kinds = {**_BYTES, **_TENSORS, **_VALUES, "other version": _ANOTHER_VERSION, "count out of range": _COUNTS}

    def of_kind(*others: bytes) -> Mutate:
        return _one_of(*others, secure, Adapter({}).to_bytes(), ADAPTER.to_bytes())

    def stamp_as(purpose: str, key: bytes = KEY) -> Callable[[bytes], bytes]:
        return lambda blob: stamped(blob, key, purpose=purpose)

    yield Reader(
        name="wire.plan_from_bytes",
        read=wire.plan_from_bytes,
        messages=plans,
        another=spoil.alike,
        kinds={**kinds, "wrong kind": of_kind(*answers, waiting)},
    )
    yield Reader(
        name="wire.answer_from_bytes",
        read=_checked(wire.answer_from_bytes),
        messages=answers,
        another=spoil.alike,
        times=SPARSE,
        kinds={**kinds, "sparse huge": spoil.sparse_huge, "replayed": _REPLAYED, "wrong kind": of_kind(*plans, waiting)},
    )
    yield Reader(
        name="wire.live_answer_from_bytes",
        read=_checked(wire.live_answer_from_bytes),
        messages=(*answers, waiting, receipt),
        another=spoil.alike,
        times=SPARSE,
        kinds={**kinds, "sparse huge": spoil.sparse_huge, "replayed": _REPLAYED, "wrong kind": of_kind(*plans)},
    )
    for name, purpose, read, inner, others in (
        ("stamp.unstamped, a plan", PLAN, wire.plan_from_bytes, plans, (*answers, waiting)),
        ("stamp.unstamped, an answer", ANSWER, _checked(wire.live_answer_from_bytes), (*answers, waiting, receipt), plans),
    ):
        seal = stamp_as(purpose)
        within = {kind: _in(_unsigned, mutate, seal) for kind, mutate in {**_TENSORS, **_VALUES, "other version": _ANOTHER_VERSION}.items()}
        yield Reader(
            name=name,
            read=_after_stamp(purpose, read),
            messages=tuple(map(seal, inner)),
            times=SPARSE,
            kinds={
                **_BYTES,
                **within,
                "replayed": _in(
                    _unsigned, _same, _some_seal(stamp_as(purpose, OTHER_KEY), stamp_as(PLAN if purpose == ANSWER else ANSWER))
                ),
                "wrong kind": _in(_unsigned, of_kind(*others), seal),
            },
        )


def _unsigned(data: bytes) -> bytes:
    return data[64:]


def _some_seal(*seals: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    # By the message, so that the same run makes the same.
    return lambda blob: seals[hashlib.sha256(blob).digest()[0] % len(seals)](blob)


def _checked(read: Callable[[bytes], Update | Refusal | Waiting | Receipt]) -> Callable[[bytes], object]:
    """As the coordinator reads it, who knows what it asked."""

    def checked(blob: bytes) -> object:
        answer = read(blob)
        if isinstance(answer, Waiting | Receipt):
            if (answer.run, answer.round, answer.site) != (PLAN_SENT.run, PLAN_SENT.round, PLAN_SENT.site):
                raise ProtocolError("is not of this plan")
            return answer
        wire.check_answer(answer, PLAN_SENT, EXPECTED)
        return answer

    return checked


def _after_stamp(purpose: str, read: Callable[[bytes], object]) -> Callable[[bytes], object]:
    return lambda data: read(unstamped(data, PUBLIC, purpose=purpose))


# Secure aggregation.


def _secure_readers() -> Iterator[Reader]:
    layout = Layout(shapes={name: array.shape for name, array in ADAPTER.items()})
    sites = [f"s{number}" for number in range(4)]
    terms = agree(run="spring", round=3, weights=dict.fromkeys(sites, 1), layout=layout, bound=1.0)
    elsewhere = agree(run="spring", round=4, weights=dict.fromkeys(sites, 1), layout=layout, bound=1.0)
    messages = tuple(_exchanged(terms, sites))
    blobs = tuple(message.to_bytes(terms) for message in messages)
    version = spoil.header_set("version", (0, 2, 3, "1", True, 1.0, None, [1]))
    for number, message in enumerate(messages):
        others = tuple(blob for blob in blobs if blob != blobs[number])
        replayed = message.to_bytes(elsewhere)
        bare = {} if spoil.Parts.of(blobs[number]).tensors else dict.fromkeys(_WITH_TENSORS)

        yield Reader(
            name=f"secagg.{type(message).__name__}",
            read=_reading(type(message), terms),
            messages=(blobs[number],),
            another=_always,
            kinds={
                **_BYTES,
                **{kind: mutate for kind, mutate in _TENSORS.items() if kind not in bare},
                "other version": version,
                "wrong kind": _one_of(*others),
                "replayed": _one_of(replayed),
            },
        )
    first = messages[0].to_bytes(terms)

    def exchanged(blob: bytes) -> object:
        answer = wire.secure_from_bytes(blob)
        if (answer.run, answer.round, answer.site) != ("spring", 3, "s0") or (isinstance(answer, SecureMessage) and answer.phase):
            raise ProtocolError("answers something else")
        return answer if isinstance(answer, Refusal) else Advertisement.from_bytes(answer.body, terms).to_bytes(terms)

    asked = SecureMessage(run="spring", round=3, site="s0", phase=0, body=first)
    refusal = Refusal(run="spring", round=3, site="s0", reason="no")
    yield Reader(
        name="wire.secure_from_bytes",
        read=exchanged,
        messages=(wire.secure_to_bytes(asked), wire.answer_to_bytes(refusal)),
        another=spoil.alike,
        kinds={
            **_BYTES,
            **_TENSORS,
            "other version": _ANOTHER_VERSION,
            "count out of range": _COUNTS,
            "replayed": _some(_REPLAYED, spoil.header_set("phase", (1, 2, 3, 4))),
            "wrong kind": _one_of(wire.plan_to_bytes(PLAN_SENT), first, Adapter({}).to_bytes()),
        },
    )
    yield Reader(
        name="secagg.Terms",
        read=lambda data: Terms.from_bytes(data).to_bytes(),
        messages=(terms.to_bytes(),),
        another=_always,
        kinds={
            **_BYTES,
            "JSON confused": lambda message, rng: _encoded(spoil.confused(json.loads(message), rng)),
            "shape huge": lambda message, rng: _encoded(_huge_terms(json.loads(message), rng)),
            "wrong kind": _one_of(first),
        },
    )


def _reading(kind: Any, terms: Terms) -> Callable[[bytes], object]:
    return lambda blob: kind.from_bytes(blob, terms).to_bytes(terms)


def _exchanged(terms: Terms, sites: list[str]) -> Iterator[Any]:
    """One message of every kind, from a round in which one site is lost."""
    who = identities(dict.fromkeys(sites))
    advertised = {site: client.advertise(terms, site, identity=who.private[site]) for site in sites}
    gathered, roster = server.gather(terms, [sent for _, sent in advertised.values()], pinned=who.pinned)
    shared = {site: client.share(state, roster, pinned=who.pinned) for site, (state, _) in advertised.items()}
    routed, inboxes = server.route(gathered, [sent for _, sent in shared.values()])
    masked = {site: client.mask(shared[site][0], inboxes[site], ADAPTER) for site in sites[:-1]}
    added, request = server.add_up(routed, [sent for _, sent in masked.values()])
    confirmed = {site: client.confirm(state, request, identity=who.private[site]) for site, (state, _) in masked.items()}
    everybodys = server.confirm(added, [sent for _, sent in confirmed.values()], pinned=who.pinned)
    yield from (advertised["s0"][1], roster, shared["s0"][1], inboxes["s0"], masked["s0"][1], request, confirmed["s0"][1], everybodys)
    yield client.reveal(confirmed["s0"][0], everybodys, pinned=who.pinned)


def _huge_terms(terms: dict[str, Any], rng: Random) -> str:
    huge = rng.choice([[2**62, 2**62], [10**4000] * 20, [2**29], [10**4000], [2**31] * 1000])
    return json.dumps(
        {**terms, "shapes": {"m": huge}} if rng.random() < 0.7 else {**terms, "weights": dict.fromkeys("abcd", 10**4299 * 9)},
        sort_keys=True,
        separators=(",", ":"),
    )


# What is signed.

_NODE = ec.derive_private_key(10**80, ec.SECP384R1())


def _request() -> SiteRequest:
    return SiteRequest(
        name="bury",
        title="Bury General",
        node_key=node_pem(_NODE.public_key()),
        signing_key=PUBLIC.hex(),
        made=NOW,
        software="rainhill 0.1.0",
        protocols=wire.VERSIONS,
    )


def _offer() -> Offer:
    recipe = Recipe.model_validate(
        {
            "name": "chest",
            "task": {"name": "findings", "findings": ["effusion"]},
            "base": {"model": "vit", "weights": "embedded:thorax_tiny", "sha256": "0" * 64},
            "strategy": {"rule": "fedavg"},
            "rounds": {"count": 2, "steps": 4},
            "private": {"steps": 4},
        }
    )
    return Offer(
        consortium="north_west",
        run="chest-1",
        recipe=recipe,
        adapter="1" * 64,
        tensors={"layer.0.q_proj.lora_A": (2, 6)},
        sites={"bury": "2" * 64, "oldham": "3" * 64},
        by="ada",
        made=NOW,
        until=NOW + timedelta(days=14),
    )


def _signed_readers(folder: Path) -> Iterator[Reader]:
    yield Reader(
        name="signed.opened",
        read=lambda data: signed.opened(data, purpose="test 1", trusted=(PUBLIC,)),
        messages=(signed.sealed(b"a body", KEY, purpose="test 1"), signed.sealed(b"", KEY, purpose="test 1")),
        kinds={**_BYTES, **_enveloped("test 1")},
    )
    offer = _offer()
    yield _document(
        "offer.opened_offer",
        OFFER,
        lambda data: opened_offer(data, consortium="north_west", public=PUBLIC),
        sealed_offer(offer, KEY),
        sealed_offer(offer.model_copy(update={"consortium": "south_east"}), KEY),
        sealed_offer(offer, OTHER_KEY),
    )
    request = _document("enrolment.opened_request", REQUEST, opened_request, sealed_request(_request(), signing=KEY, node=_NODE))
    yield replace(request, kinds={**request.kinds, "key of another kind": _other_node_key})
    yield _document(
        "greeting.opened_greeting",
        GREETING,
        lambda data: opened_greeting(data, site="bury", nonce=bytes(16), public=PUBLIC),
        sealed_greeting("bury", bytes(16), KEY),
        sealed_greeting("bury", b"\1" * 16, KEY),
        sealed_greeting("oldham", bytes(16), KEY),
        sealed_greeting("bury", bytes(16), OTHER_KEY),
    )
    yield _bundles(folder)


def _enveloped(purpose: str) -> dict[str, Mutate]:
    def as_json(message: bytes, rng: Random) -> bytes | None:
        return _encoded(spoil.confused(json.loads(message), rng))

    def unlike(message: bytes, rng: Random) -> bytes:
        body = signed.Envelope.from_bytes(message).body
        return signed.sealed(body, KEY, purpose=rng.choice(["x", purpose[:-1] + "0", purpose[:-1] + "2", "\n", "bundle 9"]))

    def oversized(message: bytes, rng: Random) -> bytes:
        return rng.choice([message + b" " * 2**20, b'{"body":"' + b"A" * 2**20 + b'"}', b"[" * 2**20, b" " * 2**21])

    return {"envelope confused": as_json, "other version": unlike, "oversized": oversized}


def _document(name: str, purpose: str, read: Callable[[bytes], object], message: bytes, *replayed: bytes) -> Reader:
    def body(mutate: Callable[[Any, Random], str | None]) -> Mutate:
        def mutated(message: bytes, rng: Random) -> bytes | None:
            text = mutate(json.loads(signed.Envelope.from_bytes(message).body), rng)
            if text is None or len(text) > 2**19:
                return None
            return signed.sealed(text.encode(errors="surrogatepass"), KEY, purpose=purpose)

        return mutated

    def wrong_kind(message: bytes, rng: Random) -> bytes:
        return signed.sealed(rng.choice([b"", b"null", b"{}", b"[]", b"5", wire.plan_to_bytes(PLAN_SENT)]), KEY, purpose=purpose)

    def flipped_within(message: bytes, rng: Random) -> bytes:
        return signed.sealed(
            rng.choice([spoil.truncated, spoil.appended, spoil.pickled])(signed.Envelope.from_bytes(message).body, rng),
            KEY,
            purpose=purpose,
        )

    # What a recipe gives its plug-ins is theirs to check.
    loose = frozenset({"task", "strategy"})
    kinds = {
        **_BYTES,
        **_enveloped(purpose),
        "JSON confused": body(lambda document, rng: spoil.confused(document, rng, loose=loose)),
        "body spoilt": flipped_within,
        "wrong kind": wrong_kind,
    }
    if replayed:
        kinds["replayed"] = _one_of(*replayed)
    return Reader(name=name, read=read, messages=(message,), kinds=kinds)


def _other_node_key(message: bytes, rng: Random) -> bytes:
    """Signed by a site whose node key is none, with a body in its canonical form."""
    body = json.loads(signed.Envelope.from_bytes(message).body)
    spki = {"encoding": Encoding.PEM, "format": PublicFormat.SubjectPublicKeyInfo}
    good = body["request"]["node_key"]
    inner = bytearray(base64.b64decode("".join(good.splitlines()[1:-1])))
    inner[rng.randrange(len(inner))] ^= 1 << rng.randrange(8)
    bent = f"-----BEGIN PUBLIC KEY-----\n{base64.encodebytes(bytes(inner)).decode()}-----END PUBLIC KEY-----\n"
    keys = [
        ec.derive_private_key(7, ec.SECP256R1()).public_key().public_bytes(**spki).decode(),  # type: ignore[arg-type]
        Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes(**spki).decode(),  # type: ignore[arg-type]
        node_pem(ec.derive_private_key(10**81, ec.SECP384R1()).public_key()),
        good.replace("PUBLIC", "PRIVATE"),
        good[:-30],
        good + "\n",
        bent,
        bent,
        bent,
        "",
        "\x00",
    ]
    body["request"]["node_key"] = rng.choice(keys)
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return signed.sealed(text.encode(), KEY, purpose=REQUEST)


def _bundles(folder: Path) -> Reader:
    ca, told = b"-----BEGIN CERTIFICATE-----\n", signed.fingerprint(PUBLIC)
    manifest = Bundle(
        consortium="north_west",
        title="North West",
        site="bury",
        coordinator=Address(host="coordinator.example.org", port=8443),
        ca=hashlib.sha256(ca).hexdigest(),
        consortium_key=PUBLIC.hex(),
        peers={"bury": "1" * 64},
        made=NOW,
        expires=NOW + timedelta(days=30),
    )
    path, trial = folder / "good.zip", folder / "bundle.zip"
    write_bundle(path, manifest, KEY, ca, {})

    def read(data: bytes) -> object:
        trial.write_bytes(data)
        return opened_bundle(trial, expect=told, now=NOW)

    document = _document("", BUNDLE, read, signed.sealed(manifest.canonical(), KEY, purpose=BUNDLE))

    def within(mutate: Mutate) -> Mutate:
        def mutated(message: bytes, rng: Random) -> bytes | None:
            spoilt = mutate(document.messages[0], rng)
            return None if spoilt is None else _zipped(folder / "spoilt.zip", spoilt, ca)

        return mutated

    other = manifest.model_copy(update={"consortium_key": signed.public_key(OTHER_KEY).hex()})
    another = _zipped(folder / "spoilt.zip", signed.sealed(other.canonical(), OTHER_KEY, purpose=BUNDLE), ca)
    kinds = {**_BYTES, **{kind: within(mutate) for kind, mutate in document.kinds.items() if kind not in _BYTES}}
    kinds |= {"manifest flipped": within(spoil.flipped), "replayed": _one_of(another)}
    return Reader(name="bundle.opened_bundle", read=read, messages=(path.read_bytes(),), kinds=kinds)


def _zipped(path: Path, manifest: bytes, ca: bytes) -> bytes:
    from zipfile import ZipFile

    from rainhill import zipped

    with ZipFile(path, "w") as archive:
        archive.writestr(zipped.entry("manifest.json", len(manifest)), manifest)
        archive.writestr(zipped.entry("ca.crt", len(ca)), ca)
    return path.read_bytes()


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode(errors="surrogatepass")
