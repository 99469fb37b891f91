"""What trains at a hospital: the base of the run in work, the site's patients over it, and the ledger that they are charged to."""

import logging
from dataclasses import dataclass, field

from client.data import cohort, manifest
from client.data.cohort import Cohort
from client.home import SiteHome
from client.offers import opened
from client.privacy.guard import Guard
from client.privacy.ledger import Ledger
from client.secure import Masker
from client.training.answer import answered, site_seed
from client.training.memory import Memory
from client.training.prefix import PrefixCache
from client.workbench import Bench, OwnData, open_bench, own_data
from rainhill.config import ComputeConfig, SiteConfig
from rainhill.errors import ConfigError, RainhillError, RefusedError
from rainhill.messages import UNTOLD, Plan, Refusal, Update
from rainhill.offer import Offer
from rainhill.recipe import Recipe

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _Open:
    """What is kept from plan to plan of one recipe."""

    recipe: str
    table: tuple[int, int]
    """Time and size of the manifest: with another one, the data are read again."""
    config: SiteConfig
    """As the site's file had it."""
    bench: Bench
    data: OwnData


@dataclass
class Workshop:
    home: SiteHome
    _open: _Open | None = field(default=None, init=False)

    def answer(self, sealed: bytes, plan: Plan) -> Update | Refusal:
        """`sealed` is the offer of the plan's run. What goes wrong is told here, in the site's own log, and not to who asked."""
        try:
            self.home = self.home.again()
            return self._answer(opened(self.home, sealed), plan)
        except RefusedError as error:
            # Of what was asked and what is allowed, and so for who asked.
            log.info("round %d of run %s: %s", plan.round, plan.run, error)
            return Refusal(run=plan.run, round=plan.round, site=plan.site, reason=str(error))
        except RainhillError as error:
            log.warning("round %d of run %s: %s", plan.round, plan.run, error)
        except Exception:
            log.exception("round %d of run %s failed", plan.round, plan.run)
        return Refusal(run=plan.run, round=plan.round, site=plan.site, reason=UNTOLD)

    def _answer(self, offer: Offer, plan: Plan) -> Update | Refusal:
        recipe = offer.recipe
        own = self._opened(recipe)
        folder = self.home.run(plan.run)
        return answered(
            plan,
            recipe=recipe,
            strategy=own.bench.strategy,
            net=own.bench.net,
            task=own.bench.task,
            data=own.data,
            memory=Memory(folder / "memory"),
            guard=self._guard(recipe, own.data.cohort),
            masker=_masker(self.home, offer),
        )

    def _opened(self, recipe: Recipe) -> _Open:
        known, table = self._open, _table(self.home)
        if known is None or (known.recipe, known.config) != (recipe.sha256, self.home.config):
            # Two bases at once may be more than the machine holds.
            self._open = known = None
        if known is None or known.table != table:
            bench = known.bench if known else _bench(self.home, recipe)
            self._open = known = _Open(
                recipe=recipe.sha256, table=table, config=self.home.config, bench=bench, data=_data(self.home, bench)
            )
        return known

    def _guard(self, recipe: Recipe, films: Cohort) -> Guard | None:
        config = self.home.config.privacy
        if config is None:
            return None
        return Guard(
            site=self.home.config.name,
            config=config,
            ledger=Ledger.open(self.home.state, site=self.home.config.name),
            folder=self.home.state,
            cohort=films.fingerprint(),
            train=films.part("train").pseudonyms,
            val=films.part("val").pseudonyms,
            seed=site_seed(recipe.seed, self.home.config.name, 0) if config.noise == "simulated" else None,
        )


def _bench(home: SiteHome, recipe: Recipe) -> Bench:
    compute = home.config.compute
    _limit(compute)
    weights = str(home.base_of(recipe.base.sha256))
    return open_bench(recipe, home.state, weights=weights, device=compute.device, precision=compute.precision)


def _limit(compute: ComputeConfig) -> None:
    import torch

    if compute.threads is not None:
        torch.set_num_threads(compute.threads)
    if compute.gpu_memory_gib is not None and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, compute.gpu_memory_gib * 2**30 / total))


def _table(home: SiteHome) -> tuple[int, int]:
    data = home.config.data
    if data is None:
        raise ConfigError(f"site {home.config.name}: has no [data], expected a manifest")
    found = manifest.resolve(data.manifest, home.file.parent).stat()
    return found.st_mtime_ns, found.st_size


def _data(home: SiteHome, bench: Bench) -> OwnData:
    recipe, base, key = bench.recipe, home.file.parent, home.pseudonym_key()
    films = cohort.read(home.config, findings=bench.task.findings, size=bench.net.size, base=base, cache=home.cache / "pixels", key=key)
    kept = PrefixCache(
        folder=home.cache / "hidden",
        cohort=films.fingerprint(),
        base=recipe.base,
        last_blocks=recipe.lora.last_blocks,
        precision=home.config.prefix,
    )
    return own_data(bench, films, cache=kept)


def _masker(home: SiteHome, offer: Offer) -> Masker | None:
    section = offer.recipe.secure_aggregation
    if section is None:
        return None
    return Masker(
        site=home.config.name,
        folder=home.run(offer.run) / "secure",
        identity=home.identity().signing,
        pinned={site: bytes.fromhex(key) for site, key in offer.sites.items()},
        section=section,
        weights=offer.recipe.strategy.weights,
    )
