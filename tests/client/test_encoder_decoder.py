"""An image encoder with a GPT-2, held against transformers' own forward pass: two encoders, one of which is wider than its decoder."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import copytree
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from client import models
from client.models.encoder_decoder import EncoderDecoderNet, Scope
from client.models.vlm import padded
from client.tasks.report import Report
from client.training import lora
from client.training.clipping import clipped_sum
from client.training.features import Features
from client.training.fit import fit
from rainhill.adapter import Adapter
from rainhill.errors import BaseModelError
from rainhill.recipe import BaseSection, FitSection, LoraSection
from tests.client.vlm_families import END, PATCH, REPORTS, SIZE, WIDTH, tokenizer_of

TASK = Report(max_tokens=20)
SCOPES: tuple[Scope, ...] = get_args(Scope)
BOTH = SCOPES[-1]
KINDS = ("vit", "dinov2")
PROMPTS = ("Report:", "Indication: cough and fever.\nReport:")
PLACES = 128
MEAN, STD = 0.4, 0.3
DECODER = ("c_attn", "q_attn", "c_proj", "c_fc")
ENCODER = {
    "vit": ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"),
    "dinov2": ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2", "enc_to_dec_proj"),
}
Folders = Callable[[str], Path]
Nets = Callable[[str], EncoderDecoderNet]

each_kind = pytest.mark.parametrize("kind", KINDS)
each_scope = pytest.mark.parametrize("scope", SCOPES)


def built(kind: str, tokenizer: Any, *, seed: int = 1, layers: int = 2) -> Any:
    """As transformers draws it."""
    from transformers import Dinov2Config, GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

    torch.manual_seed(seed)
    width = WIDTH if kind == "vit" else WIDTH + 16
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "image_size": SIZE, "patch_size": PATCH}
    see = ViTConfig(**sizes, intermediate_size=48, num_channels=1) if kind == "vit" else Dinov2Config(**sizes, mlp_ratio=2)
    say = GPT2Config(vocab_size=len(tokenizer), n_positions=PLACES, n_embd=WIDTH, n_layer=layers, n_head=2, n_inner=48,
                     bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)  # fmt: skip
    return VisionEncoderDecoderModel(VisionEncoderDecoderConfig.from_encoder_decoder_configs(see, say))


@torch.no_grad()
def save(kind: str, folder: Path) -> Path:
    """Weights of a size at which everything matters: as transformers draws them, a text hardly depends on its image."""
    tokenizer = tokenizer_of(image="<image>", around=(), begin=True)
    model = built(kind, tokenizer)
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            lies = "decoder." in name and name.endswith("weight") and "wte" not in name and "wpe" not in name
            weight.normal_(std=(weight.shape[0] if lies else weight[0].numel()) ** -0.5)
        else:
            weight.add_(0.1 * torch.randn(weight.shape))
    # Sure of some words, so that gradients differ in length.
    model.decoder.transformer.ln_f.weight.add_(2.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    channels = model.config.encoder.num_channels
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [MEAN] * channels, "image_std": [STD] * channels}))
    return folder


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("encoder_decoder")
    return cache(lambda kind: save(kind, root / kind))


@pytest.fixture(scope="session")
def net_of(folder_of: Folders) -> Nets:
    """Without LoRA, for tests that change nothing in it."""
    return cache(lambda kind: opened(folder_of(kind)))


def opened(folder: Path, *, scope: Scope = "decoder", last_blocks: int | None = None) -> EncoderDecoderNet:
    base = BaseSection(model="encoder_decoder", weights=str(folder), sha256=models.digest(folder), scope=scope)
    net = models.load(base, lora=LoraSection(last_blocks=last_blocks), outputs={}, folder=folder)
    assert isinstance(net, EncoderDecoderNet)
    return net


def pattern_of(kind: str, scope: Scope) -> str:
    return "|".join(DECODER if scope == "decoder" else DECODER + ENCODER[kind])


def adapted(kind: str, folder: Path, *, scope: Scope, size: float = 0.1) -> EncoderDecoderNet:
    """With LoRA on every part of the scope, both factors away from zero."""
    net = opened(folder, scope=scope)
    lora.attach(net, name=lora.SHARED, pattern=pattern_of(kind, scope), rank=2, alpha=4)
    drawn, rng = lora.draw(net, name=lora.SHARED, with_head=False, seed=0), np.random.default_rng(0)
    moved = {key: array + size * rng.normal(size=array.shape).astype(np.float32) for key, array in drawn.items()}
    lora.write_adapter(net, Adapter(moved), name=lora.SHARED)
    return net


def films(count: int, *, seed: int = 0) -> Tensor:
    """(N, 1, 32, 32) in [-1, 1]"""
    return torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def logits_of(model: Any, film: Tensor, ids: Sequence[int]) -> Tensor:
    """(T, V) by transformers' own forward pass, of one film and one row without padding."""
    channels = model.config.encoder.num_channels
    pixels = ((film + 1) / 2 - MEAN) / STD
    logits: Tensor = model(
        pixel_values=pixels[None].expand(-1, channels, -1, -1), decoder_input_ids=torch.tensor([ids]), use_cache=False
    ).logits
    return logits[0]


