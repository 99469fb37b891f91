"""The site files of a folder: which hospitals there are, and which of them a recipe asks."""

from dataclasses import dataclass
from pathlib import Path

from rainhill.errors import ConfigError
from rainhill.recipe import Recipe
from rainhill.text import did_you_mean
from rainhill.toml import read_toml
from sites.hospital import HospitalConfig

HERE = Path(__file__).parent
SOURCE = "source"
"""A folder of this name beside the site files holds the hospital that the base was trained at, to measure the drop from."""


@dataclass(frozen=True, kw_only=True)
class Site:
    config: HospitalConfig
    folder: Path
    """Where relative paths of its file begin."""

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def title(self) -> str:
        return self.config.title or self.config.name.replace("_", " ").capitalize()


def find_sites(recipe: Recipe, folder: Path) -> list[Site]:
    """The sites that the recipe asks, in the order of their names; every site of the folder where it names none."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of site files")
    known = read_sites(folder)
    if not known:
        raise ConfigError(f"{folder}: no site file (*.toml) there")
    for name in recipe.sites:
        if name not in known:
            elsewhere = [f", but --sites {path.parent} does" for path in sorted(folder.glob(f"*/{name}.toml"))]
            hint = did_you_mean(name, known) or "".join(elsewhere[:1])
            raise ConfigError(
                f"recipe {recipe.name}: sites names {name!r}, which {folder} does not have{hint} (there are: {', '.join(known)})"
            )
    asked = recipe.sites or tuple(known)
    for name in recipe.lora.ranks:
        if name not in asked:
            hint = did_you_mean(name, asked)
            raise ConfigError(f"recipe {recipe.name}: lora.ranks names {name!r}, which is not asked{hint} (asked are: {', '.join(asked)})")
    found = [site for name, site in known.items() if name in asked]
    if recipe.rounds.quorum > len(found):
        raise ConfigError(
            f"recipe {recipe.name}: rounds.quorum = {recipe.rounds.quorum} is more than the {len(found)} sites that are asked"
        )
    return found


def find_source(folder: Path) -> Site | None:
    """The hospital that the base model was trained at, where the folder tells."""
    known = list(read_sites(folder / SOURCE).values())
    if len(known) > 1:
        raise ConfigError(f"{folder / SOURCE}: holds {len(known)} site files, a base model has one source")
    return known[0] if known else None


def refuse_without_source(recipe: Recipe, folder: Path) -> None:
    """Raises ConfigError where A is to follow the gradient of a public hospital's patients, and there is none."""
    if recipe.lora.init == "gradient" and find_source(folder) is None:
        raise ConfigError(f"recipe {recipe.name}: lora.init = 'gradient' needs a public hospital in {folder / SOURCE}, there is none")


def read_sites(folder: Path) -> dict[str, Site]:
    found: dict[str, Site] = {}
    for path in sorted(folder.glob("*.toml")):
        config = read_toml(path, HospitalConfig)
        if config.name != path.stem:
            raise ConfigError(f"{path}: name = {config.name!r} is not the name of the file")
        if (config.data is None) == (config.phantom is None):
            raise ConfigError(
                f"{path}: a simulated site has either [data] or [phantom], this one has {'neither' if config.data is None else 'both'}"
            )
        found[config.name] = Site(config=config, folder=path.parent)
    return found
