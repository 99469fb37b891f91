"""What a simulated site protects its patients with: a ledger in the run's folder, noise and signing keys that anybody can work out."""

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.privacy.guard import Guard
from client.privacy.ledger import Ledger
from client.privacy.randomness import derived_key, simulated_key
from client.secure import Masker
from client.training.answer import LocalData, site_seed
from client.workbench import Bench
from rainhill.config import PrivacyConfig
from rainhill.messages import SiteId
from rainhill.recipe import Recipe
from sites.bench import SiteData


def guard_of(bench: Bench, site: SiteId, own: LocalData, folder: Path) -> Guard | None:
    """None where neither the recipe nor the site asks for privacy. `folder` is what the site keeps of this run.

    A site without a [privacy] of its own allows what the recipe asks, and declares how many train where updates are weighed by that: each
    run has a ledger to itself, so runs do not add up here.
    """
    if not isinstance(own, SiteData):
        return None
    asked, config = bench.recipe.privacy, own.privacy
    train = own.cohort.part("train").pseudonyms
    if config is None and asked is not None:
        declared = None if bench.recipe.strategy.weights == "equal" else len(train)
        config = PrivacyConfig(epsilon=asked.epsilon, delta=asked.delta, declared_patients=declared)
    if config is None:
        return None
    return Guard(
        site=site,
        config=config,
        ledger=Ledger.open(folder, site=site),
        folder=folder,
        cohort=own.cohort.fingerprint(),
        train=train,
        val=own.cohort.part("val").pseudonyms,
        seed=site_seed(bench.recipe.seed, site, 0),
    )


def masker_of(recipe: Recipe, site: SiteId, *, sites: Sequence[SiteId], memory: Path) -> Masker | None:
    """None where the recipe asks for no secure aggregation. `memory` is the folder in which each site has one of its own."""
    if recipe.secure_aggregation is None:
        return None
    return Masker(
        site=site,
        folder=memory / site / "secure",
        identity=_identity(recipe, site),
        pinned=pinned_keys(recipe, sites),
        section=recipe.secure_aggregation,
        weights=recipe.strategy.weights,
    )


def pinned_keys(recipe: Recipe, sites: Sequence[SiteId]) -> dict[SiteId, bytes]:
    """The public signing key of every site, which hospitals exchange when they join."""
    return {site: Ed25519PrivateKey.from_private_bytes(_identity(recipe, site)).public_key().public_bytes_raw() for site in sites}


def _identity(recipe: Recipe, site: SiteId) -> bytes:
    return derived_key(simulated_key(site_seed(recipe.seed, site, 0)), "signing")