def features_of(net: EncoderDecoderNet, images: Tensor, reports: Sequence[str | None], owners: Sequence[int]) -> Features:
    """As the task makes them, with two prompts in turn; a report of None is of an image that has none."""
    rows = [net.encode(PROMPTS[place % 2], report, limit=TASK.max_tokens) for place, report in enumerate(reports)]
    ids = padded([tokens for tokens, _ in rows])
    targets = ids.clone()
    for row, (_, begin) in zip(targets, rows, strict=True):
        row[:begin] = -100
    with torch.no_grad():
        hidden = net.prefix(images)
    return Features(hidden, targets, np.asarray(owners), given=ids, texts=[report or "" for report in reports])


@each_kind
def test_a_text_is_the_token_that_begins_one_the_prompt_a_line_end_the_report_and_the_end(net_of: Nets, kind: str) -> None:
    net = net_of(kind)
    tokens, begin = net.encode(PROMPTS[1], REPORTS[0], limit=64)
    assert net.tokenizer.decode(tokens[:begin]) == f"<s>{PROMPTS[1]}\n"
    assert net.tokenizer.decode(tokens[begin:]) == f"{REPORTS[0]}{END}"
    assert net.encode(PROMPTS[1], None, limit=64) == (tokens[:begin], begin)
    assert net.encode(PROMPTS[1], REPORTS[0], limit=3) == (tokens[: begin + 3], begin)
    typed, start = net.encode("a </s><s> b", "c </s> d", limit=64)
    assert typed.count(net.tokenizer.eos_token_id) == typed.count(net.tokenizer.bos_token_id) == 1 and start < len(typed)


