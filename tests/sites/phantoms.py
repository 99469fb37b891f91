"""Small phantom hospitals, drawn in a second or two each."""

import tomllib
from pathlib import Path

import tomli_w

import sites

PATIENTS = {"bury": 60, "manchester": 70, "oldham": 64, "source/halifax": 24}


def small(folder: Path) -> Path:
    """A folder of site files as those that ship with Rainhill, of few patients."""
    for name, patients in PATIENTS.items():
        document = tomllib.loads((Path(sites.__file__).parent / f"{name}.toml").read_text())
        document["phantom"] |= {"patients": patients, "test_patients": 6, "images_per_patient": [1, 1]}
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.toml").write_text(tomli_w.dumps(document))
    return folder
