"""An image encoder, and a GPT-2 that looks at it by cross-attention: what transformers calls a vision encoder-decoder.

Nicolson et al. 2023 (CvT2DistilGPT2), arXiv:2201.09405. No token stands for the image, and the decoder reads the prompt as the beginning of
what it writes. How it learns beside a model of `vlm`, from nothing and by LoRA, is measured by `perf.from_scratch`.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.models._gpt2 import begin_of, refuse_other_kinds, tokens_of, with_linear
from client.models._net import Net, read_json
from client.models._writer import Chooser, Writer, Written
from client.models.vlm import PAD
from rainhill.errors import BaseModelError
from rainhill.toml import Section

Scope = Literal["decoder", "decoder+encoder"]


class EncoderDecoder(Section):
    scope: Scope = "decoder"
    """Which parts take LoRA. With `decoder` alone, what the encoder gives is computed once per image and kept."""

    def load(self, weights: Path, *, outputs: Mapping[str, str], last_blocks: int | None) -> Net:
        """config.json, safetensors, tokenizer.json, and preprocessor_config.json where the image is scaled otherwise than to [-1, 1]."""
        from transformers import AutoConfig, AutoTokenizer, VisionEncoderDecoderModel
        from transformers.utils import logging

        if outputs:
            raise BaseModelError(
                f"model 'encoder_decoder' writes reports and has no output for {', '.join(outputs)}: task 'report' is for it"
            )
        _refuse_folder(weights)
        only = {"local_files_only": True, "trust_remote_code": False}
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            refuse_other_kinds(weights, AutoConfig.from_pretrained(weights, **only))
            model, found = VisionEncoderDecoderModel.from_pretrained(
                weights, **only, use_safetensors=True, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
            )
            tokenizer = AutoTokenizer.from_pretrained(weights, **only)
        except (ValueError, OSError, ImportError) as error:
            raise BaseModelError(f"base model {weights}: {error}") from error
        _refuse_what_would_be_drawn(weights, found)
        scaling = read_json(weights / "preprocessor_config.json")
        return EncoderDecoderNet(model, tokenizer, scope=self.scope, last_blocks=last_blocks, scaling=scaling)


class EncoderDecoderNet(Writer):
    def __init__(self, model: Any, tokenizer: Any, *, scope: Scope, last_blocks: int | None, scaling: Mapping[str, Any]) -> None:
        """The model is changed, not what it computes: see `with_linear`."""
        super().__init__()
        _layers(model.encoder)
        self.tokens, self.begin = tokens_of(tokenizer, model.config), begin_of(tokenizer, model.config)
        self.model, self.tokenizer, self.head, self.scope = with_linear(model).eval(), tokenizer, nn.Identity(), scope
        if getattr(model.encoder, "pooler", None) is not None:
            model.encoder.pooler = None
        self.size, self.positions = _side(model.config.encoder), int(model.config.decoder.max_position_embeddings)
        self.last_blocks = _blocks(len(model.decoder.transformer.h), last_blocks)
        # Some encoders take the type of their images from the layer that cuts them into patches.
        patches = (layer for layer in model.encoder.modules() if isinstance(layer, nn.Conv2d))
        self.unpacked = (model.get_output_embeddings(), *patches)
        mean, std = scaling.get("image_mean", [0.5]), scaling.get("image_std", [0.5])
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.channels = int(model.config.encoder.num_channels)

    mean: Tensor
    std: Tensor

    def groups(self) -> Mapping[str, list[nn.Module]]:
        """By scope; a projection between encoder and decoder goes with the encoder."""
        parts = {"decoder": list(self.model.decoder.transformer.h)[-self.last_blocks :]}
        if self.scope == "decoder+encoder":
            parts["encoder"] = [*_layers(self.model.encoder), *filter(None, [self._between()])]
        return parts

    def adaptable(self) -> list[nn.Module]:
        return [module for part in self.groups().values() for module in part]

    def _between(self) -> nn.Module | None:
        """Where the encoder is not as wide as the decoder."""
        return getattr(self.model, "enc_to_dec_proj", None)

    def _states(self, images: Tensor) -> Tensor:
        """(N, 1, S, S) in [-1, 1] -> (N, tokens, width) that the decoder looks at."""
        if images.shape[-1] != self.size:
            images = F.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)
        pixels = (((images + 1) / 2 - self.mean) / self.std).expand(-1, self.channels, -1, -1)
        states: Tensor = self.model.encoder(pixel_values=pixels).last_hidden_state
        between = self._between()
        return states if between is None else between(states)

    def prefix(self, images: Tensor) -> Tensor:
        """(N, 1, S, S) in [-1, 1] -> (N, tokens, width) states of the encoder; the images themselves where LoRA touches it."""
        return self._states(images) if self.scope == "decoder" else images

    def _shown(self, hidden: Tensor) -> Tensor:
        return hidden if self.scope == "decoder" else self._states(hidden)

    @torch.no_grad()
    def seen(self, images: Tensor) -> Tensor:
        return self._states(images.to(self.mean.device)).mean(dim=1).float().cpu()

    def forward(self, hidden: Tensor, ids: Tensor, answers: Tensor) -> Tensor:
        """As `Writer`: K places from the one before the earliest token to write."""
        first = int(answers.int().argmax(dim=1).min())
        logits: Tensor = self.model.decoder(
            input_ids=ids.clamp(min=0),
            attention_mask=(ids >= 0).long(),
            encoder_hidden_states=self._shown(hidden),
            use_cache=False,
            logits_to_keep=ids.shape[1] - max(first - 1, 0),
        ).logits
        return logits

    def text(self, tokens: Sequence[int]) -> str:
        return self.tokens.text(tokens)

    def encode(self, prompt: str, answer: str | None, *, limit: int) -> tuple[list[int], int]:
        """Raises BaseModelError where the two may need more places than the decoder has."""
        tokens = self.tokens.prompt(prompt, self.begin)
        self._refuse_what_has_no_place(len(tokens), limit)
        return tokens + ([] if answer is None else self.tokens.answer(answer)[:limit]), len(tokens)

    @torch.no_grad()
    def write(self, hidden: Tensor, prompts: Sequence[Sequence[int]], *, limit: int, seed: int | None = None) -> list[Written]:
        self._refuse_what_has_no_place(max(map(len, prompts)), limit)
        words: list[Tensor] = []
        told: list[Tensor] = []
        going = torch.ones(len(prompts), dtype=torch.bool, device=self.mean.device)
        for logprobs, tokens in islice(self._words(self._shown(hidden.to(self.mean.device)), prompts, Chooser(seed)), limit):
            words.append(tokens)
            told.append(logprobs)
            going &= tokens != self.tokens.ends[0]
            if not going.any():
                break
        answers = [self.tokens.up_to_end(one) for one in torch.stack(words, dim=1).tolist()]
        return [
            Written(text=self.tokens.text(one), logprobs=tuple(scores[: len(one)]), ended=one[-1] in self.tokens.ends)
            for one, scores in zip(answers, torch.stack(told, dim=1).tolist(), strict=True)
        ]

    def _words(self, states: Tensor, prompts: Sequence[Sequence[int]], choose: Chooser) -> Iterator[tuple[Tensor, Tensor]]:
        """(N,) log-probability and number of the next token of each text, again and again."""
        longest = max(map(len, prompts))
        # To the left, so that all go on at the same place; a text's own places are counted from its first token.
        rows = torch.tensor([[PAD] * (longest - len(one)) + list(one) for one in prompts], device=states.device)
        ids, mask, cache = rows.clamp(min=0), (rows >= 0).long(), None
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)
        while True:
            found = self.model.decoder(
                input_ids=ids,
                attention_mask=mask,
                position_ids=places,
                encoder_hidden_states=states,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            tokens, logprobs, _ = choose(found.logits[:, -1].float())
            yield logprobs, tokens
            ids, places, cache = tokens[:, None], places[:, -1:] + 1, found.past_key_values
            mask = F.pad(mask, (0, 1), value=1)

    def _refuse_what_has_no_place(self, prompt: int, limit: int) -> None:
        if prompt + limit > self.positions:
            raise BaseModelError(
                f"a prompt of {prompt} tokens and an answer of up to {limit} ([task] max_tokens): the base model's decoder has "
                f"{self.positions} places"
            )


def _refuse_folder(weights: Path) -> None:
    if not (weights / "tokenizer.json").is_file():
        raise BaseModelError(f"base model {weights}: no tokenizer.json there, which is the one form of tokenizer that is read")
    if (weights / "adapter_config.json").is_file():
        # It would be put on top of the pinned weights, from files that are not.
        raise BaseModelError(f"base model {weights}: there is an adapter beside the weights (adapter_config.json): merge it into them")


def _refuse_what_would_be_drawn(weights: Path, found: Mapping[str, Any]) -> None:
    """At random, and differently at each site. Nothing is read from a pooler."""
    missing = sorted(name for name in found["missing_keys"] if not name.startswith("encoder.pooler."))
    if missing:
        raise BaseModelError(f"base model {weights}: no weights there for {', '.join(missing[:3])}")
    for name, held, wanted in sorted(found["mismatched_keys"]):
        raise BaseModelError(f"base model {weights}: {name}: shape {tuple(held)} is not {tuple(wanted)}")


def _layers(encoder: Any) -> list[nn.Module]:
    """Raises BaseModelError for an encoder that is not of the ViT kind (ViT, DeiT, DINOv2)."""
    found = getattr(encoder, "layers", None) or getattr(getattr(encoder, "encoder", None), "layer", None)
    if not isinstance(found, nn.ModuleList):
        raise BaseModelError(f"the base model's encoder {encoder.config.model_type!r} is not of the ViT kind (ViT, DeiT, DINOv2)")
    return list(found)


def _side(settings: Any) -> int:
    size = getattr(settings, "image_size", None)
    sides = [size, size] if isinstance(size, int) else list(size or ())
    if len(sides) != 2 or sides[0] != sides[1]:
        raise BaseModelError(f"the base model's encoder takes images of {size} pixels, which is no square")
    return int(sides[0])


def _blocks(count: int, asked: int | None) -> int:
    if asked is not None and asked > count:
        raise BaseModelError(f"[lora] last_blocks = {asked}: the base model's decoder has {count}")
    return asked or count
