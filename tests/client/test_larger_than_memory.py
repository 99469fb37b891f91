"""A cohort whose pixels and hidden states do not fit in the memory that a process may take.

Two cohorts of 600 and 2,400 images are trained on under the same hard limit, which is a fraction of what the larger one's
data take. What still grows is the table: each image's row, its patient, its place. That growth is measured between the two, and has to be so
small per image that 50,000 images take less than a gigabyte with it: at 224 px their pixels take 10 GB, and the hidden states of ViT-S/16
15 GB more for every view.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification

SCRIPT = Path(__file__).with_name("larger_than_memory.py")
MB = 10**6
ALLOWED = 60 * MB
SIDE = 64


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    settings = ViTConfig(
        image_size=SIDE,
        patch_size=8,
        num_channels=1,
        hidden_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    ViTForImageClassification(settings).save_pretrained(folder)
    return folder


def write_site(folder: Path, images: int) -> Path:
    """Noise, two films of each patient."""
    rng = np.random.default_rng(0)
    rows = ["patient,image,square"]
    for number in range(images):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)).save(folder / f"{number}.png", compress_level=0)
        rows.append(f"P{number // 2},{number}.png,{number // 2 % 2}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    site = folder / "ward.toml"
    site.write_text('name = "ward"\n[data]\nmanifest = "manifest.csv"\n[data.split]\nval = 0.2\ntest = 0.2\n')
    return site


def run(folder: Path, base: Path, site: Path, *cache: Path) -> "subprocess.CompletedProcess[str]":
    arguments = [folder, base, site, ALLOWED, *cache]
    # Left to itself, glibc keeps blocks of up to 32 MB when they are freed, and what it happens to keep would hide what grows: mallopt(3).
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "200000"}
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=600, check=False
    )


def test_memory_does_not_grow_with_the_cohort(base: Path, tmp_path: Path) -> None:
    found = []
    for images in (600, 2400):
        folder = tmp_path / str(images)
        folder.mkdir()
        site = write_site(folder, images)
        done = run(folder, base, site, folder / "cache")
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    few, many = found
    assert many["data"] > 3 * ALLOWED
    assert many["rose"] < ALLOWED
    per_image = (many["rose"] - few["rose"]) / (many["images"] - few["images"])
    assert per_image < many["data"] / many["images"] / 10
    assert 50_000 * max(0.0, per_image) < 1000 * MB
    # The limit holds: without a cache the same site needs more than it.
    refused = run(folder, base, site)
    assert refused.returncode != 0
    assert "allocate" in refused.stderr
