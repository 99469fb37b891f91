"""The site's private part, fitted after the shared one and never sent: a LoRA pair of its own or a copy of the adapter, head, temperature.

The shared adapter is frozen here. The order matters: a private part that trains while the shared one does would carry each patient
into the shared gradients a second time, past any clipping.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

from client.models import Net
from client.tasks import Task
from client.training import lora
from client.training.answer import LocalData, site_seed
from client.training.features import losses_of
from client.training.fit import Stretch, fit
from rainhill.adapter import A_SUFFIX, B_SUFFIX, Adapter
from rainhill.recipe import Recipe
from strategies.personal import Personal
from strategies.personal.ditto import Ditto
from strategies.personal.dual import Dual

CHECKS = 5
"""How often the private fit is held against the validation patients; the best of these, or none of it, is kept."""


@dataclass(frozen=True, kw_only=True)
class Private:
    """Stays at the site. `steps` = 0 says that nothing trained here did better than the shared adapter alone."""

    adapter: Adapter
    """A pair beside the shared one, or what stands in its place."""
    instead: bool = False
    temperature: float = 1.0
    steps: int


def personalise(
    shared: Adapter, *, site: str, recipe: Recipe, net: Net, task: Task, data: LocalData, mode: Personal | None = None
) -> Private:
    """Leaves the network as `shared` made it, and gives the private part that did best on the site's validation patients.

    `mode` says what the private part is: a pair beside the shared adapter (the default), a copy of it held near, or its temperature alone.
    """
    mode = mode or Dual()
    copied, penalty = isinstance(mode, Ditto), None
    start = load_private(net, shared, None, recipe)
    if isinstance(mode, Ditto):
        lora.activate(net, [lora.SHARED])
        parameters = lora.trainable(net, name=lora.SHARED, with_head=True)
        penalty = near(parameters, shared, mode.penalty)
        start = shared.replace(lora.read_head(net))
    else:
        parameters = lora.trainable(net, name=lora.PRIVATE, with_head=True)

    def current() -> Adapter:
        return lora.read_like(net, start, name=lora.SHARED if copied else lora.PRIVATE)

    share = recipe.private.model_copy(update={"steps": max(1, recipe.private.steps // CHECKS)})

    def loss_now() -> float:
        return float(losses_of(net, data.val, task).mean())

    best, best_steps, best_loss = start, 0, loss_now()
    for check in range(1, CHECKS + 1 if mode.after != "nothing" else 1):
        stretch = Stretch(before=(check - 1) * share.steps, total=CHECKS * share.steps)
        seed = (*site_seed(recipe.seed, site, 0), check)
        fit(net, data.train, task, share, parameters=parameters, seed=seed, stretch=stretch, penalty=penalty)
        loss = loss_now()
        if loss < best_loss:
            best, best_loss, best_steps = current(), loss, check * share.steps
    found = Private(adapter=best, instead=copied, steps=best_steps)
    load_private(net, shared, found, recipe)
    found = replace(found, temperature=task.temperature(net, data.val))
    lora.write_adapter(net, shared, name=lora.SHARED)
    lora.activate(net, [lora.SHARED])
    return found


def load_private(net: Net, shared: Adapter, private: Private | None, recipe: Recipe) -> Adapter:
    """Puts shared and private part in force together; without a private part, an untrained one, which changes nothing."""
    if private and private.instead:
        lora.write_adapter(net, private.adapter, name=lora.SHARED)
        lora.activate(net, [lora.SHARED])
        return private.adapter
    lora.write_adapter(net, shared, name=lora.SHARED)
    lora.activate(net, [lora.SHARED, lora.PRIVATE])
    drawn = lora.draw(net, name=lora.PRIVATE, with_head=False, seed=recipe.seed).replace(lora.read_head(net))
    adapter = private.adapter if private else drawn
    lora.write_private(net, adapter)
    return adapter


@contextmanager
def private_part(net: Net, shared: Adapter, private: Private, recipe: Recipe) -> Iterator[float]:
    """Both parts in force while the block lasts; gives the temperature."""
    load_private(net, shared, private, recipe)
    try:
        yield private.temperature
    finally:
        lora.activate(net, [lora.SHARED])


def near(parameters: Mapping[str, torch.nn.Parameter], shared: Adapter, weight: float) -> Callable[[], torch.Tensor]:
    """weight / 2 times the squared Frobenius distance of the products, over all modules. Ditto: Li et al. 2021, arXiv:2012.04221.

    By r x r Grams: tr(B^T B A A^T) - 2 tr(B^T B' A' A^T) + tr(B'^T B' A' A'^T), which no change of basis between B and A moves.
    """
    device = next(iter(parameters.values())).device
    pairs = [
        (module, torch.from_numpy(np.array(pair.a)).to(device), torch.from_numpy(np.array(pair.b)).to(device))
        for module, pair in shared.pairs().items()
    ]

    def penalty() -> torch.Tensor:
        total = torch.zeros((), device=device)
        for module, a_shared, b_shared in pairs:
            rank = len(a_shared)
            a = parameters[module + A_SUFFIX].flatten(1)[:rank]
            b = parameters[module + B_SUFFIX].flatten(1)[:, :rank]
            own = ((b.T @ b) * (a @ a.T)).sum()
            across = ((b.T @ b_shared) * (a @ a_shared.T)).sum()
            others = ((b_shared.T @ b_shared) * (a_shared @ a_shared.T)).sum()
            total = total + own - 2 * across + others
        return weight / 2 * total

    return penalty
