"""A tiny model of each family of vision-language models, with random weights and a tokenizer of its own, saved as transformers saves it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

SIZE, PATCH, WIDTH = 32, 8, 32
END, BEGIN, END_OF_TURN = "</s>", "<s>", "<end_of_turn>"
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
REPORTS = (
    "The heart is enlarged. There is a small left pleural effusion. No pneumothorax.",
    "Lungs are clear. No pleural effusion. The heart is of normal size.",
    "Consolidation in the right lower lobe, in keeping with pneumonia.",
    "Indication: cough and fever.\nReport:",
)
"""What the tokenizers are trained on."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """What is known of a family from its makers' own configuration and processor, and not from the code under test."""

    build: Callable[[Any], Any]
    """A tokenizer -> a model with random weights."""
    image: str
    """The token that stands for an image."""
    around: tuple[str, ...] = ()
    begin: bool = True
    """Whether the tokenizer has a token that begins a text."""
    tokens: int
    """Features of an image of 32 pixels."""
    modules: dict[str, tuple[str, ...]]
    """The names of the layers of each part that take LoRA in these tests: language model, projector, vision tower."""
    channels: int = 3
    sizes: bool = False
    """Whether a recipe has to say of which size the images are."""


LANGUAGE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def tokenizer_of(*, image: str, around: tuple[str, ...], begin: bool) -> Any:
    """Byte-level BPE; it merges line ends, as Gemma's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=[END, BEGIN, END_OF_TURN, image, *around],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*REPORTS, *["\n\n\n"] * 20], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, bos_token=BEGIN if begin else None, extra_special_tokens={"image_token": image}
    )


def save(name: str, folder: Path) -> Path:
    """The whole folder that a recipe names, each time the same."""
    family = FAMILIES[name]
    tokenizer = tokenizer_of(image=family.image, around=family.around, begin=family.begin)
    torch.manual_seed(1)
    model = family.build(tokenizer)
    _draw(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    scaling = {"image_mean": MEAN[: family.channels], "image_std": STD[: family.channels]}
    (folder / "preprocessor_config.json").write_text(json.dumps(scaling), encoding="utf-8")
    return folder


@torch.no_grad()
def _draw(model: nn.Module) -> None:
    """Of a size at which everything matters: as transformers draws them, a text hardly depends on its image, and norms and biases do nothing."""
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            fan_in = weight.shape[0] if name.endswith("mm_input_projection_weight") else weight[0].numel()
            weight.normal_(std=fan_in**-0.5)
        else:
            weight.add_(0.1 * torch.randn(weight.shape))
    for name, weight in model.named_parameters():
        # Sure of some words, so that gradients differ in length. Gemma's norms multiply by one more than their weight.
        if name.endswith(("language_model.norm.weight", "text_model.norm.weight")):
            weight.add_(2.0)


def _llama(tokenizer: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**_text(tokenizer), num_key_value_heads=1, tie_word_embeddings=False)


def _text(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
    }


def _vision(**more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {**sizes, "image_size": SIZE, "patch_size": PATCH, **more}


def _llava(tokenizer: Any) -> Any:
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    # Of the last layer but one, as LLaVA 1.5 has it: the last one does nothing.
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**_vision(num_channels=1, num_hidden_layers=3)),
            text_config=_llama(tokenizer),
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )
    )


def _pixtral(tokenizer: Any) -> Any:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, MistralConfig, PixtralVisionConfig

    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=PixtralVisionConfig(**_vision(image_size=64)),
            text_config=MistralConfig(**_text(tokenizer), num_key_value_heads=1, head_dim=16, sliding_window=None),
            image_token_id=tokenizer.convert_tokens_to_ids("[IMG]"),
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            tie_word_embeddings=False,
        )
    )


def _idefics3(tokenizer: Any) -> Any:
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    return Idefics3ForConditionalGeneration(
        Idefics3Config(
            vision_config=_vision(),
            text_config=_llama(tokenizer),
            scale_factor=2,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        )
    )


def _smolvlm(tokenizer: Any) -> Any:
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    return SmolVLMForConditionalGeneration(
        SmolVLMConfig(
            vision_config=_vision(),
            text_config=_llama(tokenizer),
            scale_factor=2,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        )
    )


def _siglip() -> Any:
    from transformers import SiglipVisionConfig

    return SiglipVisionConfig(**_vision(vision_use_head=False, projection_dim=WIDTH))


def _paligemma(tokenizer: Any) -> Any:
    from transformers import GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration

    return PaliGemmaForConditionalGeneration(
        PaliGemmaConfig(
            vision_config=_siglip(),
            text_config=GemmaConfig(**_text(tokenizer), num_key_value_heads=1, head_dim=16),
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            projection_dim=WIDTH,
            hidden_size=WIDTH,
        )
    )


def _gemma3(tokenizer: Any) -> Any:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig

    # A window shorter than a text: one layer sees all of it, the other does not.
    text = Gemma3TextConfig(
        **_text(tokenizer),
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=12,
        layer_types=["sliding_attention", "full_attention"],
    )
    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            vision_config=_siglip(),
            text_config=text,
            mm_tokens_per_image=4,
            image_token_id=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
            boi_token_id=tokenizer.convert_tokens_to_ids("<start_of_image>"),
            eoi_token_id=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        )
    )


def _qwen(tokenizer: Any) -> dict[str, Any]:
    return {
        "text_config": {
            **_text(tokenizer),
            "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        },
        "image_token_id": tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        "video_token_id": tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        "vision_start_token_id": tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        "tie_word_embeddings": True,
    }


def _qwen2_vl(tokenizer: Any) -> Any:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    vision = {"depth": 2, "embed_dim": WIDTH, "hidden_size": WIDTH, "num_heads": 2, "mlp_ratio": 2, "patch_size": PATCH}
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(vision_config=vision, **_qwen(tokenizer)))


def _qwen2_5_vl(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    # Two windows in an image, and one block that sees all of it.
    vision = {
        "depth": 2,
        "hidden_size": WIDTH,
        "out_hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_heads": 2,
        "patch_size": PATCH,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(vision_config=vision, **_qwen(tokenizer)))


_SIGLIP = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
_FAKE = ("<fake_token_around_image>", "<global-img>")
_CONNECTOR = {"language model": LANGUAGE, "projector": ("proj",), "vision tower": _SIGLIP}
_PAIR = ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
FAMILIES: dict[str, Built] = {
    "llava": Built(
        build=_llava,
        image="<image>",
        tokens=16,
        channels=1,
        modules={"language model": LANGUAGE, "projector": ("linear_1", "linear_2"), "vision tower": _SIGLIP},
    ),
    "pixtral": Built(
        build=_pixtral,
        image="[IMG]",
        around=("[IMG_BREAK]", "[IMG_END]"),
        tokens=16,
        modules={"language model": LANGUAGE, "projector": ("linear_1", "linear_2"), "vision tower": LANGUAGE},
    ),
    "idefics3": Built(build=_idefics3, image="<image>", around=_FAKE, tokens=4, modules=_CONNECTOR),
    "smolvlm": Built(build=_smolvlm, image="<image>", around=_FAKE, tokens=4, modules=_CONNECTOR),
    "paligemma": Built(
        build=_paligemma,
        image="<image>",
        tokens=16,
        modules={"language model": LANGUAGE, "projector": ("linear",), "vision tower": _SIGLIP},
    ),
    "gemma3": Built(
        build=_gemma3,
        image="<image_soft_token>",
        around=("<start_of_image>", "<end_of_image>"),
        tokens=4,
        modules={"language model": LANGUAGE, "projector": ("linear",), "vision tower": _SIGLIP},
    ),
    "qwen2_vl": Built(
        build=_qwen2_vl,
        image="<|image_pad|>",
        around=_PAIR,
        begin=False,
        tokens=4,
        sizes=True,
        modules={"language model": LANGUAGE, "projector": ("0", "2"), "vision tower": ("qkv", "proj", "fc1", "fc2")},
    ),
    "qwen2_5_vl": Built(
        build=_qwen2_5_vl,
        image="<|image_pad|>",
        around=_PAIR,
        begin=False,
        tokens=4,
        sizes=True,
        modules={"language model": LANGUAGE, "projector": ("0", "2"), "vision tower": ("qkv", "proj", "gate_proj", "up_proj", "down_proj")},
    ),
}


def pixels_of(name: str, films: list[Any]) -> dict[str, torch.Tensor]:
    """8-bit RGB images -> what the model takes, by the family's own image processor, which does nothing but scale them."""
    import transformers as by

    asked = {"image_mean": list(MEAN), "image_std": list(STD), "do_resize": False}
    if name == "pixtral":
        made = by.PixtralImageProcessorPil(patch_size=PATCH, **asked)(films, return_tensors="pt")
    elif name in ("idefics3", "smolvlm"):
        kind = by.Idefics3ImageProcessorPil if name == "idefics3" else by.SmolVLMImageProcessorPil
        one = kind(do_image_splitting=False, max_image_size={"longest_edge": SIZE}, **asked)
        made = one([[film] for film in films], return_tensors="pt")
    elif name in ("paligemma", "gemma3"):
        made = by.SiglipImageProcessorPil(**asked)(films, return_tensors="pt")
    elif name in ("qwen2_vl", "qwen2_5_vl"):
        made = by.Qwen2VLImageProcessorPil(patch_size=PATCH, min_pixels=1, max_pixels=10**6, **asked)(films, return_tensors="pt")
    else:
        made = by.CLIPImageProcessorPil(do_center_crop=False, **asked)(films, return_tensors="pt")
        made["pixel_values"] = made["pixel_values"][:, : FAMILIES[name].channels]
    return dict(made)


