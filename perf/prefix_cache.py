"""What the cached prefix saves: a training step from images against one from hidden states on disk. ViT-S/16 at 224 px, one thread.

    python -m perf.prefix_cache [--blocks 12 4 2 1] [--steps 10] [--images 256] [--precision float32]

LoRA of rank 8 on q and v in the last k blocks, 16 images a step, forward, backward and AdamW; weights are random, for they cost the same.
Steps of both kinds take turns and their medians are compared, so that a busy machine is busy for both. Reading rows is part of a step.
Memory is the most that was resident in a process of its own which does only steps of one kind, mapped pages included.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal, get_args

import numpy as np
import torch

from client import models
from client.data.cohort import Images
from client.data.rows import Rows
from client.models import Net, digest
from client.tasks.findings import Findings
from client.training import lora, prefix
from client.training.prefix import Hidden, PrefixCache
from rainhill.config import BasePrecision, Device, Precision
from rainhill.recipe import AugmentationSection, BaseSection, LoraSection

BATCH, SIDE = 16, 224
Way = Literal["images", "cached"]
Step = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Setting:
    folder: Path
    base: BaseSection
    blocks: int
    precision: Precision
    """Of the cached hidden states."""
    device: Device = "cpu"
    base_precision: BasePrecision = "float32"


def write_base(folder: Path, *, width: int = 384) -> BaseSection:
    """A ViT of 12 blocks, 64 features a head; ViT-S where not said otherwise."""
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    settings = ViTConfig(
        image_size=SIDE,
        patch_size=16,
        num_channels=1,
        hidden_size=width,
        num_hidden_layers=12,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
    )
    ViTForImageClassification(settings).save_pretrained(folder / "base")
    return BaseSection(model="vit", weights=str(folder / "base"), sha256=digest(folder / "base"))


def open_net(setting: Setting) -> tuple[Net, Findings]:
    task = Findings(findings=("effusion",))
    section = LoraSection(rank=8, modules="q_proj|v_proj", last_blocks=setting.blocks)
    net = models.load(setting.base, lora=section, outputs=task.outputs, folder=setting.folder)
    lora.attach(net, name=lora.SHARED, pattern=section.modules, rank=section.rank, alpha=section.alpha)
    models.place(net, device=setting.device, precision=setting.base_precision)
    lora.write_adapter(net, lora.draw(net, name=lora.SHARED, with_head=False, seed=0), name=lora.SHARED)
    return net, task


def open_images(folder: Path) -> Images:
    return Rows(np.load(folder / "images.npy", mmap_mode="r"))


def open_hidden(setting: Setting, net: Net) -> Hidden:
    """From disk however small it is; computed where it is not there yet."""
    cache = PrefixCache(
        folder=setting.folder / "hidden",
        cohort="0" * 64,
        base=setting.base,
        last_blocks=setting.blocks,
        precision=setting.precision,
        available_memory=lambda: 0,
    )
    return prefix.compute(net, open_images(setting.folder), AugmentationSection(), seed=(), cache=cache)


def make_step(setting: Setting, net: Net, task: Findings, way: Way) -> Step:
    """The same batches whichever way."""
    images, hidden = open_images(setting.folder), open_hidden(setting, net) if way == "cached" else None
    rng, targets = np.random.default_rng(0), torch.ones(BATCH, 1)
    parameters = lora.trainable(net, name=lora.SHARED, with_head=True).values()
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)

    def step() -> None:
        rows = rng.choice(len(images), BATCH, replace=False)
        if hidden is None:
            with torch.no_grad():
                states = net.prefix(torch.from_numpy(images[rows]))
        else:
            states = hidden[torch.from_numpy(rows)]
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(task.loss(net(states), targets).mean())
        optimizer.step()

    return step


def seconds(step: Step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def peak_mb(setting: Setting, way: Way) -> float:
    """Run in a process of its own."""
    torch.set_num_threads(1)
    step = make_step(setting, *open_net(setting), way)
    for _ in range(3):
        step()
    # Not getrusage, whose figure a process inherits from the one that started it: proc(5).
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1000


def measure(setting: Setting, steps: int) -> tuple[float, float, float, list[float]]:
    """Seconds a step from images and from the cache, MB of a thousand images' hidden states, MB of memory each way."""
    net, task = open_net(setting)
    hidden = open_hidden(setting, net)
    both = [make_step(setting, net, task, way) for way in get_args(Way)]
    for step in both:
        step()
    found = np.array([[seconds(step) for step in both] for _ in range(steps)])
    taken = np.prod(hidden.shape[1:]) * (4 if setting.precision == "float32" else 2) / 1000
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        memory = [pool.apply(peak_mb, (setting, way)) for way in get_args(Way)]
    return median(found[:, 0]), median(found[:, 1]), float(taken), memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs="+", default=[12, 4, 2, 1])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| last blocks | step from images | from the cache | ratio | to the first row | 1,000 images | resident | from the cache |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base = write_base(folder)
        np.save(folder / "images.npy", np.random.default_rng(0).uniform(-1, 1, (options.images, 1, SIDE, SIDE)).astype(np.float32))
        first = None
        for blocks in options.blocks:
            setting = Setting(folder=folder, base=base, blocks=blocks, precision=options.precision)
            images_s, cached_s, taken, (images_mb, cached_mb) = measure(setting, options.steps)
            first = first or images_s
            print(
                f"| {blocks} | {images_s:.3f} s | {cached_s:.3f} s | {images_s / cached_s:.1f} | {first / cached_s:.1f} "
                f"| {taken:.0f} MB | {images_mb:.0f} MB | {cached_mb:.0f} MB |",
                flush=True,
            )


if __name__ == "__main__":
    main()