@torch.no_grad()
@each_kind
@each_scope
def test_logits_are_those_of_transformers_own_forward_pass(folder_of: Folders, kind: str, scope: Scope) -> None:
    from transformers import VisionEncoderDecoderModel

    plain = VisionEncoderDecoderModel.from_pretrained(folder_of(kind), local_files_only=True).eval()
    net, images = opened(folder_of(kind), scope=scope), films(2)
    rows = [net.encode(prompt, report, limit=64) for prompt, report in zip(PROMPTS, REPORTS, strict=False)]
    ids = padded([tokens for tokens, _ in rows])
    answers = torch.stack([(torch.arange(ids.shape[1]) >= begin) & (row >= 0) for row, (_, begin) in zip(ids, rows, strict=True)])
    hidden = net.prefix(images)
    assert hidden.shape == ((2, (SIZE // PATCH) ** 2 + 1, WIDTH) if scope == "decoder" else images.shape)
    got = net(hidden, ids, answers)
    offset = ids.shape[1] - got.shape[1]
    assert offset == min(begin for _, begin in rows) - 1
    for values, film, (tokens, begin) in zip(got, images, rows, strict=True):
        expected = logits_of(plain, film, tokens)
        assert expected.std() > 0.5
        torch.testing.assert_close(values[begin - 1 - offset : len(tokens) - offset], expected[begin - 1 :], rtol=1e-5, atol=1e-5)
    first, second = net(hidden, padded([rows[0][0]] * 2), answers[:1, : len(rows[0][0])].expand(2, -1))
    assert (first - second).abs().max() > 0.1, "another film should say something else"


@torch.no_grad()
@each_kind
def test_a_batch_gives_what_its_rows_give_one_by_one(folder_of: Folders, kind: str) -> None:
    net = adapted(kind, folder_of(kind), scope=BOTH)
    features = features_of(net, films(4), [*REPORTS[:3], None], range(4))
    together = TASK.losses(net, features, torch.arange(4))
    alone = torch.cat([TASK.losses(net, features, torch.tensor([row])) for row in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert together[3] == 0 and (together[:3] > 0.1).all()
    prompts = [net.encode(prompt, None, limit=8)[0] for prompt in PROMPTS * 2]
    drafts = net.write(features.hidden, prompts, limit=8)
    one_by_one = [net.write(features.hidden[row : row + 1], prompts[row : row + 1], limit=8)[0] for row in range(4)]
    assert [draft.text for draft in drafts] == [draft.text for draft in one_by_one]
    for draft, own in zip(drafts, one_by_one, strict=True):
        np.testing.assert_allclose(draft.logprobs, own.logprobs, rtol=1e-4, atol=1e-4)


@each_kind
@each_scope
def test_lora_sits_on_the_layers_that_the_scope_names_and_on_no_other(folder_of: Folders, kind: str, scope: Scope) -> None:
    net = opened(folder_of(kind), scope=scope)
    took = lora.attach(net, name=lora.SHARED, pattern=pattern_of(kind, BOTH), rank=2, alpha=4)
    assert {path for path, _ in lora.layers(net)} == set(took)
    decoder = [path for path in took if path.startswith("model.decoder.transformer.h.")]
    # Self-attention, cross-attention and the MLP of both blocks.
    assert len(decoder) == 2 * (2 + 3 + 2)
    assert {path.rpartition(".")[2] for path in decoder} == set(DECODER)
    others = {path.rpartition(".")[2] for path in set(took) - set(decoder)}
    assert others == (set(ENCODER[kind]) if scope == BOTH else set())


def test_only_the_last_blocks_of_the_decoder_take_lora_where_so_many_are_asked_for(folder_of: Folders) -> None:
    net = opened(folder_of("vit"), last_blocks=1)
    assert lora.attach(net, name=lora.SHARED, pattern="q_attn", rank=2, alpha=4) == ["model.decoder.transformer.h.1.crossattention.q_attn"]
    with pytest.raises(BaseModelError, match=r"last_blocks = 3: the base model's decoder has 2"):
        opened(folder_of("vit"), last_blocks=3)
    both = opened(folder_of("vit"), scope=BOTH)
    with pytest.raises(BaseModelError, match=r"'c_fc' matches no layer of the base model in its encoder, which has: .*fc1"):
        lora.attach(both, name=lora.SHARED, pattern="c_fc", rank=2, alpha=4)


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The oracle: plain autograd through transformers' own forward pass, one image at a time, and the mean over each patient's."""

    gradients: list[dict[str, Tensor]]
    losses: list[float]

    def clipped_sum(self, most: float) -> dict[str, Tensor]:
        scaled = [{key: min(1.0, most / length(each)) * one for key, one in each.items()} for each in self.gradients]
        return {key: torch.stack([one[key] for one in scaled]).sum(dim=0) for key in scaled[0]}


def by_loop(net: EncoderDecoderNet, features: Features, images: Tensor, parameters: dict[str, nn.Parameter]) -> Loop:
    gradients, losses = [], []
    assert features.given is not None
    for own in features.images_of:
        mean, loss = {key: torch.zeros(one.shape, dtype=torch.float64) for key, one in parameters.items()}, 0.0
        for row in own:
            ids = [token for token in features.given[row].tolist() if token >= 0]
            begin = len(ids) - int((features.targets[row] >= 0).sum())
            logits = logits_of(net.model, images[row], ids)
            one = cross_entropy(logits[begin - 1 : -1], torch.tensor(ids[begin:])) if begin < len(ids) else logits.sum() * 0
            found = torch.autograd.grad(one, list(parameters.values()), allow_unused=True)
            loss += float(one.detach()) / len(own)
            for key, gradient in zip(mean, found, strict=True):
                mean[key] += 0 if gradient is None else gradient.double() / len(own)
        gradients.append(mean)
        losses.append(loss)
    return Loop(gradients=gradients, losses=losses)


def length(gradients: dict[str, Tensor]) -> float:
    return float(torch.cat([one.flatten() for one in gradients.values()]).norm())


def check_private_step(net: EncoderDecoderNet, *, off: float) -> None:
    """Of five patients with one to three images, of some of which there is no report, or one of a single letter."""
    owners = [0, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    images = films(len(owners), seed=3)
    features = features_of(net, images, [REPORTS[2], *REPORTS[:3], "x", REPORTS[0], REPORTS[1], None, None, "?"], owners)
    parameters = lora.trainable(net, name=lora.SHARED, with_head=True, with_norms=True)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    loop = by_loop(net, features, images, parameters)
    norms = [length(one) for one in loop.gradients]
    bound = float(np.median(norms))
    assert max(norms) > 2 * min(norms) and min(norms) < 0.9 * bound < 1.1 * bound < max(norms), "the bound should cut some and leave some"
    expected = loop.clipped_sum(bound)
    got, told = clipped_sum(net, TASK, features, features.images_of, parameters=parameters, max_grad_norm=bound)
    assert length({key: got[key] - expected[key] for key in got}) <= off * length(expected)
    np.testing.assert_allclose(told, loop.losses, rtol=off, atol=1e-6)
    for part in ("decoder", "encoder")[: 1 + (net.scope == BOTH)]:
        own = {key: one for key, one in got.items() if f"model.{part}." in key}
        assert length(own) > 1e-4 * length(got), f"the {part} stands aside"


@each_kind
@each_scope
def test_a_private_step_is_that_of_a_loop_over_patients_and_images(folder_of: Folders, kind: str, scope: Scope) -> None:
    net = adapted(kind, folder_of(kind), scope=scope)
    assert not net.one_by_one and net.base_norms
    check_private_step(net, off=1e-5)


def test_a_private_step_over_a_base_of_fewer_bits_is_that_of_a_loop_over_the_same_base(folder_of: Folders) -> None:
    net = adapted("vit", folder_of("vit"), scope=BOTH)
    models.place(net, device="cpu", precision="bfloat16")
    assert {layer.get_base_layer().weight.dtype for _, layer in lora.layers(net)} == {torch.bfloat16}
    assert net.model.decoder.lm_head.weight.dtype == net.model.get_input_embeddings().weight.dtype == torch.float32
    check_private_step(net, off=3e-2)


def base_of(net: EncoderDecoderNet) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in net.state_dict().items() if ".lora_" not in key}


def test_training_lowers_the_loss_leaves_the_base_alone_and_lives_in_the_adapter_alone(folder_of: Folders) -> None:
    net = adapted("vit", folder_of("vit"), scope=BOTH, size=0.0)
    features = features_of(net, films(4), [*REPORTS[:3], REPORTS[0]], range(4))
    before, rows = base_of(net), torch.arange(4)
    with torch.no_grad():
        at_first = TASK.losses(net, features, rows).mean()
    parameters = lora.trainable(net, name=lora.SHARED, with_head=False)
    fit(net, features, TASK, FitSection(steps=8, patients_per_step=4, learning_rate=2e-2), parameters=parameters, seed=(0,))
    with torch.no_grad():
        at_last = TASK.losses(net, features, rows)
    assert at_last.mean() < 0.75 * at_first
    after = base_of(net)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    carried = lora.read_adapter(net, name=lora.SHARED, with_head=True).to_bytes()
    again = adapted("vit", folder_of("vit"), scope=BOTH)
    lora.write_adapter(again, Adapter.from_bytes(carried), name=lora.SHARED)
    with torch.no_grad():
        assert torch.equal(TASK.losses(again, features, rows), at_last)
    assert TASK.drafts(again, features, range(4)) == TASK.drafts(net, features, range(4))


@torch.no_grad()
def by_words(net: EncoderDecoderNet, film: Tensor, prompt: Sequence[int], limit: int) -> tuple[list[int], list[float]]:
    """The oracle: the whole text through transformers' own forward pass for each further token; no cache, no states kept."""
    tokens, scores = list(prompt), []
    while len(tokens) < len(prompt) + limit:
        logprobs = logits_of(net.model, film, tokens)[-1].log_softmax(dim=0)
        tokens.append(int(logprobs.argmax()))
        scores.append(float(logprobs[tokens[-1]]))
        if tokens[-1] == net.tokenizer.eos_token_id:
            break
    return tokens[len(prompt) :], scores


@each_kind
@each_scope
def test_a_draft_is_that_of_a_loop_over_words_without_a_cache(folder_of: Folders, kind: str, scope: Scope) -> None:
    net, images = adapted(kind, folder_of(kind), scope=scope), films(2, seed=5)
    prompts = [net.encode(prompt, None, limit=8)[0] for prompt in PROMPTS]
    assert len(prompts[0]) < len(prompts[1])
    hidden = net.prefix(images).detach()
    written = net.write(hidden, prompts, limit=10)
    assert net.write(hidden, prompts, limit=10) == written
    # Drawn ones are no likelier, word by word from where they part, and the same for the same seed.
    drawn = net.write(hidden, prompts, limit=10, seed=1)
    assert net.write(hidden, prompts, limit=10, seed=1) == drawn != net.write(hidden, prompts, limit=10, seed=2)
    for one, other in zip(written, drawn, strict=True):
        parted = next((place for place, pair in enumerate(zip(one.logprobs, other.logprobs, strict=False)) if pair[0] != pair[1]), None)
        assert parted is None or other.logprobs[parted] <= one.logprobs[parted] + 1e-4
    for one, film, prompt in zip(written, images, prompts, strict=True):
        tokens, scores = by_words(net, film, prompt, 10)
        assert one.text == net.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert one.ended == (tokens[-1] == net.tokenizer.eos_token_id)
        np.testing.assert_allclose(one.logprobs, scores, rtol=1e-4, atol=1e-4)
    assert written[0] != written[1]


def test_a_model_with_random_weights_learns_from_nothing_to_read_two_kinds_of_film() -> None:
    """All its weights, by plain torch: twelve films with noise and a bright bar, on the left or on the right, whatever the prompt."""
    tokenizer = tokenizer_of(image="<image>", around=(), begin=True)
    net = EncoderDecoderNet(built("vit", tokenizer, layers=1), tokenizer, scope=BOTH, last_blocks=None, scaling={})
    images, reports = 0.3 * films(24, seed=7) - 0.5, [("Lungs are clear.", "No change.")[row // 2 % 2] for row in range(24)]
    for row, film in enumerate(images):
        film[:, 8:24, slice(4, 12) if row // 2 % 2 else slice(20, 28)] += 1.0
    features = features_of(net, images[:12], reports[:12], range(12))
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    for _ in range(70):
        loss = TASK.losses(net, features, torch.arange(12)).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    prompts = [net.encode(PROMPTS[row % 2], None, limit=TASK.max_tokens)[0] for row in range(12)]
    # Films that it was not trained on.
    drafts = net.write(images[12:], prompts, limit=TASK.max_tokens)
    assert [draft.text for draft in drafts] == reports[12:]
    assert all(draft.ended for draft in drafts)
    (cut,) = net.write(images[12:13], prompts[:1], limit=3)
    assert not cut.ended and len(cut.logprobs) == 3 and reports[12].startswith(cut.text)


@torch.no_grad()
@each_kind
def test_what_is_seen_of_a_film_is_the_mean_of_what_the_decoder_looks_at(folder_of: Folders, net_of: Nets, kind: str) -> None:
    net, images = net_of(kind), films(3)
    torch.testing.assert_close(net.seen(images), net.prefix(images).mean(dim=1))
    torch.testing.assert_close(opened(folder_of(kind), scope=BOTH).seen(images), net.seen(images))
    assert net.prefix(films(1).repeat(1, 1, 2, 2)).shape == net.prefix(images[:1]).shape


def changed(folder: Path, to: Path, file: str, change: Callable[[dict[str, Any]], object]) -> Path:
    copytree(folder, to)
    settings = json.loads((to / file).read_text())
    change(settings)
    (to / file).write_text(json.dumps(settings))
    return to


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda settings: settings.update(model_type="vit"), "'vit' is not 'vision-encoder-decoder'"),
        (lambda settings: settings["decoder"].update(model_type="bert"), "its decoder is 'bert', and is read where it is 'gpt2'"),
        (lambda settings: settings["decoder"].update(add_cross_attention=False), "add_cross_attention is false"),
        (lambda settings: settings["decoder"].update(vocab_size=7), r"other: decoder\.\S+: shape \(340, 32\) is not \(7, 32\)"),
        (lambda settings: settings["encoder"].update(image_size=[64, 16]), r"takes images of \[64, 16\] pixels, which is no square"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused_by_name(folder_of: Folders, tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(BaseModelError, match=said):
        opened(changed(folder_of("vit"), tmp_path / "other", "config.json", change))


def test_an_encoder_that_is_not_of_the_vit_kind_is_refused_by_name(tmp_path: Path) -> None:
    from transformers import GPT2Config, SwinConfig, VisionEncoderDecoderConfig, VisionEncoderDecoderModel

    tokenizer = tokenizer_of(image="<image>", around=(), begin=True)
    see = SwinConfig(image_size=SIZE, patch_size=4, num_channels=1, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4)
    say = GPT2Config(vocab_size=len(tokenizer), n_embd=WIDTH, n_layer=1, n_head=2)
    VisionEncoderDecoderModel(VisionEncoderDecoderConfig.from_encoder_decoder_configs(see, say)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match=r"encoder 'swin' is not of the ViT kind"):
        opened(tmp_path)


def test_a_folder_without_a_tokenizer_or_without_some_weights_is_refused(folder_of: Folders, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(copytree(folder_of("vit"), tmp_path / "mute"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BaseModelError, match=r"mute: no tokenizer\.json there"):
        opened(folder)
    folder = Path(copytree(folder_of("vit"), tmp_path / "adapted"))
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(BaseModelError, match=r"adapted: there is an adapter beside the weights"):
        opened(folder)
    folder = Path(copytree(folder_of("vit"), tmp_path / "half"))
    held = load_file(folder / "model.safetensors")
    save_file({key: one for key, one in held.items() if "pooler" not in key}, folder / "model.safetensors", metadata={"format": "pt"})
    torch.testing.assert_close(opened(folder).prefix(films(1)), opened(folder_of("vit")).prefix(films(1)))
    save_file({key: one for key, one in held.items() if "h.1.mlp" not in key}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=r"half: no weights there for decoder\.transformer\.h\.1\.mlp\.c_fc\.bias, "):
        opened(folder)


def test_a_tokenizer_that_does_not_go_with_the_decoder_is_refused(folder_of: Folders, tmp_path: Path) -> None:
    endless = changed(folder_of("vit"), tmp_path / "endless", "tokenizer_config.json", lambda settings: settings.update(eos_token=None))
    with pytest.raises(BaseModelError, match="has no token that ends a text"):
        opened(endless)
    talks = Path(copytree(folder_of("vit"), tmp_path / "talks"))
    (talks / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(BaseModelError, match="has a chat template, and its decoder reads no conversation"):
        opened(talks)


def test_a_checkpoint_says_by_which_token_its_decoder_begins(folder_of: Folders, tmp_path: Path) -> None:
    folder = changed(folder_of("vit"), tmp_path / "starts", "config.json", lambda settings: settings.update(decoder_start_token_id=0))
    net = opened(folder)
    tokens, _ = net.encode("Report:", None, limit=8)
    assert net.tokenizer.decode(tokens) == f"{END}Report:\n" and tokens[0] == net.tokenizer.eos_token_id == 0


def test_a_text_that_has_no_place_is_refused_with_both_numbers(net_of: Nets) -> None:
    net = net_of("vit")
    tokens, begin = net.encode("Report:", None, limit=PLACES - 10)
    said = rf"a prompt of {begin} tokens and an answer of up to {PLACES} .*the base model's decoder has {PLACES} places"
    with pytest.raises(BaseModelError, match=said):
        net.encode("Report:", None, limit=PLACES)
    with pytest.raises(BaseModelError, match=said):
        net.write(net.prefix(films(1)), [tokens], limit=PLACES)
    (longest,) = net.write(net.prefix(films(1)), [tokens], limit=PLACES - begin)
    assert 1 <= len(longest.logprobs) <= PLACES - begin


def test_it_is_refused_for_a_task_that_wants_an_output_for_each_finding(folder_of: Folders) -> None:
    folder = folder_of("vit")
    base = BaseSection(model="encoder_decoder", weights=str(folder), sha256=models.digest(folder))
    with pytest.raises(
        BaseModelError, match="model 'encoder_decoder' writes reports and has no output for square: task 'report' is for it"
    ):
        models.load(base, lora=LoraSection(), outputs={"square": "square"}, folder=folder)
