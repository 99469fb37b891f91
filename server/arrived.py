"""The updates of one round as they come in: a few are held in memory, further ones wait in files, and are read tensor by tensor.

So a merge that goes through the updates one after the other, in whatever order they came, needs memory for a few of them and not for all.
"""

import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rainhill.adapter import Adapter, Array
from rainhill.errors import UnwrittenError
from rainhill.messages import Update

HELD = 2**26
"""Bytes of updates that are held in memory."""


class Filed(Adapter):
    """An adapter in a file of its own, which has to stay there: an array is read whenever it is asked for, and never kept."""

    def __init__(self, adapter: Mapping[str, Array], path: Path) -> None:
        self._path = path
        self._places: dict[str, tuple[int, np.dtype[np.generic], tuple[int, ...]]] = {}
        with path.open("xb") as file:
            for name, array in adapter.items():
                self._places[name] = file.tell(), array.dtype, array.shape
                file.write(array.tobytes())

    def __getitem__(self, name: str) -> Array:
        start, dtype, shape = self._places[name]
        array: Array = np.fromfile(self._path, dtype, math.prod(shape), offset=start).reshape(shape)
        array.flags.writeable = False
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@dataclass(kw_only=True)
class Arrived:
    folder: Path
    """Of the files, made when the first is wanted."""
    held: int
    """Bytes that may still be held in memory."""
    _files: int = 0

    def kept(self, update: Update) -> Update:
        """The same update, for as long as the round lasts. UnwrittenError where its file cannot be written."""
        size = update.delta.nbytes + (update.variate.nbytes if update.variate else 0)
        if size <= self.held:
            self.held -= size
            return update
        try:
            return replace(update, delta=self._filed(update.delta), variate=self._filed(update.variate) if update.variate else None)
        except OSError as error:
            raise UnwrittenError(
                f"{self.folder}: an update of {size} bytes cannot be written ({error.strerror or error}); the round can be done again"
            ) from error

    def _filed(self, adapter: Adapter) -> Adapter:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._files += 1
        return Filed(adapter, self.folder / f"{self._files:06d}")


@contextmanager
def arriving(folder: Path) -> Iterator[Arrived]:
    """Of one round, in the folder of its run."""
    files = folder / "arrived"
    # Of a round that was killed.
    shutil.rmtree(files, ignore_errors=True)
    try:
        yield Arrived(folder=files, held=HELD)
    finally:
        shutil.rmtree(files, ignore_errors=True)
