"""Server optimisers, one file each; each goes with any rule whose factors keep their basis."""

from strategies.optimizers._optimizer import Optimizer

__all__ = ["Optimizer"]
