"""A simulated site's data: a phantom hospital drawn, or a real one read, and computed over the frozen base."""

from dataclasses import dataclass, replace
from pathlib import Path

from client.data import cohort
from client.data.cohort import Cohort
from client.training import features
from client.training.features import Features
from client.training.prefix import PrefixCache
from client.workbench import Bench, OwnData, own_data
from rainhill.config import PrivacyConfig
from rainhill.errors import DataError
from sites import hospital
from sites.consortium import Site


@dataclass(frozen=True, kw_only=True)
class SiteData(OwnData):
    """With the test patients, which no fit sees."""

    test: Features
    privacy: PrivacyConfig | None = None
    """What the site itself demands."""


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
    own = own_data(bench, films, cache=cache)
    if not (own.cohort.split == "test").any():
        raise DataError(f"{films.site}: has no test patient with a {bench.task.needs}, and a simulated site needs some")
    test = features.compute(bench.net, own.cohort.part("test"), bench.task, among=own.cohort.part("train"), cache=cache)
    return SiteData(cohort=own.cohort, train=own.train, val=own.val, test=test)
