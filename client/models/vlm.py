"""Vision-language models that transformers loads as image-text-to-text: LLaVA, Pixtral, Idefics3, SmolVLM, PaliGemma, Gemma3, Qwen-VL.

The image goes in as pixels of our own making, since processors of several families want torchvision; tokens stand for it as the family's
processor would write them (`_families`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from client.models._families import NAMES, Family, family_of
from client.models._net import Net, read_json
from client.models._tokens import tokens_of
from client.models._writer import Chooser, Writer, Written
from rainhill.errors import BaseModelError
from rainhill.toml import Section

Scope = Literal["language", "language+projector", "language+projector+vision"]
PAD = -100
"""Fills rows of tokens; any negative number does."""


class Vlm(Section):
    scope: Scope = "language"
    """Which parts take LoRA. With `language` alone, image features are computed once per image and kept."""
    size: int | None = Field(default=None, ge=8, le=4096)
    """Side of the square image, in pixels, for families that take any (Pixtral, Qwen-VL); the model's own where not given."""

    def load(self, weights: Path, *, outputs: Mapping[str, str], last_blocks: int | None) -> Net:
        """config.json, safetensors, tokenizer.json, and preprocessor_config.json where the image is scaled otherwise than to [-1, 1]."""
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
        from transformers.utils import logging

        if outputs:
            raise BaseModelError(f"model 'vlm' writes reports and has no output for {', '.join(outputs)}: task 'report' is for it")
        if not (weights / "tokenizer.json").is_file():
            raise BaseModelError(f"base model {weights}: no tokenizer.json there, which is the one form of tokenizer that is read")
        if (weights / "adapter_config.json").is_file():
            # It would be put on top of the pinned weights, from files that are not.
            raise BaseModelError(f"base model {weights}: there is an adapter beside the weights (adapter_config.json): merge it into them")
        only = {"local_files_only": True, "trust_remote_code": False}
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            settings = AutoConfig.from_pretrained(weights, **only)
            family = family_of(settings)
            if family is None:
                raise BaseModelError(f"base model {weights}: family {settings.model_type!r} is not one of {', '.join(NAMES)}")
            model, found = AutoModelForImageTextToText.from_pretrained(
                weights, **only, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(weights, **only)
        except (ValueError, OSError, ImportError) as error:
            raise BaseModelError(f"base model {weights}: {error}") from error
        if found["missing_keys"]:
            # They would be drawn at random, and differ from site to site.
            raise BaseModelError(f"base model {weights}: no weights there for {', '.join(sorted(found['missing_keys'])[:3])}")
        _refuse_what_is_not_read(weights, tokenizer)
        scaling = read_json(weights / "preprocessor_config.json")
        return VlmNet(model, tokenizer, family, scope=self.scope, size=self.size, last_blocks=last_blocks, scaling=scaling)


class VlmNet(Writer):
    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        family: Family,
        *,
        scope: Scope,
        size: int | None,
        last_blocks: int | None,
        scaling: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.tokens = tokens_of(tokenizer, family, model.config)
        family.prepare(model)
        # Before anything is counted or drawn: what generates reads no settings of the checkpoint's.
        self.model, self.tokenizer, self.family, self.head = _greedy(model, self.tokens.ends), tokenizer, family, nn.Identity()
        self.size, self.scope = _size_of(model.config, family, size), scope
        self.last_blocks = _blocks(len(self._language()), last_blocks)
        self.one_by_one = family.mixes and scope != "language"
        # Some families take the type of their image features from the vision tower's first layer.
        patches = (layer for layer in model.model.get_submodule(family.vision).modules() if isinstance(layer, nn.Conv2d))
        self.unpacked = (model.get_output_embeddings(), *patches)
        mean, std = scaling.get("image_mean", [0.5]), scaling.get("image_std", [0.5])
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        vision = model.config.vision_config
        self.channels = int(getattr(vision, "num_channels", None) or getattr(vision, "in_channels", None) or 3)
        features = self._features(torch.zeros(1, 1, self.size, self.size) + 0.5)
        self._listed = not isinstance(features, Tensor)
        self.tokens_of_image = len(features[0])

    mean: Tensor
    std: Tensor

    def _language(self) -> Any:
        return self.model.model.get_submodule(self.family.language)

    def groups(self) -> Mapping[str, list[nn.Module]]:
        """By scope. Raises BaseModelError where the model has no such part."""
        inner, parts = self.model.model, {"language model": list(self._language())[-self.last_blocks :]}
        if "projector" in self.scope:
            parts["projector"] = [inner.get_submodule(self.family.projector)]
        if "vision" in self.scope:
            parts["vision tower"] = [inner.get_submodule(self.family.vision)]
        return parts

    def adaptable(self) -> list[nn.Module]:
        return [module for part in self.groups().values() for module in part]

    def _scaled(self, images: Tensor) -> Tensor:
        """(N, 1, S, S) in [-1, 1] -> (N, C, S, S) as the model was trained to see them."""
        if images.shape[-1] != self.size:
            images = F.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)
        return (((images + 1) / 2 - self.mean) / self.std).expand(-1, self.channels, -1, -1)

    def _features(self, images: Tensor) -> Any:
        """(N, 1, S, S) -> N times (tokens, width), as a list or as one tensor, by family."""
        pixels = self.family.pixels(self._scaled(images), self.model.config)
        return self.model.model.get_image_features(**_on(pixels, self.mean.device), return_dict=True).pooler_output

    def prefix(self, images: Tensor) -> Tensor:
        """(N, 1, S, S) in [-1, 1] -> (N, tokens, width) features; the images themselves where LoRA touches what is before those."""
        if self.scope != "language":
            return images
        features = self._features(images)
        return torch.stack(list(features)) if self._listed else features

    @torch.no_grad()
    def seen(self, images: Tensor) -> Tensor:
        return torch.stack([one.mean(dim=0) for one in self._features(images.to(self.mean.device))]).float().cpu()

    def _given(self, hidden: Tensor, ids: Tensor, answers: Tensor) -> dict[str, Any]:
        """What the model takes for these rows, beside what is asked of it."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        features = hidden if self.scope == "language" else self._features(hidden)
        if self._listed:
            features = tuple(features)
        tokens = ids.clamp(min=0)
        return {
            "input_ids": tokens,
            "attention_mask": (ids >= 0).long(),
            "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=features)},
            **_on(self.family.extras(tokens, answers, self.size, self.model.config), ids.device),
        }

    def forward(self, hidden: Tensor, ids: Tensor, answers: Tensor) -> Tensor:
        """As `Writer`: K places from the one before the earliest token to write."""
        first = int(answers.int().argmax(dim=1).min())
        keep = ids.shape[1] - max(first - 1, 0)
        logits: Tensor = self.model(**self._given(hidden, ids, answers), logits_to_keep=keep, use_cache=False).logits
        return logits

    def text(self, tokens: Sequence[int]) -> str:
        return self.tokens.text(tokens)

    def encode(self, prompt: str, answer: str | None, *, limit: int) -> tuple[list[int], int]:
        image = self.family.placeholder(self.tokens.image, self.tokens_of_image, self.size, self.model.config)
        tokens = self.tokens.prompt(prompt, image)
        return tokens + ([] if answer is None else self.tokens.answer(answer)[:limit]), len(tokens)

    @torch.no_grad()
    def write(self, hidden: Tensor, prompts: Sequence[Sequence[int]], *, limit: int, seed: int | None = None) -> list[Written]:
        device, longest = self.mean.device, max(map(len, prompts))
        # To the left, so that all go on at the same place.
        ids = torch.tensor([[PAD] * (longest - len(one)) + list(one) for one in prompts], device=device)
        given = self._given(hidden.to(device), ids, torch.zeros_like(ids, dtype=torch.bool))
        hearing = _Hearing(Chooser(seed), self.model.config.image_token_id)
        found = self.model.generate(**given, max_new_tokens=limit, do_sample=False, logits_processor=[hearing])
        told = torch.stack(hearing.heard, dim=1).tolist()
        answers = [self.tokens.up_to_end(one) for one in found[:, longest:].tolist()]
        return [
            Written(text=self.tokens.text(one), logprobs=tuple(logprobs[: len(one)]), ended=one[-1] in self.tokens.ends)
            for one, logprobs in zip(answers, told, strict=True)
        ]


class _Hearing:
    """Keeps the log-probability of the token of each step that is taken: all logits would fill the memory.

    A class with a method of its own, since transformers inspects the signature at every step, which takes longer than a step of a small
    model where it has to parse that of a function's `__call__`.
    """

    def __init__(self, choose: Chooser, never: int) -> None:
        self.choose, self.never, self.heard = choose, never, list[Tensor]()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 - named as transformers names them
        # An image cannot be written: what would stand for one has no features.
        scores[:, self.never] = -torch.inf
        _, logprobs, ranked = self.choose(scores)
        self.heard.append(logprobs)
        return ranked


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """(N, longest), filled up to the right."""
    longest = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows], dtype=torch.int64).reshape(len(rows), longest)


def _greedy(model: Any, ends: Sequence[int]) -> Any:
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(eos_token_id=list(ends), pad_token_id=ends[0])
    return model.eval()


def _refuse_what_is_not_read(weights: Path, tokenizer: Any) -> None:
    """Settings in files that are not pinned, where the model would be used otherwise without them."""
    if "image_processor" in read_json(weights / "processor_config.json") and not (weights / "preprocessor_config.json").is_file():
        raise BaseModelError(
            f"base model {weights}: its image settings are in processor_config.json alone, and are read from preprocessor_config.json: "
            f"write what 'image_processor' has there into a file of that name"
        )
    if tokenizer.chat_template is None and (weights / "chat_template.json").is_file():
        raise BaseModelError(
            f"base model {weights}: its chat template is in chat_template.json alone, and is read from chat_template.jinja: "
            f"write what 'chat_template' has there into a file of that name"
        )


def _size_of(config: Any, family: Family, asked: int | None) -> int:
    own: int | None = getattr(config.vision_config, "image_size", None)
    if not family.resizes and asked not in (None, own):
        raise BaseModelError(f"[base] size = {asked}: the base model takes images of {own} pixels")
    size, unit = asked or own, family.unit(config)
    if size is None:
        raise BaseModelError("[base] size is missing: the base model takes images of any size, and the recipe says of which")
    if family.resizes and (size % unit or (own is not None and size > own)):
        most = "" if own is None else f" up to {own}"
        raise BaseModelError(f"[base] size = {size}: the base model takes images whose side is a multiple of {unit} pixels{most}")
    return size


def _blocks(count: int, asked: int | None) -> int:
    if asked is not None and asked > count:
        raise BaseModelError(f"[lora] last_blocks = {asked}: the base model's language model has {count}")
    return asked or count


def _on(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}
