"""One frozen base with its two sets of LoRA pairs, shared by every simulated site of a process, and one site's data as it trains on it."""

from dataclasses import dataclass, replace
from pathlib import Path

import strategies
from client import models, tasks
from client.data import cohort
from client.data.cohort import Cohort
from client.models import Net
from client.tasks import Task
from client.training import features, lora
from client.training.answer import LocalData, site_seed
from client.training.features import Features
from client.training.prefix import PrefixCache
from client.training.start import begin
from rainhill.adapter import Adapter
from rainhill.config import BasePrecision, Device, PrivacyConfig
from rainhill.errors import ConfigError, DataError
from rainhill.recipe import Recipe
from sites import hospital
from sites.consortium import Site
from strategies import Strategy


@dataclass(frozen=True, kw_only=True)
class Bench:
    recipe: Recipe
    strategy: Strategy
    task: Task
    net: Net
    modules: list[str]
    """Full names of the layers that took LoRA."""


@dataclass(frozen=True, kw_only=True)
class SiteData(LocalData):
    """With the test patients, which no fit sees, and the films to show."""

    test: Features
    cohort: Cohort
    privacy: PrivacyConfig | None = None
    """What the site itself demands."""


def open_bench(recipe: Recipe, folder: Path, *, device: Device = "cpu", precision: BasePrecision = "float32") -> Bench:
    """`folder` is where the recipe's relative paths begin. Raises ConfigError where this machine has no such device."""
    task = tasks.from_section(recipe.task)
    net = models.load(recipe.base, lora=recipe.lora, outputs=task.outputs, folder=folder)
    pattern = recipe.lora.modules
    modules = lora.attach(net, name=lora.SHARED, pattern=pattern, rank=recipe.lora.rank, alpha=recipe.lora.alpha)
    lora.attach(net, name=lora.PRIVATE, pattern=pattern, rank=recipe.private.rank, alpha=recipe.private.alpha)
    lora.activate(net, [lora.SHARED])
    models.place(net, device=device, precision=precision)
    return Bench(recipe=recipe, strategy=strategies.from_recipe(recipe), task=task, net=net, modules=modules)


def first_adapter(bench: Bench, public: SiteData | None = None) -> Adapter:
    """What round 1 starts from: drawn from the recipe's seed, the same for every site and arm; it changes nothing yet.

    Raises ConfigError where A is to follow the gradient of public patients, and there are none.
    """
    recipe = bench.recipe
    with_head = recipe.lora.head == "shared"
    if recipe.lora.init == "gradient" and public is None:
        raise ConfigError(f"recipe {recipe.name}: lora.init = 'gradient' needs a public hospital in source/, there is none")
    drawn = begin(bench.net, recipe.lora, seed=recipe.seed, task=bench.task, public=public.train if public else None)
    lora.write_adapter(bench.net, drawn, name=lora.SHARED)
    adapter = lora.read_adapter(bench.net, name=lora.SHARED, with_head=with_head)
    return adapter.replace(lora.read_norms(bench.net)) if bench.strategy.personal.trains_norms else adapter


def open_cohort(bench: Bench, site: Site, cache: Path) -> Cohort:
    """The site's films; a phantom hospital's are drawn and written as DICOM first, unless the cache has them."""
    config, base = site.config, site.folder
    if config.phantom is not None:
        # Two hospitals of one name, such as a smaller copy, must not redraw each other's films.
        mark = hospital.fingerprint(config, seed=bench.recipe.seed)
        base = cache / f"{config.name}-{bench.recipe.seed}-{mark[:12]}"
        hospital.write(config, base, seed=bench.recipe.seed)
        config = config.model_copy(update={"data": hospital.data_config(base)})
    return cohort.read(config, findings=bench.task.findings, size=bench.net.size, base=base, cache=cache / "pixels")


def open_site(bench: Bench, site: Site, cache: Path) -> SiteData:
    films = open_cohort(bench, site, cache)
    recipe = bench.recipe
    kept = PrefixCache(
        folder=cache / "hidden",
        cohort=films.fingerprint(),
        base=recipe.base,
        last_blocks=recipe.lora.last_blocks,
        precision=site.config.prefix,
    )
    return replace(site_data(bench, films, cache=kept), privacy=site.config.privacy)


def site_data(bench: Bench, films: Cohort, *, cache: PrefixCache | None = None) -> SiteData:
    """Raises DataError where one of the three parts has nobody in it."""
    for part in ("train", "val", "test"):
        if not (films.split == part).any():
            raise DataError(f"{films.site}: has no {part} patient, and a simulated site needs some of each part")
    val, test = (features.compute(bench.net, films.part(part), bench.task, cache=cache) for part in ("val", "test"))
    seed = site_seed(bench.recipe.seed, films.site, 0)
    train = features.compute_views(bench.net, films.part("train"), bench.task, bench.recipe.augmentation, seed=seed, cache=cache)
    return SiteData(cohort=films, train=train, val=val, test=test)
