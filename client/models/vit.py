"""Any transformers encoder of the ViT kind (ViT, DeiT, DINOv2). Dosovitskiy et al. 2021, arXiv:2010.11929."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.models._net import Net, head_from_base, read_json
from rainhill.errors import BaseModelError
from rainhill.toml import Section


class Vit(Section):
    def load(self, weights: Path, *, outputs: Mapping[str, str], last_blocks: int | None) -> Net:
        from transformers import AutoConfig, AutoModel
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            settings = AutoConfig.from_pretrained(weights, local_files_only=True)
            if not all(hasattr(settings, name) for name in ("hidden_size", "image_size", "num_channels")):
                raise BaseModelError(
                    f"base model {weights}: is of kind {settings.model_type!r}, and model 'vit' takes an encoder of images"
                )
            encoder = AutoModel.from_pretrained(weights, local_files_only=True, dtype=torch.float32, **_without_pooler(settings, AutoModel))
        except (ValueError, OSError) as error:
            raise BaseModelError(f"base model {weights}: {error}") from error
        head = head_from_base(weights, settings.hidden_size, outputs, list((settings.id2label or {}).values()))
        return _VitNet(encoder, head, last_blocks=last_blocks, scaling=read_json(weights / "preprocessor_config.json"))


def _without_pooler(settings: Any, auto: Any) -> dict[str, bool]:
    # A pooler that the checkpoint does not hold would be drawn at random.
    encoder = auto._model_mapping[type(settings)]
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(encoder.__init__).parameters else {}


class _VitNet(Net):
    def __init__(self, encoder: nn.Module, head: nn.Linear, *, last_blocks: int | None, scaling: dict[str, Any]) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        settings: Any = encoder.config
        self.size, self.channels = int(settings.image_size), int(settings.num_channels)
        count = len(self._blocks())
        if last_blocks is not None and last_blocks > count:
            raise BaseModelError(f"[lora] last_blocks = {last_blocks}: the base model has {count}")
        self.frozen = count - (last_blocks or count)
        mean, std = scaling.get("image_mean", [0.5]), scaling.get("image_std", [0.5])
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    mean: Tensor
    std: Tensor

    def _blocks(self) -> Any:
        encoder: Any = self.encoder
        return encoder.layers if hasattr(encoder, "layers") else encoder.encoder.layer

    def prefix(self, images: Tensor) -> Tensor:
        """(N, 1, S, S) in [-1, 1] -> (N, 1 + patches, width)."""
        if images.shape[-1] != self.size:
            images = F.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)
        # mean and std are for images in [0, 1]; 0.5 and 0.5 leave ours as they are.
        scaled = ((images + 1) / 2 - self.mean) / self.std
        encoder: Any = self.encoder
        hidden: Tensor = encoder.embeddings(scaled.expand(-1, self.channels, -1, -1))
        for block in self._blocks()[: self.frozen]:
            hidden = block(hidden, None)
        return hidden

    def forward(self, hidden: Tensor) -> Tensor:
        for block in self._blocks()[self.frozen :]:
            hidden = block(hidden, None)
        encoder: Any = self.encoder
        logits: Tensor = self.head(encoder.layernorm(hidden)[:, 0])
        return logits

    def adaptable(self) -> list[nn.Module]:
        return list(self._blocks()[self.frozen :])
