"""The site's private part, fitted after the shared one and never sent: its own LoRA pair, its head, its temperature.

The shared adapter is frozen here. The order matters: a private part that trains while the shared one does would carry each patient
into the shared gradients a second time, past any clipping.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from client.models import Net
from client.tasks import Task
from client.training import lora
from client.training.answer import LocalData, site_seed
from client.training.features import Features, logits
from client.training.fit import Stretch, fit
from rainhill.adapter import Adapter, Array
from rainhill.recipe import Recipe

CHECKS = 5
"""How often the private fit is held against the validation patients; the best of these, or none of it, is kept."""
TEMPERATURES = (0.2, 5.0)


@dataclass(frozen=True, kw_only=True)
class Private:
    """Stays at the site. `steps` = 0 says that nothing trained here did better than the shared adapter alone."""

    adapter: Adapter
    temperature: float
    steps: int


def personalise(shared: Adapter, *, site: str, recipe: Recipe, net: Net, task: Task, data: LocalData) -> Private:
    """Leaves the network as `shared` made it, and gives the private part that did best on the site's validation patients."""
    section = recipe.private
    start = load_private(net, shared, None, recipe)
    share = section.model_copy(update={"steps": max(1, section.steps // CHECKS)})
    best, best_loss, best_steps = start, _loss(net, task, data.val), 0
    parameters = lora.trainable(net, name=lora.PRIVATE, with_head=True)
    for check in range(1, CHECKS + 1):
        stretch = Stretch(before=(check - 1) * share.steps, total=CHECKS * share.steps)
        fit(net, data.train, task, share, parameters=parameters, seed=(*site_seed(recipe.seed, site, 0), check), stretch=stretch)
        loss = _loss(net, task, data.val)
        if loss < best_loss:
            best, best_loss, best_steps = lora.read_adapter(net, name=lora.PRIVATE, with_head=True), loss, check * share.steps
    lora.write_adapter(net, best, name=lora.PRIVATE)
    private = Private(
        adapter=best, temperature=fit_temperature(logits(net, data.val.hidden), data.val.targets.numpy(), task), steps=best_steps
    )
    lora.activate(net, [lora.SHARED])
    return private


def load_private(net: Net, shared: Adapter, private: Private | None, recipe: Recipe) -> Adapter:
    """Puts shared and private part in force together; without a private part, an untrained one, which changes nothing."""
    lora.write_adapter(net, shared, name=lora.SHARED)
    lora.activate(net, [lora.SHARED, lora.PRIVATE])
    adapter = private.adapter if private else lora.draw(net, name=lora.PRIVATE, with_head=True, seed=recipe.seed)
    lora.write_adapter(net, adapter, name=lora.PRIVATE)
    return adapter


def fit_temperature(values: Array, targets: Array, task: Task) -> float:
    """The T that makes logits / T most likely on validation patients. Guo et al. 2017, arXiv:1706.04599."""
    if not np.isfinite(targets).any():
        return 1.0
    tensor, truth = torch.from_numpy(values), torch.from_numpy(targets)
    found = minimize_scalar(
        lambda log_t: float(task.loss(tensor / float(np.exp(log_t)), truth).mean()), bounds=tuple(np.log(TEMPERATURES)), method="bounded"
    )
    return float(np.exp(found.x))


def _loss(net: Net, task: Task, features: Features) -> float:
    return float(task.loss(torch.from_numpy(logits(net, features.hidden)), features.targets).mean())
