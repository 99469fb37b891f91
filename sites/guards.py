"""A simulated site's guard: its own ledger in the run's folder, and noise that anybody can work out from the seed."""

from pathlib import Path

from client.privacy.guard import Guard
from client.privacy.ledger import Ledger
from client.training.answer import LocalData, site_seed
from rainhill.config import PrivacyConfig
from rainhill.messages import SiteId
from sites.bench import Bench, SiteData


def guard_of(bench: Bench, site: SiteId, own: LocalData, folder: Path) -> Guard | None:
    """None where neither the recipe nor the site asks for privacy. `folder` is what the site keeps of this run.

    A site without a [privacy] of its own allows what the recipe asks: each run has a ledger to itself, so runs do not add up here.
    """
    if not isinstance(own, SiteData):
        return None
    asked, config = bench.recipe.privacy, own.privacy
    if config is None and asked is not None:
        config = PrivacyConfig(epsilon=asked.epsilon, delta=asked.delta)
    if config is None:
        return None
    return Guard(
        site=site,
        config=config,
        ledger=Ledger.open(folder, site=site),
        folder=folder,
        cohort=own.cohort.fingerprint(),
        train=own.cohort.part("train").pseudonyms,
        val=own.cohort.part("val").pseudonyms,
        seed=site_seed(bench.recipe.seed, site, 0),
    )
