"""The local fit: AdamW on the tensors that a rule trains, over batches of patients, in an explicit loop, with or without privacy."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import numpy as np
import torch

from client.data import splits
from client.drafting.balance import patient_weights
from client.models import Net
from client.tasks import Task
from client.training.features import Features
from client.training.mechanism import Mechanism
from client.training.per_sample import refuse_what_mixes
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
    steps: int
    losses: list[float]
    """Of each step; of a private fit, of each that drew somebody."""
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
    mechanism: Mechanism | None = None,
) -> Fitted:
    """Trains `parameters` in place. Everything random comes from `seed`. `penalty` is added to the loss, and not told with it.

    With a `mechanism`, gradients are its noised means and all that is random comes from its stream; what is done to them afterwards costs
    no privacy. It clips patient by patient, so that the section's `max_grad_norm` is not used.
    """
    pull = pull or Pull()
    take = _noised(net, features, task, mechanism) if mechanism else _plain(net, features, task, section, seed, penalty)
    stretch = stretch or Stretch(before=0, total=section.steps)
    weights = list(parameters.values())
    for weight in weights:
        weight.requires_grad_(True)
    # eps above the default: with B at zero the gradients of A begin at rounding size, and Adam would blow them up to full steps.
    optimizer = torch.optim.AdamW(weights, lr=section.learning_rate, weight_decay=section.weight_decay, eps=1e-6)
    losses = []
    totals: dict[str, torch.Tensor] = {}
    try:
        if mechanism is not None:
            refuse_what_mixes(net, parameters)
        for step in range(section.steps):
            optimizer.param_groups[0]["lr"] = section.learning_rate * (1 - (stretch.before + step) / stretch.total)
            optimizer.zero_grad(set_to_none=True)
            losses.append(take(parameters, {name for name in parameters if pull.moves(name, step)}))
            if with_variate:
                for name, parameter in parameters.items():
                    if parameter.grad is not None:
                        totals[name] = totals.get(name, torch.zeros_like(parameter)) + parameter.grad
            _add(pull, parameters)
            for name, parameter in parameters.items():
                if not pull.moves(name, step):
                    parameter.grad = None
            optimizer.step()
    finally:
        for weight in weights:
            weight.requires_grad_(False)
            weight.grad = None
    known = [loss for loss in losses if loss is not None]
    # A private fit says nothing of its losses: what a refusal tells would be no less of a release.
    if mechanism is None and not np.isfinite(known).all():
        step = int(np.flatnonzero(~np.isfinite(known))[0]) + 1
        raise DataError(
            f"training diverged: the loss of step {step} is {known[step - 1]}; "
            f"learning_rate = {section.learning_rate} or weight_decay = {section.weight_decay} is too high"
        )
    return Fitted(
        steps=section.steps, losses=known, variate={name: (total / section.steps).cpu().numpy() for name, total in totals.items()}
    )


_Take = Callable[[Mapping[str, torch.nn.Parameter], AbstractSet[str]], float | None]
"""Fills `.grad` of the parameters for one step, of those named at least, and gives the mean loss where there is one."""


def _plain(
    net: Net,
    features: Features,
    task: Task,
    section: FitSection,
    seed: tuple[int, ...],
    penalty: Callable[[], torch.Tensor] | None,
) -> _Take:
    rng = np.random.default_rng(seed)
    labels = splits.patient_labels(task.truth(features), features.patients) if section.balance else None
    weights = None if labels is None else patient_weights(labels, strength=section.balance)
    batches = iter(_patient_batches(features.count, section, rng, weights))

    def take(parameters: Mapping[str, torch.nn.Parameter], moving: AbstractSet[str]) -> float:  # noqa: ARG001 - all, and some are dropped
        rows = features.draw(next(batches), rng)
        loss = 0.0
        # In parts, so that memory does not grow with the step; the gradient is that of the mean over the whole step.
        for part in torch.split(rows, PART):
            part_loss = task.losses(net, features, part).sum() / len(rows)
            torch.autograd.backward(part_loss)
            loss += float(part_loss.detach())
        if penalty is not None:
            penalty().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), section.max_grad_norm)
        return loss

    return take


def _noised(net: Net, features: Features, task: Task, mechanism: Mechanism) -> _Take:
    def take(parameters: Mapping[str, torch.nn.Parameter], moving: AbstractSet[str]) -> float | None:
        # What stands still in this step is not released, and takes nothing of the norm.
        return mechanism.fill(net, task, features, {name: parameters[name] for name in parameters if name in moving})

    return take


def tail_mean(losses: list[float]) -> float:
    """Mean of the last quarter, at least one step."""
    return float(np.mean(losses[-max(1, len(losses) // 4) :]))


def _patient_batches(count: int, section: FitSection, rng: np.random.Generator, weights: Array | None = None) -> list[Array]:
    """`steps` batches of distinct patients: every patient once before any comes again, or by their weights."""
    size = min(section.patients_per_step, count)
    if size == 0:
        raise DataError("no patient to train on")
    if weights is not None:
        return [rng.choice(count, size, replace=False, p=weights / weights.sum()) for _ in range(section.steps)]
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
    return torch.from_numpy(padded(array, shape)).reshape(parameter.shape).to(parameter.device)
