"""FedAvgM: momentum at the server. Hsu et al. 2019, arXiv:1909.06335."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from rainhill.adapter import Adapter, Array
from rainhill.messages import Update
from strategies._rule import Move
from strategies.optimizers._optimizer import Optimizer, stepped


class FedAvgM(Optimizer):
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    learning_rate: Annotated[float, Field(gt=0, le=1e3)] = 1.0

    source = "arXiv:1909.06335"
    summary = "momentum at the server"

    def step(
        self, before: Adapter, proposed: Adapter, moves: Sequence[Move], updates: Sequence[Update], arrays: Mapping[str, Array]
    ) -> tuple[Adapter, dict[str, Array]]:
        del updates
        moved, kept = {}, dict(arrays)
        for name in stepped(before, moves):
            change = proposed[name].astype(np.float64) - before[name]
            kept[name] = self.momentum * arrays.get(name, np.zeros_like(change)) + change
            moved[name] = (before[name] + self.learning_rate * kept[name]).astype(before[name].dtype)
        return proposed.replace(moved), kept
