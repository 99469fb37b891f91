"""What training needs of a base model, whatever its architecture."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where a network computes, and how its frozen weights are held."""

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["float32", "bfloat16", "nf4"] = "float32"


class Net(nn.Module):
    """A frozen encoder and a linear head, split in two: what no adapter touches, and the rest.

    `prefix` (N, 1, S, S) -> hidden states, the same for every adapter, so each image needs it only once.
    `forward` hidden states -> (N, K) logits.
    Both take and give tensors in main memory, wherever the network computes.
    """

    compute = Compute()

    writes = False
    """Whether it writes a text, and has no head."""
    one_by_one = False
    """Whether images of a batch do not lie apart along the first dimension of every layer that takes LoRA: a private step takes them one at
    a time then."""
    unpacked: tuple[nn.Module, ...] = ()
    """Frozen layers besides the head that keep float32."""

    size: int
    """Side of the square image it takes, in pixels."""
    head: nn.Linear | nn.Identity
    base_head: dict[str, Tensor]
    """The head as the base model has it, to go back to: name -> values."""
    base_norms: dict[str, Tensor]
    """Weights and biases of the adaptable norms as the base model has them: name of the parameter -> values."""

    def prefix(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def adaptable(self) -> list[nn.Module]:
        """The parts after the prefix, in which modules may take LoRA."""
        raise NotImplementedError

    def groups(self) -> Mapping[str, list[nn.Module]]:
        """The same parts by what they are to the model: in each of them some module has to take LoRA."""
        return {"": self.adaptable()}


def head_from_base(weights: Path, width: int, outputs: Mapping[str, str], labels: list[str]) -> nn.Linear:
    """A (K, width) head: the base's own row where it knows the output by name, zeros where it does not."""
    head = nn.Linear(width, len(outputs))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    tensors = {name: tensor for file in sorted(weights.glob("*.safetensors")) for name, tensor in load_file(file).items()}
    old_weight, old_bias = tensors.get("classifier.weight"), tensors.get("classifier.bias")
    if old_weight is None or old_bias is None or old_weight.shape != (len(labels), width):
        return head
    with torch.no_grad():
        for row, source in enumerate(outputs.values()):
            if source in labels:
                head.weight[row] = old_weight[labels.index(source)]
                head.bias[row] = old_bias[labels.index(source)]
    return head


def read_json(path: Path) -> dict[str, object]:
    """An empty table where there is no such file."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
