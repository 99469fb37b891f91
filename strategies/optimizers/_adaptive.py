"""Adaptive server steps on the change that a rule proposes. Reddi et al. 2021, arXiv:2003.00295, algorithm 2."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from rainhill.adapter import Adapter, Array
from rainhill.messages import Update
from strategies._rule import Move
from strategies.optimizers._optimizer import Optimizer, stepped

_FIRST, _SECOND = "m/", "v/"


class Adaptive(Optimizer):
    learning_rate: Annotated[float, Field(gt=0, le=1e3)] = 0.01
    """The paper's eta: about how far an entry moves in a round."""
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    tau: Annotated[float, Field(ge=1e-12, le=1e3)] = 1e-3
    """Added to the root of v: how small a change still counts as one."""

    def second_moment(self, v: Array, squared: Array) -> Array:
        raise NotImplementedError

    def step(
        self, before: Adapter, proposed: Adapter, moves: Sequence[Move], updates: Sequence[Update], arrays: Mapping[str, Array]
    ) -> tuple[Adapter, dict[str, Array]]:
        del updates
        moved, kept = {}, dict(arrays)
        for name in stepped(before, moves):
            change = proposed[name].astype(np.float64) - before[name]
            m = self.beta_1 * arrays.get(_FIRST + name, np.zeros_like(change)) + (1 - self.beta_1) * change
            v = self.second_moment(arrays.get(_SECOND + name, np.full_like(change, self.tau**2)), change**2)
            kept |= {_FIRST + name: m, _SECOND + name: v}
            moved[name] = (before[name] + self.learning_rate * m / (np.sqrt(v) + self.tau)).astype(before[name].dtype)
        return proposed.replace(moved), kept
