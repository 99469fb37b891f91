"""MONAI's DenseNet with group norm in place of batch norm. Huang et al. 2017, arXiv:1608.06993; Wu & He 2018, arXiv:1803.08494.

Batch norm keeps running statistics of the patients it saw, which no clipping or noise covers; group norm keeps none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from client.models._net import Net, head_from_base, read_json
from rainhill.errors import BaseModelError
from rainhill.toml import Section


class Densenet(Section):
    def load(self, weights: Path, *, outputs: Mapping[str, str], last_blocks: int | None) -> Net:
        """config.json: growth_rate, block_config, init_features, groups (of the norm), image_size, labels; weights named as MONAI does."""
        settings: dict[str, Any] = read_json(weights / "config.json")
        try:
            trunk = build(settings)
            labels = list(settings["labels"])
            size = int(settings["image_size"])
        except KeyError as error:
            raise BaseModelError(f"base model {weights / 'config.json'}: {error.args[0]} is missing") from error
        width = trunk.class_layers.out.in_features
        trunk.class_layers.out = nn.Identity()
        tensors = load_file(weights / "model.safetensors")
        features = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}
        missing, unknown = trunk.load_state_dict(features, strict=False)
        if missing or unknown:
            raise BaseModelError(f"base model {weights}: tensors missing {missing[:3]}, unknown {unknown[:3]}")
        return _DenseNet(trunk, head_from_base(weights, width, outputs, labels), size=size, last_blocks=last_blocks)


def build(settings: Mapping[str, Any]) -> Any:
    """The trunk with random weights, as config.json describes it."""
    from monai.networks.nets import DenseNet

    return DenseNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=max(1, len(settings["labels"])),
        init_features=settings["init_features"],
        growth_rate=settings["growth_rate"],
        block_config=tuple(settings["block_config"]),
        norm=("group", {"num_groups": settings["groups"]}),
    )


class _DenseNet(Net):
    def __init__(self, trunk: Any, head: nn.Linear, *, size: int, last_blocks: int | None) -> None:
        super().__init__()
        self.trunk, self.head, self.size = trunk, head, size
        stages = list(trunk.features.named_children())
        dense = [index for index, (name, _) in enumerate(stages) if name.startswith("denseblock")]
        if last_blocks is not None and last_blocks > len(dense):
            raise BaseModelError(f"[lora] last_blocks = {last_blocks}: the base model has {len(dense)}")
        self.frozen = 0 if last_blocks is None else dense[-last_blocks]

    def _stages(self) -> list[nn.Module]:
        return list(self.trunk.features.children())

    def prefix(self, images: Tensor) -> Tensor:
        """(N, 1, S, S) in [-1, 1] -> (N, C, H, W)."""
        for stage in self._stages()[: self.frozen]:
            images = stage(images)
        return images

    def forward(self, hidden: Tensor) -> Tensor:
        for stage in self._stages()[self.frozen :]:
            hidden = stage(hidden)
        logits: Tensor = self.head(self.trunk.class_layers(hidden))
        return logits

    def adaptable(self) -> list[nn.Module]:
        return self._stages()[self.frozen :]
