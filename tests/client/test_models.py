"""Base models: pinned, split without changing what they compute, and never touched by training."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from client import models
from client.embedded import EMBEDDED
from client.training import lora
from rainhill.errors import BaseModelError, PluginError
from rainhill.recipe import BaseSection, LoraSection

OUTPUTS = {"square": "square", "new": "new"}


def load(weights: Path, *, model: str = "vit", lora_section: LoraSection | None = None, **options: Any) -> models.Net:
    section = BaseSection(model=model, weights=str(weights), sha256=models.digest(weights), **options)
    return models.load(section, lora=lora_section or LoraSection(rank=2), outputs=OUTPUTS, folder=Path())


def films(count: int = 3, size: int = 32) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (count, 1, size, size)).astype(np.float32))


@torch.no_grad()
def test_the_split_network_is_the_whole_one(tiny_base: Path) -> None:
    from transformers import ViTForImageClassification

    whole = ViTForImageClassification.from_pretrained(tiny_base, local_files_only=True).eval()(films()).logits
    for last in (None, 1, 2):
        net = load(tiny_base, lora_section=LoraSection(last_blocks=last))
        logits = net(net.prefix(films()))
        torch.testing.assert_close(logits[:, 0], whole[:, 0])
        # What the base never saw starts at zero.
        assert not logits[:, 1].any()


def test_the_embedded_base_is_the_pinned_one_and_loads() -> None:
    from rainhill.recipe import read_recipe
    from sites.cli import RECIPES

    for path in RECIPES.glob("*.toml"):
        recipe = read_recipe(path)
        assert models.digest(models.find_weights(recipe.base.weights, path.parent)) == recipe.base.sha256, path.name


@torch.no_grad()
def test_a_dinov2_encoder_loads_with_its_own_scaling_and_three_channels(tmp_path: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    encoder = Dinov2Model(
        Dinov2Config(image_size=28, patch_size=14, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    ).eval()
    encoder.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.2]}')
    net = load(tmp_path)
    net.head.weight.copy_(torch.randn_like(net.head.weight))
    gray = (films(size=28) + 1) / 2
    mean = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)
    expected = net.head(encoder((gray - mean) / 0.2).last_hidden_state[:, 0])
    torch.testing.assert_close(net(net.prefix(films(size=28))), expected)


def densenet_folder(tmp_path: Path) -> Path:
    from client.models.densenet import build

    settings = {"growth_rate": 4, "block_config": [2, 2], "init_features": 8, "groups": 4, "image_size": 32, "labels": ["square", "stripe"]}
    torch.manual_seed(0)
    tensors = {name: tensor for name, tensor in build(settings).state_dict().items() if not name.startswith("class_layers.out")}
    width = build(settings).class_layers.out.in_features
    save_file(tensors | {"classifier.weight": torch.randn(2, width), "classifier.bias": torch.randn(2)}, tmp_path / "model.safetensors")
    import json

    (tmp_path / "config.json").write_text(json.dumps(settings))
    return tmp_path


@torch.no_grad()
def test_a_densenet_keeps_no_statistics_of_what_it_sees(tmp_path: Path) -> None:
    net = load(densenet_folder(tmp_path), model="densenet", lora_section=LoraSection(last_blocks=1))
    assert not [name for name, _ in net.named_modules() if "batchnorm" in type(_).__name__.casefold()]
    assert not [name for name, _ in net.named_buffers() if "running" in name]
    hidden = net.prefix(films())
    logits = net.train()(hidden)
    torch.testing.assert_close(net.eval()(hidden), logits)
    # A film's logits do not depend on who else is in the batch.
    torch.testing.assert_close(net(net.prefix(films()[:1])), logits[:1])


def test_lora_on_a_convolution_is_two_flat_factors(tmp_path: Path) -> None:
    net = load(densenet_folder(tmp_path), model="densenet", lora_section=LoraSection(last_blocks=1))
    lora.attach(net, name=lora.SHARED, pattern="conv[12]", rank=2, alpha=4)
    adapter = lora.draw(net, name=lora.SHARED, with_head=False, seed=0)
    before = net(net.prefix(films()))
    lora.write_adapter(net, adapter, name=lora.SHARED)
    torch.testing.assert_close(net(net.prefix(films())), before)
    lora.write_adapter(net, adapter.replace({name: array + 0.1 for name, array in adapter.items()}), name=lora.SHARED)
    assert not torch.allclose(net(net.prefix(films())), before)
    assert all(pair.a.ndim == pair.b.ndim == 2 for pair in adapter.pairs().values())
    assert lora.read_adapter(net, name=lora.SHARED, with_head=False).pairs().keys() == adapter.pairs().keys()


def test_other_weights_than_the_pinned_ones_are_refused_with_both_digests(tiny_base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_bytes((tiny_base / "config.json").read_bytes())
    tensors = load_file(tiny_base / "model.safetensors")
    save_file({**tensors, "classifier.bias": tensors["classifier.bias"] + 1}, other / "model.safetensors")
    section = BaseSection(model="vit", weights=str(other), sha256=models.digest(tiny_base))
    with pytest.raises(BaseModelError, match=f"sha256 is {models.digest(other)}, the recipe pins {models.digest(tiny_base)}"):
        models.load(section, lora=LoraSection(), outputs=OUTPUTS, folder=Path())


def test_weights_that_were_cut_short_and_models_of_another_kind_are_refused_by_name(tmp_path: Path, tiny_base: Path) -> None:
    def refusal(weights: Path) -> str:
        with pytest.raises(BaseModelError) as error:
            load(weights)
        return str(error.value)

    cut = tmp_path / "cut"
    shutil.copytree(tiny_base, cut)
    (cut / "model.safetensors").write_bytes((tiny_base / "model.safetensors").read_bytes()[:-100])
    assert refusal(cut).startswith(f"base model {cut}: its safetensors cannot be read (")
    assert refusal(EMBEDDED / "draft_tiny").endswith("draft_tiny: is of kind 'llava', and model 'vit' takes an encoder of images")


def test_missing_and_misnamed_bases_are_refused(tmp_path: Path, tiny_base: Path) -> None:
    def refusal(weights: str, **changes: Any) -> str:
        section = BaseSection(**{"model": "vit", "weights": weights, "sha256": "0" * 64, **changes})
        with pytest.raises((BaseModelError, PluginError)) as error:
            models.load(section, lora=LoraSection(), outputs=OUTPUTS, folder=tmp_path)
        return str(error.value)

    assert "no embedded base model is called 'thorax'" in refusal("embedded:thorax")
    assert "no .safetensors file there" in refusal(str(tmp_path))
    assert "no folder" in refusal("not/there")
    assert "did you mean 'densenet'" in refusal(str(tiny_base), model="densnet")
    with pytest.raises(BaseModelError, match="last_blocks = 3: the base model has 2"):
        load(tiny_base, lora_section=LoraSection(last_blocks=3))
    (tmp_path / "model.safetensors").write_bytes((tiny_base / "model.safetensors").read_bytes())
    with pytest.raises(BaseModelError, match=r"config\.json: labels is missing|config\.json"):
        load(tmp_path, model="densenet")
