"""What is GPT-2's own in an encoder-decoder: its layers, its texts, and which checkpoints hold one. Radford et al. 2019."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from client.models._families import Family
from client.models._tokens import Tokens
from rainhill.errors import BaseModelError


class Beside(Family):
    """No token stands for the image, at which the decoder looks beside the text: in its place is the token that begins a text."""

    def plain(self, begin: str, image: str, prompt: str) -> str:  # noqa: ARG002
        return f"{image}{prompt}\n"


@torch.no_grad()
def with_linear(model: Any) -> Any:
    """The same model in which every Conv1D of GPT-2, a linear layer whose weight lies on its side, is an nn.Linear of the same name.

    So it takes LoRA and has per-image gradients as any layer, and the decoder keeps the architecture of GPT-2's checkpoints.
    """
    from transformers.pytorch_utils import Conv1D

    for path, old in list(model.named_modules()):
        if isinstance(old, Conv1D):
            new = nn.Linear(old.nx, old.nf, device="meta")
            new.weight, new.bias = nn.Parameter(old.weight.T.contiguous()), old.bias
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, new)
    return model


def refuse_other_kinds(weights: Path, settings: Any) -> None:
    if settings.model_type != "vision-encoder-decoder":
        raise BaseModelError(f"base model {weights}: {settings.model_type!r} is not 'vision-encoder-decoder'")
    if settings.decoder.model_type != "gpt2":
        raise BaseModelError(f"base model {weights}: its decoder is {settings.decoder.model_type!r}, and is read where it is 'gpt2'")
    if not settings.decoder.add_cross_attention:
        raise BaseModelError(f"base model {weights}: add_cross_attention is false in its decoder, which would see no image")


def tokens_of(tokenizer: Any, config: Any) -> Tokens:
    """Raises BaseModelError for a tokenizer that does not go with the decoder."""
    if tokenizer.eos_token_id is None:
        raise BaseModelError("the base model's tokenizer has no token that ends a text")
    if tokenizer.chat_template is not None:
        raise BaseModelError("the base model has a chat template, and its decoder reads no conversation: take it out of the folder")
    if len(tokenizer) > config.decoder.vocab_size:
        raise BaseModelError(f"the base model's tokenizer has {len(tokenizer)} tokens, and its decoder {config.decoder.vocab_size}")
    # Nobody can type it, and neither stands for an image.
    return Tokens(tokenizer=tokenizer, family=Beside(), image=str(tokenizer.eos_token), ends=(int(tokenizer.eos_token_id),))


def begin_of(tokenizer: Any, config: Any) -> str:
    """The token by which the checkpoint's decoder was taught to begin, if there is one."""
    start = getattr(config, "decoder_start_token_id", None)
    return str(tokenizer.convert_ids_to_tokens(start)) if start is not None else tokenizer.bos_token or ""
