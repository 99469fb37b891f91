"""Charges of a made-up site."""

import hashlib
from collections.abc import Callable

import pytest

from client.privacy.events import Charged

Charge = Callable[..., Charged]


@pytest.fixture(scope="session")
def sha() -> Callable[[object], str]:
    return lambda what: hashlib.sha256(str(what).encode()).hexdigest()


@pytest.fixture(scope="session")
def charge(sha: Callable[[object], str]) -> Charge:
    """A charge of one round; keywords replace its fields."""

    def made(round: int = 1, **fields: object) -> Charged:  # noqa: A002
        usual = {
            "run": "chest",
            "recipe": sha("recipe"),
            "round": round,
            "cohort": "films",
            "what": "update",
            "members": sha("members"),
            "noise_multiplier": 1.1,
            "sample_rate": 0.032,
            "steps": 10,
            "delta": 1e-5,
            "draw": sha(("draw", round)),
            "plan": sha(("plan", round)),
        }
        return Charged(**(usual | fields))

    return made
