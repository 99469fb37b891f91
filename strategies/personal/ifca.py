"""IFCA: several adapters, each site trains the one that fits its patients best, and each is the mean of its sites. arXiv:2006.04088."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from rainhill.adapter import Adapter, Array, factor
from rainhill.messages import SiteId
from strategies._rule import Move
from strategies.personal._personal import Personal

_CHOSEN = "chosen/"


class Ifca(Personal):
    clusters: Annotated[int, Field(ge=2, le=16)] = 2
    spread: Annotated[float, Field(gt=0, le=1e3)] = 0.1
    """How far the clusters begin apart: noise on A, relative to its standard deviation. B is zero, so they fit alike at first, and each
    site begins from the one that its name falls on."""
    seed: Annotated[int, Field(ge=0)] = 0

    source = "arXiv:2006.04088"
    summary = "several adapters, each site trains the one that fits it"
    linear = False
    several = True
    chooses = True
    too_few = "with no more sites than clusters, such as two, each may be a cluster of its own, and nothing is shared"

    def min_sites(self) -> int:
        return self.clusters + 1

    def init(self, adapter: Adapter) -> dict[str, Array]:
        rng = np.random.default_rng(self.seed)
        arrays: dict[str, Array] = {}
        for cluster in range(1, self.clusters):
            for name, array in adapter.items():
                noise = self.spread * array.std() * rng.standard_normal(array.shape) if factor(name) == "A" else np.zeros(array.shape)
                arrays[f"{cluster}/{name}"] = (array + noise).astype(array.dtype)
        return arrays

    def final(self, adapter: Adapter, arrays: Mapping[str, Array], site: SiteId) -> Adapter:
        return (adapter, *self.choices(adapter, arrays))[int(arrays.get(_CHOSEN + site, np.zeros(())))]

    def choices(self, adapter: Adapter, arrays: Mapping[str, Array]) -> tuple[Adapter, ...]:
        return tuple(Adapter({name: arrays[f"{cluster}/{name}"] for name in adapter}) for cluster in range(1, self.clusters))

    def step(self, moves: Sequence[Move], arrays: Mapping[str, Array]) -> dict[str, Array]:
        return dict(arrays) | {_CHOSEN + move.site: np.array(float(move.choice)) for move in moves}

    def moved(self, cluster: int, adapter: Adapter) -> dict[str, Array]:
        """The arrays of a cluster, where it is now `adapter`."""
        return {f"{cluster}/{name}": array for name, array in adapter.items()}
