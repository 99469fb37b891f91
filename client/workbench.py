"""A run's frozen base with its two sets of LoRA pairs, and one site's patients as they are trained on over it."""

from dataclasses import dataclass
from pathlib import Path

import strategies
from client import models, tasks
from client.data.cohort import Cohort
from client.models import Net
from client.tasks import Task
from client.training import features, lora
from client.training.answer import LocalData, site_seed
from client.training.prefix import PrefixCache
from client.training.start import begin
from rainhill.adapter import Adapter
from rainhill.config import BasePrecision, Device
from rainhill.errors import ConfigError, DataError
from rainhill.recipe import Recipe
from strategies import Strategy


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Shared by every site of a process, where there are several."""

    recipe: Recipe
    strategy: Strategy
    task: Task
    net: Net
    modules: list[str]
    """Full names of the layers that took LoRA."""


@dataclass(frozen=True, kw_only=True)
class OwnData(LocalData):
    """With the films that they were made of, and the names that their patients go by."""

    cohort: Cohort


def open_bench(
    recipe: Recipe, folder: Path, *, weights: str | None = None, device: Device = "cpu", precision: BasePrecision = "float32"
) -> Bench:
    """`folder` is where relative paths begin; `weights` is where this machine has the base, if not where the recipe says.

    Raises BaseModelError for weights that are not the recipe's, ConfigError where this machine has no such device.
    """
    task = tasks.from_recipe(recipe)
    base = recipe.base if weights is None else recipe.base.model_copy(update={"weights": weights})
    net = models.load(base, lora=recipe.lora, outputs=task.outputs, folder=folder)
    pattern = recipe.lora.modules
    modules = lora.attach(net, name=lora.SHARED, pattern=pattern, rank=recipe.lora.rank, alpha=recipe.lora.alpha)
    lora.attach(net, name=lora.PRIVATE, pattern=pattern, rank=recipe.private.rank, alpha=recipe.private.alpha)
    lora.activate(net, [lora.SHARED])
    models.place(net, device=device, precision=precision)
    return Bench(recipe=recipe, strategy=strategies.from_recipe(recipe), task=task, net=net, modules=modules)


def first_adapter(bench: Bench, public: LocalData | None = None) -> Adapter:
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


def own_data(bench: Bench, films: Cohort, *, cache: PrefixCache | None = None) -> OwnData:
    """Of the images that are of use to the task. Raises DataError where there is nobody to train on, or nobody to validate with."""
    films = films.only(bench.task.usable(films))
    for part in ("train", "val"):
        if not (films.split == part).any():
            raise DataError(f"{films.site}: has no {part} patient with a {bench.task.needs}, and a site needs some to take part")
    seed = site_seed(bench.recipe.seed, films.site, 0)
    return OwnData(
        cohort=films,
        train=features.compute_views(bench.net, films.part("train"), bench.task, bench.recipe.augmentation, seed=seed, cache=cache),
        val=features.compute(bench.net, films.part("val"), bench.task, among=films.part("train"), cache=cache),
    )
