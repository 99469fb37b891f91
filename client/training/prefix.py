"""Hidden states of the frozen prefix: computed once per image and view, kept in memory or on the site's disk, float32 when drawn."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.data import store
from client.data.cohort import PIXELS_VERSION, Images
from client.data.rows import Rows
from client.data.store import Entry, Write
from client.models import Net
from client.training.augmentation import draw_views
from client.training.storage import available_memory, choose_storage
from rainhill.adapter import Array
from rainhill.config import Precision
from rainhill.recipe import AugmentationSection, BaseSection

BATCH = 64
_PREFIX_VERSION = 1  # goes up when a model's prefix gives other values, so that no file outlives them


@dataclass(frozen=True, kw_only=True)
class PrefixCache:
    """Where one cohort's hidden states may be kept, and what they depend on besides its images."""

    folder: Path
    cohort: str
    """Fingerprint of the whole cohort: what is kept is wiped with it."""
    base: BaseSection
    last_blocks: int | None
    precision: Precision = "float32"
    available_memory: Callable[[], int] = available_memory
    """Bytes; asked when the size of the hidden states is known."""


class States:
    """(N, …) hidden states that are not one float32 tensor in memory: rows are read, and turned into float32, when they are asked for."""

    def __init__(self, rows: Rows[Any]) -> None:
        """Of float32; or of int16, which stands for bfloat16, bit by bit: numpy has no such type."""
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    def __getitem__(self, index: slice | torch.Tensor | Array) -> torch.Tensor:
        read = torch.from_numpy(self.rows[index if isinstance(index, slice) else np.asarray(index)])
        # Into torch's own memory either way: sums may differ in the last bit with where in memory their terms begin.
        return read.view(torch.bfloat16).float() if self.rows.dtype == np.int16 else read.clone()


Hidden = torch.Tensor | States


def join(parts: Sequence[Hidden]) -> Hidden:
    """One after the other; nothing is copied."""
    if len(parts) == 1:
        return parts[0]
    return States(Rows.join([part.rows if isinstance(part, States) else Rows(part.numpy()) for part in parts]))


def compute(net: Net, images: Images, section: AugmentationSection, *, seed: tuple[int, ...], cache: PrefixCache | None) -> Hidden:
    """(times N, …): of the images as they are, then of `section.views` views of each. A float32 tensor without a cache."""
    shape = ((1 + section.views) * len(images), *_shape_of_one(net, images))

    def fill(write: Callable[[int, torch.Tensor], None]) -> None:
        for place, states in _batches(net, images, section, seed):
            write(place, states)

    if cache is None:
        return _in_memory(shape, torch.float32, fill)
    for file in images.files:
        store.mark(file, cache.cohort)
    entry = _entry(cache, net, images, section, seed, shape)
    stored = store.load(entry)
    if stored is None and choose_storage(shape[0], entry.size // max(1, shape[0]), cache.available_memory()) == "disk":
        stored = store.save(entry, lambda write: fill(_written_as(entry, write)))
    if stored is None:
        return _in_memory(shape, torch.bfloat16 if cache.precision == "bfloat16" else torch.float32, fill)
    store.mark(entry.file, cache.cohort)
    return States(Rows(stored))


def _in_memory(shape: tuple[int, ...], dtype: torch.dtype, fill: Callable[[Callable[[int, torch.Tensor], None]], None]) -> Hidden:
    kept = torch.empty(shape, dtype=dtype)

    def write(place: int, states: torch.Tensor) -> None:
        kept[place : place + len(states)] = states

    fill(write)
    return kept if dtype == torch.float32 else States(Rows(kept.view(torch.int16).numpy()))


def _written_as(entry: Entry, write: Write) -> Callable[[int, torch.Tensor], None]:
    if entry.dtype == np.int16:
        return lambda place, states: write(place, states.bfloat16().view(torch.int16).numpy())
    return lambda place, states: write(place, states.numpy())


@torch.no_grad()
def _batches(net: Net, images: Images, section: AugmentationSection, seed: tuple[int, ...]) -> Iterator[tuple[int, torch.Tensor]]:
    """Place of the first row, hidden states."""
    rng = np.random.default_rng(seed)
    for view in range(1 + section.views):
        for start in range(0, len(images), BATCH):
            films = torch.from_numpy(images[start : start + BATCH])
            yield view * len(images) + start, net.prefix(draw_views(films, section, rng) if view else films)


@torch.no_grad()
def _shape_of_one(net: Net, images: Images) -> tuple[int, ...]:
    return tuple(net.prefix(torch.zeros((1, *images.shape[1:]))).shape[1:])


def _entry(
    cache: PrefixCache, net: Net, images: Images, section: AugmentationSection, seed: tuple[int, ...], shape: tuple[int, ...]
) -> Entry:
    """Everything that a single bit of the hidden states depends on; the model's own scaling of pixels is in the sha256 of the base.

    Labels are not in it: a corrected label computes nothing again. Threads are: sums are split among them.
    """
    pixels = hashlib.sha256()
    images.feed(pixels)
    return Entry(
        folder=cache.folder,
        made_from={
            "version": [_PREFIX_VERSION, PIXELS_VERSION],
            "images": pixels.hexdigest(),
            "base": [cache.base.model, cache.base.sha256, cache.base.options],
            "last_blocks": cache.last_blocks,
            "views": {**section.model_dump(), "seed": seed} if section.views else None,
            "precision": cache.precision,
            "compute": [net.compute.device, net.compute.precision],
            "torch": [torch.__version__, torch.get_num_threads()],
        },
        shape=shape,
        dtype=np.dtype(np.int16 if cache.precision == "bfloat16" else np.float32),
        what="hidden states",
        redone="computing",
    )
