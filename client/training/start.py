"""Where A begins. B begins at zero, so none of these changes the model: they choose the rows of the input that B can first read.

All draw from the recipe's seed, or from what every site has, so all begin alike. Rows are as long as those of the random draw.
"""

import numpy as np
import torch

from client.models import Net
from client.tasks import Task
from client.training import lora
from client.training.features import Features, in_batches
from rainhill.adapter import A_SUFFIX, Adapter, Array
from rainhill.errors import BaseModelError
from rainhill.recipe import LoraSection


def begin(net: Net, section: LoraSection, *, seed: int, task: Task | None = None, public: Features | None = None) -> Adapter:
    """The first adapter without head or norms; `public` are the patients whose gradient `init = "gradient"` follows, of no site."""
    drawn = lora.draw(net, name=lora.SHARED, with_head=False, seed=seed)
    if section.init == "random":
        return drawn
    rank = section.rank
    if section.init != "orthonormal":
        _refuse_packed(net, section.init)
    if section.init == "orthonormal":
        rows = {module: np.linalg.qr(pair.a.astype(np.float64).T)[0].T for module, pair in drawn.pairs().items()}
    elif section.init == "principal":
        rows = {module: _leading(_matrix(layer.get_base_layer().weight), rank) for module, layer in lora.layers(net)}
    else:
        if task is None or public is None:
            raise ValueError("init = 'gradient' needs public patients")
        rows = {module: _leading(gradient, rank) for module, gradient in _gradients(net, drawn, task, public).items()}
    arrays = {module + A_SUFFIX: _of_length(row, drawn[module + A_SUFFIX]) for module, row in rows.items()}
    return drawn.replace(arrays)


def _refuse_packed(net: Net, init: str) -> None:
    for path, layer in lora.layers(net):
        if not layer.get_base_layer().weight.is_floating_point():
            raise BaseModelError(
                f"lora.init = {init!r} reads the base model's weights, and those of {path} are packed (nf4): "
                "precision bfloat16, or init = 'orthonormal'"
            )


def _leading(matrix: Array, rank: int) -> Array:
    """(r, d_in) leading right singular vectors of a (d_out, d_in) matrix, each with its largest entry positive."""
    _, _, vt = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    rows = vt[:rank]
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
    return np.asarray(rows * np.sign(largest))


def _of_length(rows: Array, like: Array) -> Array:
    """The rows scaled to the root mean square length of those drawn; drawn rows in place of those that are not there."""
    length = np.sqrt(np.mean(np.sum(np.square(like, dtype=np.float64), axis=1)))
    scaled = like.astype(np.float64)
    scaled[: len(rows)] = rows * length / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled.astype(like.dtype)


def _gradients(net: Net, drawn: Adapter, task: Task, public: Features) -> dict[str, Array]:
    """Module -> (d_out, d_in) gradient of the mean loss by the base's own weight, summed over the public patients' images."""
    lora.write_adapter(net, drawn, name=lora.SHARED)
    weights = {module: layer.get_base_layer().weight for module, layer in lora.layers(net)}
    for weight in weights.values():
        weight.requires_grad_(True)
    try:
        for rows in in_batches(len(public.hidden)):
            torch.autograd.backward(task.losses(net, public, rows).sum())
        return {module: _matrix(weight.grad) for module, weight in weights.items()}
    finally:
        for weight in weights.values():
            weight.requires_grad_(False)
            weight.grad = None


def _matrix(tensor: torch.Tensor | None) -> Array:
    assert tensor is not None
    return np.array(tensor.detach().flatten(1).float().cpu().numpy())
