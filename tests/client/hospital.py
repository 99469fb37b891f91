"""A small hospital that has joined a consortium, and what its coordinator asks of it. The coordinator is a key here, and nothing else."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np

from client.home import SiteHome, begin
from client.offers import Offers
from client.workbench import first_adapter, open_bench
from rainhill import signed
from rainhill.adapter import Adapter
from rainhill.address import Address
from rainhill.enrolment import BUNDLE, Bundle, BundledBase
from rainhill.files import write_whole
from rainhill.messages import LocalRule, Plan, Update
from rainhill.offer import Offer, sealed_offer
from rainhill.recipe import Recipe
from rainhill.toml import parse, read_toml
from strategies import State, from_recipe
from tests.conftest import write_hospital

KEY = bytes(range(32))
RecipeText = Callable[..., str]


@dataclass(frozen=True)
class Asks:
    """What a recipe is offered with."""

    recipe: Recipe
    first: Adapter

    def offer(self, run: str = "spring", **changes: object) -> Offer:
        now = datetime.now(UTC)
        about = {
            "consortium": "north_west",
            "run": run,
            "recipe": self.recipe,
            "adapter": self.first.fingerprint(),
            "tensors": {name: array.shape for name, array in self.first.items()},
            "sites": {"bury": "0" * 64, "oldham": "1" * 64},
            "by": "ada",
            "made": now - timedelta(days=1),
            "until": now + timedelta(days=14),
        }
        return Offer.model_validate(about | changes)

    def sealed(self, run: str = "spring", **changes: object) -> bytes:
        return sealed_offer(self.offer(run, **changes), KEY)

    def plan(self, number: int = 1, *, run: str = "spring", seed: int = 0, **changes: object) -> Plan:
        """Of round 1 the offered adapter, of others one that `seed` draws."""
        rng = np.random.default_rng([number, seed])
        later = {name: array + rng.normal(0, 0.01, array.shape).astype(np.float32) for name, array in self.first.items()}
        adapter = self.first if (number, seed) == (1, 0) else Adapter(later)
        rule = from_recipe(self.recipe).local(adapter, State(round=number - 1), "bury")
        about: dict[str, Any] = {"recipe": self.recipe.sha256, "round": number, "site": "bury", "adapter": adapter, "rule": rule}
        return Plan(run=run, **(about | changes))

    def update(self, plan: Plan, *, scale: float = 1e-3, **changes: object) -> Update:
        """As training would give it, but drawn."""
        rng = np.random.default_rng(plan.round)
        shapes = from_recipe(self.recipe).uplink(plan.adapter, plan.rule)
        delta = Adapter({name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in shapes.items()})
        about: dict[str, Any] = {"delta": delta, "patients": 20, "steps": self.recipe.rounds.steps, "loss": 0.5}
        return Update(run=plan.run, round=plan.round, site=plan.site, **(about | changes))


def asks(text: str, folder: Path) -> Asks:
    path = folder / "recipe.toml"
    path.write_text(text)
    recipe = read_toml(path, Recipe)
    return Asks(recipe=recipe, first=first_adapter(open_bench(recipe, folder)))


def rule(plan: Plan, **changes: object) -> LocalRule:
    return LocalRule(**({name: getattr(plan.rule, name) for name in LocalRule.__dataclass_fields__} | changes))


def join(folder: Path, base: Path, sha256: str, *, extra: str = "", patients: int = 50) -> Path:
    """The file of site bury, which has joined consortium north_west; `extra` is added to it.

    Patients are dealt by a lot that is new in each test, and a run wants ten to train on: of so many, one deal in 300,000 has fewer.
    """
    path = write_hospital(folder, "bury", patients=patients)
    path.write_text(f'{path.read_text()}by = "patient"\n{extra}')
    home = SiteHome.open(path)
    begin(home)
    copytree(base, home.consortium / "bases" / "tiny")
    known(home, bases=(BundledBase(name="tiny", sha256=sha256, size=1),))
    return path


def known(home: SiteHome, *, key: bytes = KEY, consortium: str = "north_west", bases: tuple[BundledBase, ...] = ()) -> None:
    """What the site holds of its consortium."""
    now = datetime.now(UTC)
    about = {
        "consortium": consortium,
        "title": "North West",
        "site": "bury",
        "coordinator": Address(host="localhost", port=9092),
        "ca": hashlib.sha256(b"").hexdigest(),
        "consortium_key": signed.public_key(key).hex(),
        "peers": {"bury": home.identity().signing_public.hex()},
        "bases": bases,
        "wheels": (),
        "made": now,
        "expires": now + timedelta(days=30),
    }
    bundle = parse(about, Bundle, origin="test")
    write_whole(home.consortium / "manifest.json", signed.sealed(bundle.canonical(), key, purpose=BUNDLE))


def offers(site_file: Path) -> Offers:
    return Offers.open(SiteHome.open(site_file))


def rewrite(site_file: Path, old: str, new: str) -> None:
    text = site_file.read_text()
    assert old in text
    site_file.write_text(text.replace(old, new))
