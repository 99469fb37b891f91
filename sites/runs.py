"""A run on disk: its exact recipe, where its sites came from, its checkpoints, and all it leaves behind."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rainhill.config import BasePrecision, Device
from rainhill.errors import ConfigError
from rainhill.files import write_whole
from rainhill.messages import SiteId
from rainhill.recipe import Recipe
from rainhill.toml import Section, parse
from sites import consortium

Engine = Literal["inline", "flower"]

COMPARED = "recipe.sha256"
"""In the folder of a comparison, and of no run: the recipe that it compares in."""


class _Began(Section):
    """run.json: where a run began."""

    recipe_sha256: str
    recipe_folder: str
    sites_folder: str
    sites: dict[str, str]
    """Site -> sha256 of its file."""
    cohorts: dict[str, str]
    """Site -> fingerprint of its data."""
    engine: Engine
    device: Device = "cpu"
    precision: BasePrecision = "float32"


@dataclass(frozen=True, kw_only=True)
class Run:
    folder: Path
    recipe: Recipe
    recipe_folder: Path
    """Where relative paths of the recipe begin."""
    sites_folder: Path
    engine: Engine
    device: Device = "cpu"
    precision: BasePrecision = "float32"
    """Of the base model's weights."""

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def begun(self) -> bool:
        return (self.folder / "run.json").exists()

    def begin(self, cohorts: Mapping[SiteId, str]) -> None:
        """Writes what a resumed run needs, or holds it against what a run here began with; `cohorts` are fingerprints by site."""
        path = self.folder / "run.json"
        facts = self._facts(cohorts)
        if self.begun:
            began = parse(json.loads(path.read_text(encoding="utf-8")), _Began, origin=str(path))
            refuse_changed(self.folder, "file", began.sites, facts["sites"])
            refuse_changed(self.folder, "data", began.cohorts, facts["cohorts"])
            return
        # Reports show films, and checkpoints come from patients.
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(self.folder / "recipe.json", (self.recipe.to_json() + "\n").encode())
        write_whole(path, (json.dumps(facts, indent=1) + "\n").encode())

    def _facts(self, cohorts: Mapping[SiteId, str]) -> dict[str, Any]:
        return {
            "recipe_sha256": self.recipe.sha256,
            "recipe_folder": str(self.recipe_folder.resolve()),
            "sites_folder": str(self.sites_folder.resolve()),
            "sites": {
                site.name: _sha256(site.folder / f"{site.name}.toml") for site in consortium.find_sites(self.recipe, self.sites_folder)
            },
            "cohorts": dict(cohorts),
            "engine": self.engine,
            "device": self.device,
            "precision": self.precision,
        }


def refuse_changed(folder: Path, what: str, began: Mapping[SiteId, str], now: Mapping[SiteId, str]) -> None:
    """Raises ConfigError, naming the first site and both, where a site's `what` is another now or a site came or went."""
    for site in sorted(began.keys() | now.keys()):
        old, new = began.get(site, "absent"), now.get(site, "absent")
        if old != new:
            raise ConfigError(f"{folder}: the {what} of site {site} was {old[:12]} when the run began and is {new[:12]} now")


def new_folder(recipe: Recipe, out: Path | None) -> Path:
    """`out` where given, and not taken; else runs/NAME-SEED, numbered on where that is taken."""
    if out is not None:
        if out.exists() and not out.is_dir():
            raise ConfigError(f"{out}: is a file, expected a folder that is empty or not there yet")
        if out.is_dir() and any(out.iterdir()):
            raise ConfigError(f"{out}: is not empty; choose another --out, or go on with a run by --resume {out}")
        return out
    stem = Path("runs") / f"{recipe.name}-{recipe.seed}"
    number = 2
    folder = stem
    while folder.exists():
        folder = stem.with_name(f"{stem.name}-{number}")
        number += 1
    return folder


def resumed(folder: Path, engine: Engine | None = None) -> Run:
    """The run that a folder holds, to go on with the engine it began with or with another."""
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        began = parse(facts, _Began, origin=str(folder / "run.json"))
        raw = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        other = ", but a comparison: give its --compare again, with this --out" if (folder / COMPARED).exists() else ""
        raise ConfigError(f"{folder}: holds no run that can be resumed{other}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: holds no run that can be resumed ({error})") from error
    recipe = parse(raw, Recipe, origin=str(folder / "recipe.json"))
    if recipe.sha256 != began.recipe_sha256:
        raise ConfigError(f"{folder / 'recipe.json'}: sha256 is {recipe.sha256[:12]}, the run began with {began.recipe_sha256[:12]}")
    return Run(
        folder=folder,
        recipe=recipe,
        recipe_folder=Path(began.recipe_folder),
        sites_folder=Path(began.sites_folder),
        engine=engine or began.engine,
        device=began.device,
        precision=began.precision,
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
