"""The inline engine against Flower's on Ray: the same final adapter, and what each takes, for 6 and for 50 sites.

    python -m perf.engines [--sites 6 50] [--rounds 5]

Sites hold 40 small films each and train 4 steps a round, so that what is measured is the engine and not the training.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from client.workbench import first_adapter, open_bench
from rainhill.messages import RoundRecord
from rainhill.recipe import Recipe, read_recipe
from server.checkpoint import Checkpoint
from server.rounds import Collect
from server.secure import Secure
from sites import arms
from sites.bench import open_site
from sites.cli import RECIPES
from sites.consortium import find_sites
from sites.flower_engine import Workshop, run_on_flower
from sites.inline import collect_inline
from sites.simulate import threads


def write_sites(folder: Path, count: int) -> None:
    """Hospitals whose films are noise: an engine does not care what it moves."""
    rng = np.random.default_rng(0)
    for number in range(count):
        name = f"site_{number:03d}"
        images = folder / name
        images.mkdir()
        rows = ["patient,image,effusion"]
        for film in range(40):
            Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(images / f"{film}.png")
            rows.append(f"p{film},{film}.png,{film % 2}")
        (images / "manifest.csv").write_text("\n".join(rows))
        (folder / f"{name}.toml").write_text(
            f'name = "{name}"\n[data]\nmanifest = "{name}/manifest.csv"\n[data.split]\nval = 0.2\ntest = 0.2\n'
        )


def quiet(arm: str, record: RoundRecord) -> None: ...


def measure(count: int, rounds: int) -> None:
    recipe = _recipe(rounds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sites_folder = folder / "sites"
        sites_folder.mkdir()
        write_sites(sites_folder, count)
        bench = open_bench(recipe, RECIPES)
        sites = find_sites(recipe, sites_folder)
        data = {site.name: open_site(bench, site, folder / "cache") for site in sites}
        first = first_adapter(bench)

        def train(name: str) -> Callable[[Collect, Secure | None], Checkpoint]:
            return lambda collect, _: arms.train_shared(
                bench, first, sites=list(data), collect=collect, folder=folder / name, on_round=quiet
            )

        started = time.perf_counter()
        inline = train("inline")(collect_inline(bench, data, folder / "inline" / "memory"), None)
        inline_s = time.perf_counter() - started
        workshop = Workshop(
            recipe=recipe,
            recipe_folder=RECIPES,
            sites_folder=sites_folder,
            cache=folder / "cache",
            memory=folder / "flower" / "memory",
            sites=tuple(data),
            threads=threads(),
        )
        started = time.perf_counter()
        flower = run_on_flower(workshop, train("flower"))
        flower_s = time.perf_counter() - started
    later = [sum(record.seconds for record in done.history[1:]) / (rounds - 1) for done in (inline, flower)]
    apart = inline.adapter.max_abs_difference(flower.adapter)
    answered = sum(len(record.answered) for record in flower.history)
    print(
        f"{count} sites, {rounds} rounds: inline {inline_s:.1f} s, flower {flower_s:.1f} s, ratio {flower_s / inline_s:.1f}; "
        f"a round after the first {later[0]:.2f} s and {later[1]:.2f} s, ratio {later[1] / later[0]:.1f}; "
        f"adapters differ by {apart:.1e} at most; {answered} of {count * rounds} answers came over Flower",
        flush=True,
    )


def _recipe(rounds: int) -> Recipe:
    recipe = read_recipe(RECIPES / "demo.toml")
    return recipe.model_copy(
        update={
            "sites": (),
            "task": recipe.task.model_copy(update={"findings": ["effusion"]}),
            "rounds": recipe.rounds.model_copy(update={"count": rounds, "steps": 4, "patients_per_step": 8, "quorum": 1}),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", default=[6, 50])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for count in options.sites:
        measure(count, options.rounds)


if __name__ == "__main__":
    main()
