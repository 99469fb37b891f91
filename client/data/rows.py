"""Rows of one or several arrays laid end to end, in memory or mapped from disk; a row is read when it is asked for."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)
CHUNK = 64
"""Rows that are read at a time where all are wanted."""


class Digest(Protocol):
    def update(self, data: Any, /) -> None: ...


class Rows(Generic[Scalar]):
    """(N, …) looks like one array, and copies none: part of a cohort, or several sites together, are places in what is there already."""

    def __init__(self, *arrays: NDArray[Scalar], places: NDArray[np.int64] | None = None) -> None:
        """`places` are among the arrays' rows as they lie end to end; all of them where not given."""
        for array in arrays[1:]:
            if (array.shape[1:], array.dtype) != (arrays[0].shape[1:], arrays[0].dtype):
                got, expected = f"{array.shape[1:]} {array.dtype}", f"{arrays[0].shape[1:]} {arrays[0].dtype}"
                raise ValueError(f"rows of several arrays: {got} is not {expected}")
        self._arrays = arrays
        self._starts = np.cumsum([0, *map(len, arrays)])
        self._places = np.arange(self._starts[-1]) if places is None else places
        self.dtype: np.dtype[Scalar] = arrays[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self._arrays[0].shape[1:])

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that the rows are mapped from."""
        named = {str(array.filename) for array in self._arrays if isinstance(array, np.memmap)}
        return tuple(map(Path, sorted(named)))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int | np.integer[Any] | slice | NDArray[Any] | Sequence[int]) -> NDArray[Scalar]:
        """A copy in memory of one row, or of some: (n, …)."""
        places = self._places[index]
        return self._read(places) if np.ndim(places) else self._read(places[None])[0]

    def __iter__(self) -> Iterator[NDArray[Scalar]]:
        for chunk in self.chunks():
            yield from chunk

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All of it, for what is known to be small."""
        if copy is False:
            raise ValueError("rows are read into new memory, copy=False cannot be")
        return np.asarray(self[:], dtype=dtype)

    def chunks(self) -> Iterator[NDArray[Scalar]]:
        for start in range(0, len(self), CHUNK):
            yield self[start : start + CHUNK]

    def only(self, chosen: NDArray[Any]) -> "Rows[Scalar]":
        """Places (or a mask) -> these rows, unread."""
        return Rows(*self._arrays, places=self._places[chosen])

    def feed(self, digest: Digest) -> None:
        """Data type, shape and every value into the digest."""
        digest.update(f"{self.dtype.str} {self.shape}".encode())
        for chunk in self.chunks():
            digest.update(chunk.data)

    def _read(self, places: NDArray[np.int64]) -> NDArray[Scalar]:
        found = np.empty((len(places), *self.shape[1:]), self.dtype)
        owners = np.searchsorted(self._starts, places, side="right") - 1
        present = np.unique(owners)
        if len(present) == 1:
            # `clip` only because numpy would otherwise copy once more: every place is one of the array's.
            np.take(self._arrays[present[0]], places - self._starts[present[0]], axis=0, out=found, mode="clip")
            return found
        for owner in present:
            own = owners == owner
            found[own] = self._arrays[owner][places[own] - self._starts[owner]]
        return found

    @staticmethod
    def join(parts: Sequence["Rows[Scalar]"]) -> "Rows[Scalar]":
        """One after the other."""
        arrays = [array for part in parts for array in part._arrays]
        starts = np.cumsum([0, *(part._starts[-1] for part in parts)])
        return Rows(*arrays, places=np.concatenate([part._places + start for part, start in zip(parts, starts, strict=False)]))
