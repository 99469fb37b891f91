"""The local fit: AdamW on the tensors that a rule trains, over batches of patients, in an explicit loop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from client.models import Net
from client.tasks import Task
from client.training.features import Features
from rainhill.adapter import Adapter, Array, factor, padded
from rainhill.errors import DataError
from rainhill.recipe import FitSection

PART = 64
"""Images that go through the network at a time."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Which part of a longer training this fit is: the learning rate falls over the whole of it."""

    before: int
    """Steps that were done before."""
    total: int


@dataclass(frozen=True, kw_only=True)
class Pull:
    """What is done to a gradient besides the data's: mu (w - anchor) and a correction by name are added, and factors may take turns."""

    mu: float = 0.0
    anchor: Adapter | None = None
    correction: Adapter | None = None
    alternate: bool = False
    """Even steps leave A where it is, odd ones B; whole tensors move in each."""
    first: frozenset[str] = frozenset()
    """Tensors that alone move in the first `first_steps` steps, and then no more."""
    first_steps: int = 0

    def moves(self, name: str, step: int) -> bool:
        if self.first and (name in self.first) != (step < self.first_steps):
            return False
        return not self.alternate or factor(name) != ("A" if step % 2 == 0 else "B")


@dataclass(frozen=True, kw_only=True)
class Fitted:
    losses: list[float]
    """Of each step."""
    variate: dict[str, Array] = field(default_factory=dict)
    """Adapter name -> mean gradient of the data over the steps, as AdamW saw it (its length is bounded by max_grad_norm)."""


def fit(
    net: Net,
    features: Features,
    task: Task,
    section: FitSection,
    *,
    parameters: Mapping[str, torch.nn.Parameter],
    seed: tuple[int, ...],
    stretch: Stretch | None = None,
    pull: Pull | None = None,
    with_variate: bool = False,
    penalty: Callable[[], torch.Tensor] | None = None,
) -> Fitted:
    """Trains `parameters` in place. Everything random comes from `seed`. `penalty` is added to the loss, and not told with it."""
    pull = pull or Pull()
    stretch = stretch or Stretch(before=0, total=section.steps)
    rng = np.random.default_rng(seed)
    weights = list(parameters.values())
    for weight in weights:
        weight.requires_grad_(True)
    # eps above the default: with B at zero the gradients of A begin at rounding size, and Adam would blow them up to full steps.
    optimizer = torch.optim.AdamW(weights, lr=section.learning_rate, weight_decay=section.weight_decay, eps=1e-6)
    losses = []
    totals: dict[str, torch.Tensor] = {}
    try:
        for step, chosen in enumerate(_patient_batches(features.count, section, rng)):
            optimizer.param_groups[0]["lr"] = section.learning_rate * (1 - (stretch.before + step) / stretch.total)
            rows = features.draw(chosen, rng)
            optimizer.zero_grad(set_to_none=True)
            loss = 0.0
            # In parts, so that memory does not grow with the step; the gradient is that of the mean over the whole step.
            for part in torch.split(rows, PART):
                part_loss = task.loss(net(features.hidden[part]), features.targets[part]).sum() / len(rows)
                part_loss.backward()
                loss += float(part_loss.detach())
            if penalty is not None:
                penalty().backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(weights, section.max_grad_norm)
            if with_variate:
                for name, parameter in parameters.items():
                    if parameter.grad is not None:
                        totals[name] = totals.get(name, torch.zeros_like(parameter)) + parameter.grad
            _add(pull, parameters)
            for name, parameter in parameters.items():
                if not pull.moves(name, step):
                    parameter.grad = None
            optimizer.step()
            losses.append(loss)
    finally:
        for weight in weights:
            weight.requires_grad_(False)
            weight.grad = None
    if not np.isfinite(losses).all():
        step = int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
        raise DataError(
            f"training diverged: the loss of step {step} is {losses[step - 1]}; "
            f"learning_rate = {section.learning_rate} or weight_decay = {section.weight_decay} is too high"
        )
    return Fitted(losses=losses, variate={name: (total / len(losses)).numpy() for name, total in totals.items()})


def tail_mean(losses: list[float]) -> float:
    """Mean of the last quarter, at least one step."""
    return float(np.mean(losses[-max(1, len(losses) // 4) :]))


def _patient_batches(count: int, section: FitSection, rng: np.random.Generator) -> list[Array]:
    """`steps` batches of distinct patients, every patient once before any comes again."""
    size = min(section.patients_per_step, count)
    if size == 0:
        raise DataError("no patient to train on")
    # A batch never straddles two permutations, so no patient is in it twice.
    per_epoch = count // size
    epochs = -(-section.steps // per_epoch)
    order = [rng.permutation(count)[: per_epoch * size] for _ in range(epochs)]
    return list(np.concatenate(order).reshape(-1, size)[: section.steps])


def _add(pull: Pull, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        if parameter.grad is None:
            continue
        if pull.mu and pull.anchor is not None:
            parameter.grad.add_(parameter.detach() - _at_full_rank(pull.anchor[name], parameter), alpha=pull.mu)
        if pull.correction is not None and name in pull.correction:
            parameter.grad.add_(_at_full_rank(pull.correction[name], parameter))


def _at_full_rank(array: Array, parameter: torch.nn.Parameter) -> torch.Tensor:
    """Zeros beside an array of lower rank, as the parameter has them; a convolution's is flat in the adapter."""
    shape = tuple(parameter.flatten(1).shape if parameter.ndim > 1 else parameter.shape)
    return torch.from_numpy(padded(array, shape)).reshape(parameter.shape)
