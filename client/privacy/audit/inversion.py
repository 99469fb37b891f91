"""What an update of a single patient gives away with and without protection, as pictures. Geiping et al. 2020, arXiv:2003.14053.

Who holds the base model looks for the image whose gradient is the one that was sent. It is the worst case: one patient, one image, one
step, the labels known, and the clipping so wide that it takes nothing; what is left of the protection is the noise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from client.privacy import accountant
from client.privacy.audit.film import film
from client.privacy.audit.finding import Trial
from client.privacy.audit.watch import mechanism, watched
from client.privacy.audit.worlds import World, world_of
from client.privacy.randomness import simulated_key
from client.training.clipping import clipped_sum
from rainhill.adapter import Array

SIZE, PATCH, WIDTH, RANK = 64, 8, 64, 8
EPSILON, DELTA = 8.0, 1e-5
PATIENTS, PATIENTS_PER_STEP, STEPS = 2000, 64, 300
"""Of the hospital whose noise this is."""
SMOOTH = 1e-4, 1e-3, 1e-2
"""Weights of the total variation, the attacker's knowledge that films are smooth. Against noise all are tried, and the best is shown."""


@dataclass(frozen=True, kw_only=True)
class Inversion:
    original: Array
    """(S, S) in [-1, 1]."""
    unprotected: Array
    protected: Array
    noise_multiplier: float

    def sentence(self) -> str:
        open_, closed = (similarity(self.original, one) for one in (self.unprotected, self.protected))
        return (
            f"from one patient's update a film comes back with cosine similarity {open_:.2f} where nothing protects it, and "
            f"{closed:.2f} under clipping and noise of sigma = {self.noise_multiplier:.2f}"
        )


def inversion(trial: Trial) -> Inversion:
    original = film(SIZE) * 2 - 1
    labels = np.array([[1.0, 0.0, 0.0]], dtype=np.float32)
    images = original[None, None].astype(np.float32)
    world = world_of(images, np.zeros(1, dtype=np.int64), labels, patch=PATCH, width=WIDTH, rank=RANK, seed=0)
    world.restart()
    parameters = world.parameters(head=True)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    sigma = accountant.noise_multiplier(EPSILON, DELTA, PATIENTS_PER_STEP / PATIENTS, STEPS)
    plain, _ = clipped_sum(
        world.net, world.task, world.features, [world.features.images_of[0]], parameters=parameters, max_grad_norm=math.inf
    )
    noised = _released(world, trial, parameters, sigma, _norm(plain))
    found = _recovered(world, parameters, plain, SMOOTH[0], 250 if trial.quick else 1000)
    tries = [_recovered(world, parameters, noised, smooth, 60 if trial.quick else 300) for smooth in SMOOTH]
    best = max(tries, key=lambda one: similarity(original, one))
    return Inversion(original=original, unprotected=found, protected=best, noise_multiplier=sigma)


def similarity(one: Array, other: Array) -> float:
    """Cosine, of what differs from each picture's own mean grey."""
    a, b = (picture.ravel() - picture.mean() for picture in (one, other))
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    # A picture of one grey has nothing in common with anything.
    return float(a @ b) / lengths if lengths else 0.0


def _released(world: World, trial: Trial, parameters: Mapping[str, nn.Parameter], sigma: float, clip: float) -> Mapping[str, Tensor]:
    key, everybody = simulated_key((trial.seed, 8)), np.ones(1, dtype=np.bool_)
    seen = watched(mechanism(key=key, drawable=everybody, noise_multiplier=sigma, sample_rate=1.0, max_grad_norm=clip))
    seen.fill(world.net, world.task, world.features, parameters)
    return seen.releases[0]


def _recovered(world: World, parameters: Mapping[str, nn.Parameter], sent: Mapping[str, Tensor], smooth: float, iterations: int) -> Array:
    """(S, S) the image whose gradient is nearest to `sent`, each tensor in units of its own length.

    By LBFGS from a grey one, as in Zhu et al. 2019, arXiv:1906.08935.
    """
    world.net.double()
    targets = world.features.targets.double()
    image = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [image], max_iter=iterations, history_size=50, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=1e-14
    )
    lengths = {name: float(tensor.square().sum()) + 1e-30 for name, tensor in sent.items()}

    def closure() -> float:
        loss = world.task.loss(world.net(world.net.prefix(image)), targets).sum()
        gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        pairs = zip(gradients, sent.items(), strict=True)
        distance = sum((((mine - tensor) ** 2).sum() / lengths[name] for mine, (name, tensor) in pairs), torch.zeros(()))
        variation = image.diff(dim=2).abs().mean() + image.diff(dim=3).abs().mean()
        aim = distance / len(sent) + smooth * variation
        (image.grad,) = torch.autograd.grad(aim, image)
        return float(aim.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    world.net.float()
    return np.asarray(image.detach()[0, 0].clamp(-1, 1).numpy())


def _norm(tensors: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(tensor.square().sum()) for tensor in tensors.values()))
