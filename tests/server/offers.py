"""Sites that are enrolled, and runs that are offered to them, for the tests that need some."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rainhill.adapter import Adapter
from rainhill.enrolment import SiteRequest, node_pem
from rainhill.messages import RoundRecord
from rainhill.offer import Offer, sealed_offer
from rainhill.recipe import Recipe
from server.registry import Registry

KEY = bytes(range(32))
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def enrol(registry: Registry, *names: str) -> None:
    for name in names:
        request = {
            "name": name,
            "title": f"{name.capitalize()} General",
            "node_key": node_pem(ec.generate_private_key(ec.SECP384R1()).public_key()),
            "signing_key": Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex(),
            "made": datetime.now(UTC),
            "software": "rainhill 0.1.0",
            "protocols": (3,),
        }
        registry.enrol(SiteRequest.model_validate(request), by="ada")


def recipe(**changes: object) -> Recipe:
    about = {
        "name": "spring",
        "task": {"name": "findings", "findings": ["effusion"]},
        "base": {"model": "vit", "weights": "embedded:thorax_tiny", "sha256": "0" * 64},
        "lora": {"rank": 2, "alpha": 4},
        "strategy": {"rule": "fedavg"},
        "rounds": {"count": 3, "steps": 4},
        "private": {"steps": 4},
    }
    return Recipe.model_validate(about | changes)


def adapter(*, rank: int = 2, **changes: object) -> Adapter:
    rng = np.random.default_rng(0)
    arrays = {
        "layer.0.q_proj.lora_A": rng.standard_normal((rank, 6)).astype(np.float32),
        "layer.0.q_proj.lora_B": np.zeros((5, rank), np.float32),
        "head.weight": rng.standard_normal((1, 6)).astype(np.float32),
        "head.bias": np.zeros(1, np.float32),
    }
    return Adapter({name: array for name, array in (arrays | changes).items() if array is not None})


def offer(run: str = "spring-1", *, sites: Sequence[str] = ("bury", "oldham"), made: datetime = NOW, **changes: object) -> Offer:
    about = {
        "consortium": "north_west",
        "run": run,
        "recipe": recipe(),
        "adapter": "1" * 64,
        "tensors": {"layer.lora_A": (2, 3)},
        "sites": {site: f"{number:064x}" for number, site in enumerate(sites)},
        "by": "ada",
        "made": made,
        "until": made + timedelta(days=14),
    }
    return Offer.model_validate(about | changes)


def sealed(made: Offer) -> bytes:
    return sealed_offer(made, KEY)


def record(number: int, *, answered: Sequence[str] = ("bury", "oldham"), refused: Mapping[str, str] | None = None) -> RoundRecord:
    return RoundRecord(
        round=number,
        asked=("bury", "oldham"),
        answered=tuple(answered),
        refused=dict(refused or {}),
        down_bytes={"bury": 3 * 2**20, "oldham": 3 * 2**20},
        up_bytes=dict.fromkeys(answered, 2**20),
        losses=dict.fromkeys(answered, 0.5),
        evaluations={"bury": {"auroc": 0.75}},
        seconds=12.5,
        log={"energy": 0.9},
    )
