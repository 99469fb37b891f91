"""Tensors end to end in the order of their names, with the shapes that the plan declares."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rainhill.adapter import Adapter, check_shapes
from rainhill.errors import ProtocolError


@dataclass(frozen=True, kw_only=True)
class Layout:
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def size(self) -> int:
        """Entries of the whole vector."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def flatten(self, adapter: Adapter) -> NDArray[np.float64]:
        """(size,); ProtocolError unless exactly the declared tensors are there, as float32, and finite."""
        check_shapes(adapter, self.shapes)
        for name, array in adapter.items():
            if array.dtype != np.float32:
                raise ProtocolError(f"{name}: dtype {array.dtype} is not float32")
            if not np.isfinite(array).all():
                bad = int(array.size - np.count_nonzero(np.isfinite(array)))
                raise ProtocolError(f"{name}: {bad} of {array.size} values are not finite")
        return np.concatenate([np.empty(0), *(adapter[name].ravel() for name in sorted(self.shapes))], dtype=np.float64)

    def unflatten(self, vector: NDArray[Any]) -> Adapter:
        """float32, each entry rounded to the nearest."""
        arrays, start = {}, 0
        for name in sorted(self.shapes):
            end = start + math.prod(self.shapes[name])
            arrays[name] = vector[start:end].reshape(self.shapes[name]).astype(np.float32)
            start = end
        return Adapter(arrays)
