"""What one family of vision-language models wants: how an image goes in, which tokens stand for it, and what else its forward pass takes.

Placeholders as each family's own processor writes them (transformers 5.23); an image is one tile, never cut into several.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Extras = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Family:
    """LLaVA's ways; the others differ in some. Liu et al. 2023, arXiv:2304.08485."""

    language: str = "language_model.layers"
    projector: str = "multi_modal_projector"
    vision: str = "vision_tower"
    """Where in the inner model each scope of LoRA lies."""
    marker: str = "<image>"
    """What a chat template writes for an image."""
    tokens: tuple[str, ...] = ()
    """What is written around an image besides the token that its features replace."""
    mixes: bool = False
    """Whether vision layers see the patches of all images of a batch as one row, so that they do not lie apart there."""
    resizes: bool = False
    """Whether it takes images of any size."""

    def prepare(self, model: Any) -> None:
        """Changes the model, not what it computes, where LoRA could not sit on it otherwise."""

    def unit(self, config: Any) -> int:
        """The side of an image is a multiple of so many pixels, where it may be of any size."""
        return int(config.vision_config.patch_size)

    def pixels(self, images: Tensor, config: Any) -> Extras:  # noqa: ARG002 - some families need it
        """(N, C, S, S), scaled -> what `get_image_features` takes."""
        return {"pixel_values": images}

    def placeholder(self, image: str, count: int, size: int, config: Any) -> str:  # noqa: ARG002
        """What stands for an image of `size` pixels, with the token `image` in place of each of its `count` features."""
        return image * count

    def plain(self, begin: str, image: str, prompt: str) -> str:
        """What is read where no chat template says it; `begin` is the token that begins a text, if there is one."""
        return f"{begin}{image}\n{prompt}\n"

    def extras(self, ids: Tensor, answers: Tensor, size: int, config: Any) -> Extras:  # noqa: ARG002
        """What the language model takes beside (N, T) tokens; `answers` marks those that it is to write."""
        return {}


