"""FedAdam: the server moves by momentum over the root of a decaying mean of squares. Reddi et al. 2021, arXiv:2003.00295."""

from rainhill.adapter import Array
from strategies.optimizers._adaptive import Adaptive


class FedAdam(Adaptive):
    source = "arXiv:2003.00295"
    summary = "adaptive server step, decaying mean of squares"

    def second_moment(self, v: Array, squared: Array) -> Array:
        return self.beta_2 * v + (1 - self.beta_2) * squared
