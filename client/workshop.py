"""What trains at a hospital: the base of the run in work, the site's patients over it, and the ledger that they are charged to."""

import json
import logging
from dataclasses import dataclass, field
from typing import Any

from client.data import cohort, manifest
from client.data.cohort import Cohort
from client.home import OUTCOME, SiteHome
from client.offers import masker_of, opened
from client.outcome import described, outcome
from client.privacy.guard import Guard
from client.privacy.ledger import Ledger
from client.training.answer import answered, site_seed
from client.training.memory import Memory
from client.training.prefix import PrefixCache
from client.workbench import Bench, OwnData, open_bench, own_data
from rainhill.config import ComputeConfig, SiteConfig
from rainhill.errors import ConfigError, RainhillError, RefusedError
from rainhill.files import write_whole
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
        except (RainhillError, OSError) as error:
            log.warning("round %d of run %s: %s", plan.round, plan.run, error)
        except Exception:
            log.exception("round %d of run %s failed", plan.round, plan.run)
        return Refusal(run=plan.run, round=plan.round, site=plan.site, reason=UNTOLD)

    def outcome(self, sealed: bytes, plan: Plan) -> dict[str, Any]:
        """What the run came to here, written beside its adapters in the run's folder; empty where that failed, and the log says why."""
        try:
            self.home = self.home.again()
            offer = opened(self.home, sealed)
            own, folder = self._opened(offer.recipe), self.home.run(plan.run)
            found = outcome(plan, own.bench, own.data, Memory(folder / "memory"))
            write_whole(folder / "shared.safetensors", found.shared.to_bytes(), private=True)
            write_whole(folder / "private.safetensors", found.private.adapter.to_bytes(), private=True)
            document = described(found, plan, offer.recipe.evaluation.confidence)
            write_whole(folder / OUTCOME, (json.dumps(document, indent=1) + "\n").encode(), private=True)
            return document
        except (RainhillError, OSError) as error:
            log.warning("what run %s came to: %s", plan.run, error)
        except Exception:
            log.exception("what run %s came to could not be found out", plan.run)
        return {}

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
            masker=masker_of(self.home, offer),
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