class Pixtral(Family):
    """Agrawal et al. 2024, arXiv:2410.07073: a token at the end of each row of patches."""

    def pixels(self, images: Tensor, config: Any) -> Extras:  # noqa: ARG002
        side = images.shape[-1]
        return {"pixel_values": images, "image_sizes": torch.tensor([[side, side]] * len(images))}

    def placeholder(self, image: str, count: int, size: int, config: Any) -> str:
        columns = size // self.unit(config)
        rows = [image * columns] * (count // columns)
        return "[IMG_BREAK]".join(rows) + "[IMG_END]"


class Idefics3(Family):
    """Laurençon et al. 2024, arXiv:2408.12637; SmolVLM: Marafioti et al. 2025, arXiv:2504.05299."""

    def pixels(self, images: Tensor, config: Any) -> Extras:  # noqa: ARG002
        # An image of zeros would be taken for one that fills up a batch, and left out.
        blank = (images == 0).all(dim=(1, 2, 3), keepdim=True)
        return {"pixel_values": (images + 1e-6 * blank)[:, None]}

    def placeholder(self, image: str, count: int, size: int, config: Any) -> str:  # noqa: ARG002
        return f"<fake_token_around_image><global-img>{image * count}<fake_token_around_image>"


class PaliGemma(Family):
    """Beyer et al. 2024, arXiv:2407.07726: what is given is read in both directions, what is written in one."""

    def plain(self, begin: str, image: str, prompt: str) -> str:
        return f"{image}{begin}{prompt}\n"

    def extras(self, ids: Tensor, answers: Tensor, size: int, config: Any) -> Extras:  # noqa: ARG002
        return {"token_type_ids": answers.long()}


class Gemma3(Family):
    """Gemma Team 2025, arXiv:2503.19786; MedGemma has the same architecture. An image is read in both directions."""

    def prepare(self, model: Any) -> None:
        model.model.multi_modal_projector = GemmaProjector(model.model.multi_modal_projector)

    def placeholder(self, image: str, count: int, size: int, config: Any) -> str:  # noqa: ARG002
        return f"\n\n<start_of_image>{image * count}<end_of_image>\n\n"

    def extras(self, ids: Tensor, answers: Tensor, size: int, config: Any) -> Extras:  # noqa: ARG002
        return {"token_type_ids": (ids == image_token(config)).long()}


class GemmaProjector(nn.Module):
    """Gemma3's projector, whose weight is no layer there, with a linear layer in its place: LoRA sits on layers."""

    def __init__(self, old: Any) -> None:
        super().__init__()
        self.side: int = old.patches_per_image
        self.pool, self.norm = old.avg_pool, old.mm_soft_emb_norm
        width, to = old.mm_input_projection_weight.shape
        self.linear = nn.Linear(width, to, bias=False)
        self.linear.weight = nn.Parameter(old.mm_input_projection_weight.detach().T.contiguous())

    def forward(self, states: Tensor) -> Tensor:
        """(N, patches, width) -> (N, tokens, width of the language model)"""
        pooled = self.pool(states.transpose(1, 2).reshape(len(states), -1, self.side, self.side))
        projected: Tensor = self.linear(self.norm(pooled.flatten(2).transpose(1, 2)))
        return projected


class Qwen(Family):
    """Wang et al. 2024, arXiv:2409.12191: patches of all images in one row, rotary positions in three dimensions."""

    def unit(self, config: Any) -> int:
        return int(config.vision_config.patch_size * config.vision_config.spatial_merge_size)

    def pixels(self, images: Tensor, config: Any) -> Extras:
        vision = config.vision_config
        patch, merge, times = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
        n, channels, side, _ = images.shape
        grid = side // patch
        cells = images.reshape(n, channels, grid // merge, merge, patch, grid // merge, merge, patch)
        # Of each patch all that is in it, with its neighbours of the same merged patch next to it; a still image is shown `times` times.
        rows = cells.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(n * grid * grid, channels, 1, patch, patch)
        pixels = rows.expand(-1, -1, times, -1, -1).reshape(n * grid * grid, -1)
        return {"pixel_values": pixels, "image_grid_thw": self._grid(n, side, config)}

    def placeholder(self, image: str, count: int, size: int, config: Any) -> str:  # noqa: ARG002
        return f"<|vision_start|>{image * count}<|vision_end|>"

    def extras(self, ids: Tensor, answers: Tensor, size: int, config: Any) -> Extras:  # noqa: ARG002
        return {"image_grid_thw": self._grid(len(ids), size, config), "mm_token_type_ids": (ids == image_token(config)).int()}

    def _grid(self, n: int, side: int, config: Any) -> Tensor:
        grid = side // config.vision_config.patch_size
        return torch.tensor([[1, grid, grid]] * n)


def image_token(config: Any) -> int:
    return int(config.image_token_id)


_QWEN = Qwen(
    vision="visual.blocks",
    projector="visual.merger",
    marker="<|vision_start|><|image_pad|><|vision_end|>",
    tokens=("<|vision_start|>", "<|vision_end|>"),
    mixes=True,
    resizes=True,
)
_IDEFICS = Idefics3(language="text_model.layers", projector="connector", vision="vision_model", tokens=("<fake_token_around_image>",))
_FAMILIES: Mapping[str, Family] = {
    "llava": Family(),
    "pixtral": Pixtral(marker="[IMG]", tokens=("[IMG_BREAK]", "[IMG_END]"), mixes=True, resizes=True),
    "idefics3": _IDEFICS,
    "smolvlm": _IDEFICS,
    "paligemma": PaliGemma(),
    "gemma3": Gemma3(marker="<start_of_image>", tokens=("<start_of_image>", "<end_of_image>")),
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
}
NAMES = tuple(sorted(_FAMILIES))


def family_of(config: Any) -> Family | None:
    """By the checkpoint's own config; None for a family that nothing is known of."""
    if config.model_type == "llava" and config.vision_config.model_type == "pixtral":
        return _FAMILIES["pixtral"]
    return _FAMILIES.get(config.model_type)
