"""FedYogi: as FedAdam, with a second moment that grows at once and shrinks slowly. Reddi et al. 2021, arXiv:2003.00295."""

import numpy as np

from rainhill.adapter import Array
from strategies.optimizers._adaptive import Adaptive


class FedYogi(Adaptive):
    source = "arXiv:2003.00295"
    summary = "adaptive server step, second moment that grows at once and shrinks slowly"

    def second_moment(self, v: Array, squared: Array) -> Array:
        return np.asarray(v - (1 - self.beta_2) * squared * np.sign(v - squared))