def prompt_of(name: str, tokenizer: Any, film: Any, prompt: str) -> list[int]:
    """The tokens of an image and a prompt, by the family's own processor, or by that part of it which runs without torchvision."""
    import transformers as by

    family = FAMILIES[name]
    begin = BEGIN if family.begin else ""
    if name == "llava":
        processor: Any = by.LlavaProcessor(
            by.CLIPImageProcessorPil(do_center_crop=False, do_resize=False),
            tokenizer,
            patch_size=PATCH,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        )
        return _ids(processor(images=film, text=f"{begin}<image>\n{prompt}\n"))
    if name in ("idefics3", "smolvlm"):
        one = by.Idefics3ImageProcessorPil(do_image_splitting=False, do_resize=False, max_image_size={"longest_edge": SIZE})
        return _ids(by.Idefics3Processor(one, tokenizer, image_seq_len=4)(images=film, text=f"{begin}<image>\n{prompt}\n"))
    if name == "paligemma":
        scaler = by.SiglipImageProcessorPil(do_resize=False)
        scaler.image_seq_length = 16
        return _ids(by.PaliGemmaProcessor(scaler, tokenizer)(images=film, text=f"<image>{prompt}"))
    if name == "gemma3":
        tokenizer.boi_token, tokenizer.eoi_token = family.around
        tokenizer.boi_token_id = tokenizer.convert_tokens_to_ids(family.around[0])
        scaler = by.Gemma3ImageProcessorPil(do_resize=False)
        processor = by.Gemma3Processor(scaler, tokenizer, image_seq_length=4)
        return _ids(processor(images=film, text=f"{begin}<start_of_image>\n{prompt}\n"))
    if name == "pixtral":
        # Its processor's module does not import without torchvision. Four rows of four, as it writes them.
        image = "[IMG_BREAK]".join(["[IMG]" * 4] * 4) + "[IMG_END]"
        return list(tokenizer.encode(f"{begin}{image}\n{prompt}\n", add_special_tokens=False))
    part = SimpleNamespace(image_token=family.image, image_processor=by.Qwen2VLImageProcessorPil(patch_size=PATCH))
    kind = by.Qwen2VLProcessor if name == "qwen2_vl" else by.Qwen2_5_VLProcessor
    image = kind.replace_image_token(part, {"image_grid_thw": np.array([[1, 4, 4]])}, 0)
    return list(tokenizer.encode(f"<|vision_start|>{image}<|vision_end|>\n{prompt}\n", add_special_tokens=False))


def _ids(made: Any) -> list[int]:
    (ids,) = made["input_ids"]
    return [int(token) for token in ids]
