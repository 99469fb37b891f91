"""The audit's own networks and patients, of nobody: a small transformer on random images, and canaries of one coordinate each.

Both go through the same LoRA layers, the same task and the same private step as a hospital's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from client.models import Net
from client.tasks.findings import Findings
from client.training import lora
from client.training.features import Features
from rainhill.adapter import A_SUFFIX, Adapter, Array

HEADS = 2
FINDINGS = ("one", "two", "three")


@dataclass(frozen=True, kw_only=True)
class World:
    net: Net
    task: Findings
    features: Features
    start: Adapter
    """Pairs and the head, before any training."""

    def parameters(self, *, head: bool = False, factors: str = "AB") -> dict[str, nn.Parameter]:
        """What a round trains."""
        found = lora.trainable(self.net, name=lora.SHARED, with_head=head)
        return {name: parameter for name, parameter in found.items() if ".lora_" not in name or name[-1] in factors}

    def restart(self) -> None:
        lora.write_adapter(self.net, self.start, name=lora.SHARED)


class SmallTransformer(Net):
    """One block on square patches; everything before the block is its prefix."""

    def __init__(self, *, size: int, patch: int, width: int, outputs: int, seed: int) -> None:
        super().__init__()
        self.size, self.patch = size, patch
        self.embedding = nn.Linear(patch * patch, width)
        self.position = nn.Parameter(torch.empty((size // patch) ** 2, width))
        self.norm_in, self.norm_mid, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, outputs)
        _drawn(self, seed)

    def prefix(self, images: Tensor) -> Tensor:
        """(N, 1, S, S) -> (N, patches, width)."""
        patches = F.unfold(images, self.patch, stride=self.patch).transpose(1, 2)
        hidden: Tensor = self.embedding(patches) + self.position
        return hidden

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self._attention(self.norm_in(hidden))
        hidden = hidden + self.fc2(F.gelu(self.fc1(self.norm_mid(hidden))))
        logits: Tensor = self.head(self.norm_out(hidden).mean(dim=1))
        return logits

    def adaptable(self) -> list[nn.Module]:
        return [self]

    def _attention(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(2, (HEADS, -1)).transpose(1, 2) for part in (self.q_proj, self.k_proj, self.v_proj))
        weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[-1]), dim=-1)
        mixed: Tensor = (weights @ v).transpose(1, 2).flatten(2)
        return mixed


class _OneLayer(Net):
    """A layer of zeros, then the identity: the gradient by B of a canary is one coordinate."""

    def __init__(self, *, rank: int, outputs: int) -> None:
        super().__init__()
        self.size = 1
        self.v_proj, self.head = nn.Linear(rank, outputs, bias=False), nn.Linear(outputs, outputs)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        nn.init.eye_(self.head.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(self.v_proj(hidden))
        return logits

    def adaptable(self) -> list[nn.Module]:
        return [self]


def patients(*, count: int, images: int, seed: int, width: int = 16, rank: int = 4) -> World:
    """So many patients of `images` random images each, with labels that only memory can tell."""
    rng = np.random.default_rng([seed, 1])
    owners = np.repeat(np.arange(count), images)
    films = rng.normal(size=(len(owners), 1, 16, 16)).astype(np.float32)
    labels = rng.integers(0, 2, (count, len(FINDINGS))).astype(np.float32)
    return world_of(films, owners, labels[owners], patch=4, width=width, rank=rank, seed=seed)


def world_of(films: Array, owners: Array, labels: Array, *, patch: int, width: int, rank: int, seed: int) -> World:
    """(N, 1, S, S) images of `owners` (N,), with labels (N, 3), and a network that was drawn from the seed."""
    net = SmallTransformer(size=films.shape[-1], patch=patch, width=width, outputs=len(FINDINGS), seed=seed)
    _prepare(net, modules="q_proj|k_proj|v_proj|fc1|fc2", rank=rank)
    with torch.no_grad():
        features = Features(net.prefix(torch.from_numpy(films)), torch.from_numpy(labels), owners)
    drawn = lora.draw(net, name=lora.SHARED, with_head=True, seed=seed)
    # Both factors away from zero: at B = 0 the gradient of A is zero, and a part of the mechanism would not be seen.
    rng = np.random.default_rng([seed, 2])
    moved = {name: drawn[name] + 0.1 * rng.normal(size=drawn[name].shape).astype(np.float32) for name in drawn if ".lora_" in name}
    return World(net=net, task=Findings(findings=FINDINGS), features=features, start=drawn.replace(moved))


def canaries(*, rank: int, findings: int, images: int, length: float) -> World:
    """rank x findings patients; the gradient of the one at place (j, k) is `length` along B[k, j], and no other patient's is there."""
    task = Findings(findings=tuple(f"finding_{number}" for number in range(findings)))
    net = _OneLayer(rank=rank, outputs=findings)
    (module,) = _prepare(net, modules="v_proj", rank=rank)
    places, outputs = (places.ravel() for places in np.divmod(np.arange(rank * findings), findings))
    targets = np.full((rank * findings, findings), np.nan, dtype=np.float32)
    targets[np.arange(rank * findings), outputs] = 1.0
    # The loss of a logit of 0 has a slope of 1/2.
    hidden = 2 * length * np.eye(rank, dtype=np.float32)[places]
    owners = np.repeat(np.arange(rank * findings), images)
    features = Features(torch.from_numpy(hidden[owners]), torch.from_numpy(targets[owners]), owners)
    drawn = lora.draw(net, name=lora.SHARED, with_head=True, seed=0)
    return World(net=net, task=task, features=features, start=drawn.replace({module + A_SUFFIX: np.eye(rank, dtype=np.float32)}))


def in_order(releases: Mapping[str, Tensor]) -> Array:
    """(findings, rank) of B -> (rank * findings,) one entry per canary, positive where it is in."""
    (released,) = releases.values()
    return np.asarray(-released.numpy().T.ravel())


def without(features: Features, gone: NDArray[np.bool_]) -> Features:
    """The same numbers for the patients that stay, and no image of those that are gone; the last one has to stay."""
    stay = ~gone[features.patients]
    return Features(features.hidden[torch.from_numpy(stay)], features.targets[torch.from_numpy(stay)], features.patients[stay])


def renumbered(features: Features) -> Features:
    """Only the patients that have an image, numbered from 0."""
    return Features(features.hidden, features.targets, np.unique(features.patients, return_inverse=True)[1])


def _prepare(net: Net, *, modules: str, rank: int) -> list[str]:
    net.requires_grad_(False).eval()
    net.base_norms = {}
    net.base_head = {name: tensor.clone() for name, tensor in net.head.state_dict(prefix="head.").items()}
    return lora.attach(net, name=lora.SHARED, pattern=modules, rank=rank, alpha=rank)


def _drawn(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim == 2:
                # Positions are as large as what they are added to.
                parameter.normal_(generator=generator).div_(1 if name == "position" else math.sqrt(parameter.shape[1]))
            elif name.endswith("bias"):
                parameter.normal_(generator=generator).mul_(0.1)
