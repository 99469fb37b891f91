"""One site's data and training in a process that is allowed little memory: python larger_than_memory.py FOLDER BASE SITE ALLOWED [CACHE].

Prints as JSON how far anonymous memory rose above where it was with the network loaded, and what pixels and hidden states take together.
"""

import json
import resource
import sys
import threading
from pathlib import Path

import numpy as np
import torch

from client import models, tasks
from client.data import cohort
from client.data import pixels as pixels  # loaded before the limit: it comes with pydicom
from client.models import digest
from client.training import features, lora
from client.training.fit import fit
from client.training.prefix import PrefixCache
from rainhill.config import SiteConfig
from rainhill.recipe import AugmentationSection, BaseSection, FitSection, LoraSection, TaskSection
from rainhill.toml import read_toml

VIEWS = AugmentationSection(views=2)


def used(field: str) -> int:
    """Bytes, by proc(5)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) * 1024


class Peak(threading.Thread):
    """The most anonymous memory there was since the start."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_bytes = self.most = used("RssAnon")
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.002):
            self.most = max(self.most, used("RssAnon"))


def main(folder: Path, base: Path, site: Path, allowed: int, cache: Path | None) -> dict[str, int]:
    torch.set_num_threads(1)
    section = BaseSection(model="vit", weights=str(base), sha256=digest(base))
    adapted = LoraSection(rank=2, last_blocks=1)
    task = tasks.from_section(TaskSection(name="findings", findings=["square"]))
    net = models.load(section, lora=adapted, outputs=task.outputs, folder=folder)
    lora.attach(net, name=lora.SHARED, pattern=adapted.modules, rank=2, alpha=4)
    parameters = lora.trainable(net, name=lora.SHARED, with_head=True)
    net(net.prefix(torch.zeros(64, 1, net.size, net.size))).sum().item()

    # A hard limit on what may be allocated; files that are mapped shared do not count, for they need not stay in memory. setrlimit(2).
    resource.setrlimit(resource.RLIMIT_DATA, (used("VmData") + allowed, resource.RLIM_INFINITY))
    peak = Peak()
    peak.start()
    films = cohort.read(read_toml(site, SiteConfig), findings=task.findings, size=net.size, base=folder, cache=cache)
    kept = None
    if cache is not None:
        kept = PrefixCache(folder=cache, cohort=films.fingerprint(), base=section, last_blocks=1, available_memory=lambda: 0)
    train = features.compute_views(net, films.part("train"), task, VIEWS, seed=(0,), cache=kept)
    pooled = features.concatenate([train, features.compute(net, films.part("val"), task, cache=kept)])
    fit(net, pooled, task, FitSection(steps=5, patients_per_step=16), parameters=parameters, seed=(0,))
    features.logits(net, pooled.hidden)
    peak.over.set()
    peak.join()
    size = 4 * sum(int(np.prod(shape, dtype=np.int64)) for shape in (films.images.shape, pooled.hidden.shape))
    return {"rose": peak.most - peak.start_bytes, "data": size, "images": len(films)}


if __name__ == "__main__":
    print(json.dumps(main(*map(Path, sys.argv[1:4]), int(sys.argv[4]), Path(sys.argv[5]) if len(sys.argv) > 5 else None)))
