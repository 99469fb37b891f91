"""Small phantom hospitals, drawn in a second or two each, and a rehearsal that two of them train in a moment."""

import tomllib
from pathlib import Path

import tomli_w

import sites

REHEARSAL = (
    (Path(sites.__file__).parent / "recipes" / "rehearsal.toml")
    .read_text()
    .replace("steps = 2", "steps = 1")
    .replace("steps = 40", "steps = 1")
    # No gradient of the source hospital's films, so that they need not be drawn.
    .replace('init = "gradient"', 'init = "orthonormal"')
    .replace('head = "frozen"', 'last_blocks = 2\nhead = "frozen"')
    .replace('"manchester", ', "")
) + "[evaluation]\nbootstraps = 100\nmin_positives = 2\n"
"""Five rounds, as the recipe that ships has."""
PATIENTS = {"bury": 60, "manchester": 70, "oldham": 64, "source/halifax": 24}


def small(folder: Path) -> Path:
    """A folder of site files as those that ship with Rainhill, of few patients."""
    for name, patients in PATIENTS.items():
        document = tomllib.loads((Path(sites.__file__).parent / f"{name}.toml").read_text())
        document["phantom"] |= {"patients": patients, "test_patients": 6, "images_per_patient": [1, 1]}
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.toml").write_text(tomli_w.dumps(document))
    return folder
