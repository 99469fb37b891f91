"""FedAdagrad: the server moves by momentum over the root of a sum of squares. Reddi et al. 2021, arXiv:2003.00295."""

from rainhill.adapter import Array
from strategies.optimizers._adaptive import Adaptive


class FedAdagrad(Adaptive):
    source = "arXiv:2003.00295"
    summary = "adaptive server step, sum of squares"

    def second_moment(self, v: Array, squared: Array) -> Array:
        return v + squared
