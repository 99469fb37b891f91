"""Seven families of vision-language models, each held against its own forward pass, image processor and prompt as transformers has them."""

import hashlib
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
from PIL import Image
from torch import Tensor, nn

from client import models
from client.models.vlm import Scope, VlmNet, padded
from client.tasks.findings import Findings
from client.tasks.report import Report
from client.training import lora
from client.training.clipping import clipped_sum
from client.training.features import Features
from client.training.fit import fit
from rainhill.adapter import Adapter
from rainhill.config import BasePrecision
from rainhill.errors import BaseModelError
from rainhill.recipe import BaseSection, FitSection, LoraSection
from tests.client.test_models import load as load_vit
from tests.client.vlm_families import FAMILIES, LANGUAGE, REPORTS, SIZE, pixels_of, prompt_of, save

TASK = Report(max_tokens=20)
SCOPES: tuple[Scope, ...] = get_args(Scope)
ALL_PARTS = SCOPES[-1]
PROMPTS = ("Report:", "Indication: cough and fever.\nReport:")
Folders = Callable[[str], Path]
Nets = Callable[[str], VlmNet]

each_family = pytest.mark.parametrize("name", FAMILIES)
each_scope = pytest.mark.parametrize("scope", SCOPES)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A family's folder, built when it is first asked for."""
    root = tmp_path_factory.mktemp("families")
    return cache(lambda name: save(name, root / name))


@pytest.fixture(scope="session")
def net_of(folder_of: Folders) -> Nets:
    """Without LoRA, for tests that change nothing in it."""
    return cache(lambda name: opened(name, folder_of(name)))


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Random films, as the net takes them and as the family's own image processor gives them."""

    images: Tensor
    """(N, 1, 32, 32) in [-1, 1]"""
    pixels: list[dict[str, Tensor]]
    """Of each film."""
    pictures: list[Any]


def seen(name: str, count: int, *, seed: int = 0) -> Seen:
    grey = np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE)).astype(np.uint8)
    pictures = [Image.fromarray(one).convert("RGB") for one in grey]
    images = torch.from_numpy(grey.astype(np.float32) / 255 * 2 - 1)[:, None]
    return Seen(images=images, pixels=[pixels_of(name, [one]) for one in pictures], pictures=pictures)


def tokenizer_in(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def pattern_of(name: str, scope: Scope = ALL_PARTS) -> str:
    parts = list(FAMILIES[name].modules.values())[: SCOPES.index(scope) + 1]
    return "|".join(sorted({layer for part in parts for layer in part}))


def opened(name: str, folder: Path, *, scope: Scope = "language", last_blocks: int | None = None, **options: Any) -> VlmNet:
    if FAMILIES[name].sizes or name == "pixtral":
        options = {"size": SIZE} | options
    base = BaseSection(model="vlm", weights=str(folder), sha256=models.digest(folder), scope=scope, **options)
    net = models.load(base, lora=LoraSection(last_blocks=last_blocks), outputs={}, folder=folder)
    assert isinstance(net, VlmNet)
    return net


def adapted(name: str, folder: Path, *, scope: Scope, size: float = 0.1, **options: Any) -> VlmNet:
    """With LoRA on every part of the scope, both factors away from zero."""
    net = opened(name, folder, scope=scope, **options)
    lora.attach(net, name=lora.SHARED, pattern=pattern_of(name, scope), rank=2, alpha=4)
    drawn, rng = lora.draw(net, name=lora.SHARED, with_head=False, seed=0), np.random.default_rng(0)
    moved = {key: array + size * rng.normal(size=array.shape).astype(np.float32) for key, array in drawn.items()}
    lora.write_adapter(net, Adapter(moved), name=lora.SHARED)
    return net


def logits_of(name: str, model: Any, pixels: dict[str, Tensor], ids: Sequence[int], begin: int) -> Tensor:
    """(T, V) by the model's forward pass as its makers call it: with pixels, and one row without padding."""
    tokens = torch.tensor([ids])
    is_image = (tokens == model.config.image_token_id).long()
    more: dict[str, Tensor] = {}
    if name == "paligemma":
        more["token_type_ids"] = (torch.arange(len(ids)) >= begin).long()[None]
    elif name == "gemma3":
        more["token_type_ids"] = is_image
    elif name.startswith("qwen"):
        more["mm_token_type_ids"] = is_image.int()
    logits: Tensor = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), **pixels, **more, use_cache=False).logits
    return logits[0]


def loss_of(name: str, net: VlmNet, pixels: dict[str, Tensor], ids: Sequence[int], begin: int) -> Tensor:
    """The mean over the answer of -log p, token by token."""
    logits = logits_of(name, net.model, pixels, ids, begin)
    terms = [torch.logsumexp(logits[place - 1], dim=0) - logits[place - 1, ids[place]] for place in range(begin, len(ids))]
    return torch.stack(terms).mean() if terms else logits.sum() * 0.0


@each_family
def test_an_image_has_as_many_tokens_as_features(net_of: Nets, name: str) -> None:
    net = net_of(name)
    tokens, begin = net.encode(PROMPTS[0], None, limit=8)
    assert begin == len(tokens)
    assert tokens.count(net.tokenizer.convert_tokens_to_ids(FAMILIES[name].image)) == net.tokens_of_image == FAMILIES[name].tokens
    assert net.prefix(seen(name, 3).images).shape == (3, FAMILIES[name].tokens, 32)


@each_family
@pytest.mark.parametrize("prompt", ["Report:", "\nFindings\n\n:"])
def test_a_prompt_is_token_for_token_that_of_the_familys_own_processor(folder_of: Folders, net_of: Nets, name: str, prompt: str) -> None:
    tokens, _ = net_of(name).encode(prompt, None, limit=8)
    # Some processors add tokens to the tokenizer that they are given.
    assert tokens == prompt_of(name, tokenizer_in(folder_of(name)), seen(name, 1).pictures[0], prompt)


@torch.no_grad()
@each_family
@pytest.mark.parametrize("scope", [SCOPES[0], ALL_PARTS])
def test_logits_are_those_of_the_familys_own_forward_pass(folder_of: Folders, name: str, scope: Scope) -> None:
    from transformers import AutoModelForImageTextToText

    plain = AutoModelForImageTextToText.from_pretrained(folder_of(name), local_files_only=True).eval()
    net, films = opened(name, folder_of(name), scope=scope), seen(name, 2)
    rows = [net.encode(prompt, report, limit=64) for prompt, report in zip(PROMPTS, REPORTS, strict=False)]
    ids = padded([tokens for tokens, _ in rows])
    answers = torch.stack([(torch.arange(ids.shape[1]) >= begin) & (row >= 0) for row, (_, begin) in zip(ids, rows, strict=True)])
    got = net(net.prefix(films.images), ids, answers)
    offset = ids.shape[1] - got.shape[1]
    assert offset == min(begin for _, begin in rows) - 1
    for values, pixels, (tokens, begin) in zip(got, films.pixels, rows, strict=True):
        expected = logits_of(name, plain, pixels, tokens, begin)
        # Logits are tens in size here.
        torch.testing.assert_close(values[begin - 1 - offset : len(tokens) - offset], expected[begin - 1 :], rtol=1e-5, atol=1e-4)


@torch.no_grad()
@each_family
def test_another_image_gives_other_logits_and_a_later_word_changes_nothing_before(net_of: Nets, name: str) -> None:
    net = net_of(name)
    hidden = net.prefix(seen(name, 2).images)
    tokens, begin = net.encode(PROMPTS[0], REPORTS[0], limit=64)
    ids = padded([tokens, tokens])
    answers = (torch.arange(len(tokens)) >= begin).expand(2, -1)
    first, second = net(hidden, ids, answers)
    assert (first - second).abs().max() > 0.1
    other = ids.clone()
    other[:, -3:] = 60
    changed = net(hidden, other, answers)[0]
    torch.testing.assert_close(changed[:-3], first[:-3], rtol=1e-5, atol=1e-4)
    assert (changed[-3:] - first[-3:]).abs().max() > 0.1


def features_of(net: VlmNet, films: Seen, reports: Sequence[str | None], owners: Sequence[int]) -> Features:
    """As the task makes them, with two prompts in turn; a report of None is of an image that has none."""
    rows = [net.encode(PROMPTS[place % 2], report, limit=TASK.max_tokens) for place, report in enumerate(reports)]
    ids = padded([tokens for tokens, _ in rows])
    targets = ids.clone()
    for row, (_, begin) in zip(targets, rows, strict=True):
        row[:begin] = -100
    with torch.no_grad():
        hidden = net.prefix(films.images)
    return Features(hidden, targets, np.asarray(owners), given=ids, texts=[report or "" for report in reports])


@torch.no_grad()
@each_family
def test_a_batch_gives_what_its_rows_give_one_by_one(folder_of: Folders, name: str) -> None:
    net = adapted(name, folder_of(name), scope=ALL_PARTS)
    features = features_of(net, seen(name, 4), [*REPORTS[:3], None], range(4))
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


@each_family
@each_scope
def test_lora_sits_on_the_layers_that_the_scope_names_and_on_no_other(folder_of: Folders, name: str, scope: Scope) -> None:
    net = opened(name, folder_of(name), scope=scope)
    inner = net.family.language.rpartition(".")[0], net.family.projector, net.family.vision
    took = lora.attach(net, name=lora.SHARED, pattern=pattern_of(name, scope), rank=2, alpha=4)
    assert {path for path, _ in lora.layers(net)} == set(took)
    by_part = [[path for path in took if path.startswith(f"model.model.{part}.")] for part in inner]
    assert sorted(path for part in by_part for path in part) == sorted(took)
    wanted = dict(zip(SCOPES, FAMILIES[name].modules.values(), strict=True))
    for within, paths in zip(SCOPES, by_part, strict=True):
        last = {path.rpartition(".")[2] for path in paths}
        assert last == (set(wanted[within]) if SCOPES.index(within) <= SCOPES.index(scope) else set())
    assert len(by_part[0]) == 2 * len(LANGUAGE)


@each_family
def test_a_scope_in_which_nothing_matches_is_refused_by_name(folder_of: Folders, name: str) -> None:
    net = opened(name, folder_of(name), scope="language+projector")
    with pytest.raises(BaseModelError, match=r"'up_proj' matches no layer of the base model in its projector, which has: \w+"):
        lora.attach(net, name=lora.SHARED, pattern="up_proj", rank=2, alpha=4)


def test_only_the_last_blocks_of_the_language_model_take_lora_where_so_many_are_asked_for(folder_of: Folders) -> None:
    net = opened("llava", folder_of("llava"), last_blocks=1)
    took = lora.attach(net, name=lora.SHARED, pattern="q_proj", rank=2, alpha=4)
    assert took == ["model.model.language_model.layers.1.self_attn.q_proj"]
    with pytest.raises(BaseModelError, match=r"last_blocks = 3: the base model's language model has 2"):
        opened("llava", folder_of("llava"), last_blocks=3)


def patients_of(name: str, net: VlmNet) -> tuple[Features, Seen]:
    """Five patients with one to three images. Of one only one image in three has a report, and of one that is a single letter: their
    gradients are much shorter, and much longer, than the others'.
    """
    owners = [0, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    films = seen(name, len(owners), seed=3)
    reports = [REPORTS[2], *REPORTS[:3], "x", REPORTS[0], REPORTS[1], None, None, "?"]
    return features_of(net, films, reports, owners), films


def trained(net: VlmNet) -> dict[str, nn.Parameter]:
    parameters = lora.trainable(net, name=lora.SHARED, with_head=True, with_norms=True)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return parameters


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The oracle: plain autograd through the family's own forward pass, one image at a time, and the mean over each patient's."""

    gradients: list[dict[str, Tensor]]
    losses: list[float]

    @property
    def norms(self) -> list[float]:
        return [length(one) for one in self.gradients]

    def clipped_sum(self, most: float) -> dict[str, Tensor]:
        cut = [min(1.0, most / norm) for norm in self.norms]
        rows = zip(self.gradients, cut, strict=True)
        scaled = [{key: scale * one for key, one in gradient.items()} for gradient, scale in rows]
        return {key: torch.stack([one[key] for one in scaled]).sum(dim=0) for key in scaled[0]}


def by_loop(name: str, net: VlmNet, features: Features, films: Seen, parameters: dict[str, nn.Parameter]) -> Loop:
    gradients, losses = [], []
    assert features.given is not None
    for own in features.images_of:
        mean, loss = {key: torch.zeros(one.shape, dtype=torch.float64) for key, one in parameters.items()}, 0.0
        for row in own:
            ids = [token for token in features.given[row].tolist() if token >= 0]
            begin = len(ids) - int((features.targets[row] >= 0).sum())
            one = loss_of(name, net, films.pixels[row], ids, begin)
            found = torch.autograd.grad(one, list(parameters.values()), allow_unused=True)
            loss += float(one.detach()) / len(own)
            for key, gradient in zip(mean, found, strict=True):
                mean[key] += 0 if gradient is None else gradient.double() / len(own)
        gradients.append(mean)
        losses.append(loss)
    return Loop(gradients=gradients, losses=losses)


def length(gradients: dict[str, Tensor]) -> float:
    return float(torch.cat([one.flatten() for one in gradients.values()]).norm())


def check_private_step(name: str, net: VlmNet, *, off: float) -> None:
    features, films = patients_of(name, net)
    parameters = trained(net)
    loop = by_loop(name, net, features, films, parameters)
    bound, norms = float(np.median(loop.norms)), loop.norms
    assert max(norms) > 4 * min(norms) and min(norms) < 0.9 * bound < 1.1 * bound < max(norms), "the bound should cut some and leave some"
    expected = loop.clipped_sum(bound)
    got, told = clipped_sum(net, TASK, features, features.images_of, parameters=parameters, max_grad_norm=bound)
    assert length({key: got[key] - expected[key] for key in got}) <= off * length(expected)
    np.testing.assert_allclose(told, loop.losses, rtol=off, atol=1e-6)
    # No part of the scope stands aside, nor the norms of the language model's blocks.
    for part in FAMILIES[name].modules if net.scope == ALL_PARTS else ():
        inside = [id(module) for modules in [net.groups()[part]] for one in modules for module in one.modules()]
        own = [key for path, layer in lora.layers(net) if id(layer) in inside for key in got if key.startswith(f"{path}.")]
        assert length({key: got[key] for key in own}) > 1e-4 * length(got)
    blocks = net.groups()["language model"]
    norms_of_blocks = {id(weight) for block in blocks for path, weight in block.named_parameters() if path.endswith("norm.weight")}
    those = [key for key, parameter in parameters.items() if id(parameter) in norms_of_blocks]
    assert len(those) >= 2 * len(blocks) and all(length({key: got[key]}) > 0 for key in those)


@each_family
@each_scope
def test_a_private_step_is_that_of_a_loop_over_patients_and_images(folder_of: Folders, name: str, scope: Scope) -> None:
    net = adapted(name, folder_of(name), scope=scope)
    assert net.one_by_one == (name in ("pixtral", "qwen2_vl", "qwen2_5_vl") and scope != "language")
    check_private_step(name, net, off=1e-5)


@pytest.mark.parametrize("scope", [SCOPES[0], ALL_PARTS])
@pytest.mark.parametrize(("precision", "off"), [("bfloat16", 3e-2), ("nf4", 1e-5)])
def test_a_private_step_over_a_base_of_fewer_bits_is_that_of_a_loop_over_the_same_base(
    folder_of: Folders, precision: BasePrecision, off: float, scope: Scope
) -> None:
    net = adapted("llava", folder_of("llava"), scope=scope)
    exact = net.prefix(seen("llava", 1).images).detach() if scope == "language" else None
    models.place(net, device="cpu", precision=precision)
    base = next(layer for _, layer in lora.layers(net)).get_base_layer()
    assert base.weight.dtype == (torch.bfloat16 if precision == "bfloat16" else torch.uint8)
    assert {parameter.dtype for parameter in trained(net).values()} == {torch.float32}
    assert net.model.lm_head.weight.dtype == net.model.get_input_embeddings().weight.dtype == torch.float32
    if exact is not None:
        assert not torch.equal(net.prefix(seen("llava", 1).images), exact)
    check_private_step("llava", net, off=off)


@torch.no_grad()
@each_family
@pytest.mark.parametrize(("precision", "off"), [("bfloat16", 0.05), ("nf4", 0.75)])
def test_a_family_computes_over_a_base_of_fewer_bits(folder_of: Folders, name: str, precision: BasePrecision, off: float) -> None:
    net = adapted(name, folder_of(name), scope=ALL_PARTS)
    films = seen(name, 2)
    features = features_of(net, films, REPORTS[:2], [0, 1])
    exact, before = TASK.losses(net, features, torch.arange(2)), net._features(films.images)
    models.place(net, device="cpu", precision=precision)
    frozen = {layer.get_base_layer().weight.dtype for _, layer in lora.layers(net) if isinstance(layer.get_base_layer(), nn.Linear)}
    assert frozen == {torch.bfloat16 if precision == "bfloat16" else torch.uint8}
    rounded, after = TASK.losses(net, features, torch.arange(2)), net._features(films.images)
    assert all(one.dtype == torch.float32 for one in after)
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=off, atol=off)
    # Of 4 bits on narrow layers of random weights not much more can be asked than the right direction.
    first, second = torch.cat(list(before)), torch.cat(list(after))
    assert (first - second).norm() < off * first.norm()


def base_hash(net: VlmNet) -> str:
    digest = hashlib.sha256()
    for key, tensor in net.state_dict().items():
        if ".lora_" not in key:
            digest.update(key.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


@each_family
def test_training_lowers_the_loss_leaves_the_base_alone_and_lives_in_the_adapter_alone(folder_of: Folders, name: str) -> None:
    net = adapted(name, folder_of(name), scope=ALL_PARTS, size=0.0)
    features = features_of(net, seen(name, 4), [*REPORTS[:3], REPORTS[0]], [0, 1, 2, 3])
    before, rows = base_hash(net), torch.arange(4)
    with torch.no_grad():
        at_first = TASK.losses(net, features, rows).mean()
    parameters = lora.trainable(net, name=lora.SHARED, with_head=False)
    fitted = fit(net, features, TASK, FitSection(steps=8, patients_per_step=4, learning_rate=2e-2), parameters=parameters, seed=(0,))
    with torch.no_grad():
        at_last = TASK.losses(net, features, rows)
    assert fitted.losses[0] == pytest.approx(float(at_first), rel=1e-4)
    assert at_last.mean() < 0.75 * at_first
    assert base_hash(net) == before
    carried = lora.read_adapter(net, name=lora.SHARED, with_head=True).to_bytes()
    again = adapted(name, folder_of(name), scope=ALL_PARTS)
    lora.write_adapter(again, Adapter.from_bytes(carried), name=lora.SHARED)
    with torch.no_grad():
        assert torch.equal(TASK.losses(again, features, rows), at_last)
    assert TASK.drafts(again, features, range(4)) == TASK.drafts(net, features, range(4))


@torch.no_grad()
def by_words(name: str, net: VlmNet, pixels: dict[str, Tensor], prompt: Sequence[int], limit: int) -> tuple[list[int], list[float]]:
    """The oracle: the whole text through the family's own forward pass for each further token; no cache, no features kept."""
    tokens, scores = list(prompt), []
    while len(tokens) < len(prompt) + limit:
        logits = logits_of(name, net.model, pixels, tokens, len(prompt))[-1]
        open_to = logits.clone()
        open_to[net.model.config.image_token_id] = -torch.inf
        tokens.append(int(open_to.argmax()))
        scores.append(float(open_to.log_softmax(dim=0)[tokens[-1]]))
        if tokens[-1] == net.tokenizer.eos_token_id:
            break
    return tokens[len(prompt) :], scores


@each_family
def test_a_draft_is_that_of_a_loop_over_words_without_a_cache(folder_of: Folders, name: str) -> None:
    net, films = adapted(name, folder_of(name), scope=ALL_PARTS), seen(name, 2, seed=5)
    prompts = [net.encode(prompt, None, limit=8)[0] for prompt in PROMPTS]
    written = net.write(films.images, prompts, limit=10)
    assert net.write(films.images, prompts, limit=10) == written
    for one, pixels, prompt in zip(written, films.pixels, prompts, strict=True):
        tokens, scores = by_words(name, net, pixels, prompt, 10)
        assert one.text == net.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert 1 <= len(one.logprobs) <= 10
        assert one.ended == (tokens[-1] == net.tokenizer.eos_token_id)
        np.testing.assert_allclose(one.logprobs, scores, rtol=1e-4, atol=1e-4)
    assert written[0] != written[1]


def test_a_draft_ends_with_the_token_that_ends_a_text(folder_of: Folders) -> None:
    net = adapted("llava", folder_of("llava"), scope="language", size=0.0)
    reports = ["Lungs are clear.", "No effusion."]
    features = features_of(net, seen("llava", 2), reports, [0, 1])
    parameters = lora.trainable(net, name=lora.SHARED, with_head=False)
    fit(net, features, TASK, FitSection(steps=120, patients_per_step=2, learning_rate=2e-2), parameters=parameters, seed=(0,))
    drafts = TASK.drafts(net, features, [0, 1])
    assert [draft.text for draft in drafts] == reports
    assert [draft.ended for draft in drafts] == [True, True]
    prompts = [net.encode(prompt, None, limit=8)[0] for prompt in PROMPTS]
    (cut, _) = net.write(features.hidden, prompts, limit=3)
    assert not cut.ended and len(cut.logprobs) == 3 and reports[0].startswith(cut.text)


@each_family
def test_a_special_token_that_somebody_typed_is_none(net_of: Nets, name: str) -> None:
    net, family = net_of(name), FAMILIES[name]
    image, end = net.tokenizer.convert_tokens_to_ids(family.image), net.tokenizer.eos_token_id
    typed = f"{family.image} seen {net.family.marker}</s>{family.image[:3]}{family.image}{family.image[3:]}"
    tokens, begin = net.encode(typed, f"{family.image}Clear{family.image}.</s> Not.", limit=64)
    assert tokens.count(image) == family.tokens
    assert tokens.count(end) == 1 and tokens[-1] == end
    answer = net.tokenizer.decode(tokens[begin:-1])
    assert "Clear" in answer and "Not." in answer


@each_family
def test_a_model_that_would_write_an_image_writes_something_else(net_of: Nets, name: str) -> None:
    net = net_of(name)
    image = net.model.config.image_token_id

    def prefers_it(_: nn.Module, __: object, logits: Tensor) -> Tensor:
        return logits + 1e3 * (torch.arange(logits.shape[-1]) == image)

    undo = net.model.lm_head.register_forward_hook(prefers_it)
    try:
        (draft,) = net.write(net.prefix(seen(name, 1).images), [net.encode(PROMPTS[0], None, limit=8)[0]], limit=3)
    finally:
        undo.remove()
    # It would be as good as certain.
    assert len(draft.logprobs) >= 1 and max(draft.logprobs) < -1e-3


@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
def test_an_image_of_zeros_is_an_image(folder_of: Folders, name: str, tmp_path: Path) -> None:
    folder = Path(copytree(folder_of(name), tmp_path / name))
    (folder / "preprocessor_config.json").unlink()
    net = opened(name, folder)
    flat = torch.zeros(2, 1, SIZE, SIZE)
    flat[1] = 1e-5
    blank, nearly = net.prefix(flat)
    torch.testing.assert_close(blank, nearly, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_images_of_another_size_are_resized_and_pixels_without_settings_go_from_minus_one_to_one(
    folder_of: Folders, tmp_path: Path
) -> None:
    folder = Path(copytree(folder_of("llava"), tmp_path / "llava"))
    (folder / "preprocessor_config.json").unlink()
    net = opened("llava", folder)
    images = torch.rand(1, 1, SIZE, SIZE) * 2 - 1
    torch.testing.assert_close(net._scaled(images), images)
    assert net.prefix(torch.rand(1, 1, 2 * SIZE, 2 * SIZE)).shape == (1, 16, 32)


TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@each_family
def test_the_chat_template_in_the_folder_is_used(folder_of: Folders, net_of: Nets, name: str, tmp_path: Path) -> None:
    folder = Path(copytree(folder_of(name), tmp_path / name))
    marker = {"pixtral": "[IMG]", "gemma3": "<start_of_image>"}.get(name, "<image>")
    if name.startswith("qwen"):
        marker = "<|vision_start|><|image_pad|><|vision_end|>"
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("IMAGE", marker), encoding="utf-8")
    assert models.digest(folder) != models.digest(folder_of(name))
    net = opened(name, folder)
    # What somebody types is not taken for the image.
    tokens, _ = net.encode(f"See {marker} here", None, limit=8)
    # The image as it is without a template.
    bare = net.tokenizer.decode(net_of(name).encode("", None, limit=8)[0])
    begin = "<s>" if FAMILIES[name].begin else ""
    image = bare.replace(begin, "").removesuffix("\n").removesuffix("\n")
    image += "\n\n" if name == "gemma3" and not image.endswith("\n\n") else ""
    shown = net.tokenizer.decode(tokens)
    assert shown.startswith(f"{begin}[user] {image}See ") and shown.endswith(" here[assistant] ")
    assert tokens == net.tokenizer.encode(shown, add_special_tokens=False)


@pytest.mark.parametrize(("after", "end"), [("<end_of_turn>\n", "<end_of_turn>"), (" </s>", "</s>"), ("\n", "</s>")])
def test_an_answer_ends_as_the_chat_template_ends_a_turn(folder_of: Folders, after: str, end: str, tmp_path: Path) -> None:
    folder = Path(copytree(folder_of("llava"), tmp_path / "llava"))
    turns = TEMPLATE.replace("IMAGE", "<image>").replace("\n{% endfor %}", "{{ 'AFTER' }}{% endfor %}")
    turns = turns.replace("AFTER", after.replace("\n", "\\n"))
    (folder / "chat_template.jinja").write_text(turns, encoding="utf-8")
    net = opened("llava", folder)
    tokens, begin = net.encode("Report:", "Clear.", limit=20)
    assert net.tokenizer.decode(tokens[begin:]) == f"Clear.{end}"
    number = tokens[-1]
    assert net.tokens.ends == tuple(dict.fromkeys([number, net.tokenizer.eos_token_id]))

    def prefers_it(_: nn.Module, __: object, logits: Tensor) -> Tensor:
        return logits + 1e3 * (torch.arange(logits.shape[-1]) == number)

    net.model.lm_head.register_forward_hook(prefers_it)
    (draft,) = net.write(net.prefix(seen("llava", 1).images), [net.encode("Report:", None, limit=8)[0]], limit=3)
    assert (draft.text, draft.logprobs, draft.ended) == ("", (0.0,), True)


def test_a_chat_template_that_writes_no_image_is_refused(folder_of: Folders, tmp_path: Path) -> None:
    folder = Path(copytree(folder_of("llava"), tmp_path / "llava"))
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("IMAGE", ""), encoding="utf-8")
    net = opened("llava", folder)
    for prompt in ("Report:", "<image> Report:"):
        with pytest.raises(BaseModelError, match="chat template writes no '<image>' for an image"):
            net.encode(prompt, None, limit=8)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no pictures, please') }}", encoding="utf-8")
    with pytest.raises(BaseModelError, match="chat template: no pictures, please"):
        opened("llava", folder)


def changed(folder: Path, to: Path, file: str, **settings: Any) -> Path:
    copytree(folder, to)
    old = json.loads((to / file).read_text())
    (to / file).write_text(json.dumps(old | settings))
    return to


def test_a_family_that_nothing_is_known_of_is_refused_by_name(folder_of: Folders, tiny_base: Path, tmp_path: Path) -> None:
    folder = changed(folder_of("llava"), tmp_path / "other", "config.json", model_type="vit")
    with pytest.raises(BaseModelError, match=r"other: family 'vit' is not one of gemma3, idefics3, llava, .*smolvlm"):
        opened("llava", folder)
    folder = changed(folder_of("llava"), tmp_path / "new", "config.json", model_type="clairvoyance")
    with pytest.raises(BaseModelError, match="new: .*clairvoyance"):
        opened("llava", folder)


def test_a_folder_without_a_tokenizer_or_without_some_weights_is_refused(folder_of: Folders, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(copytree(folder_of("llava"), tmp_path / "llava"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BaseModelError, match=r"llava: no tokenizer\.json there"):
        opened("llava", folder)
    folder = Path(copytree(folder_of("llava"), tmp_path / "adapted"))
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(BaseModelError, match=r"adapted: there is an adapter beside the weights \(adapter_config\.json\): merge it"):
        opened("llava", folder)
    folder = Path(copytree(folder_of("llava"), tmp_path / "half"))
    weights = {
        key: tensor for key, tensor in load_file(folder / "model.safetensors").items() if "multi_modal_projector.linear_1" not in key
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=r"half: no weights there for \S*linear_1\.bias, \S*linear_1\.weight"):
        opened("llava", folder)


def test_settings_in_files_that_are_not_pinned_are_refused(folder_of: Folders, tmp_path: Path) -> None:
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    folder = Path(copytree(folder_of("llava"), tmp_path / "llava"))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    with pytest.raises(BaseModelError, match=r"chat template is in chat_template\.json alone, and is read from chat_template\.jinja"):
        opened("llava", folder)
    (folder / "chat_template.json").unlink()
    (folder / "preprocessor_config.json").unlink()
    # As transformers 5 saves a processor.
    LlavaProcessor(CLIPImageProcessorPil(), tokenizer_in(folder)).save_pretrained(folder)
    with pytest.raises(
        BaseModelError, match=r"image settings are in processor_config\.json alone, and are read from preprocessor_config\.json"
    ):
        opened("llava", folder)


def test_a_tokenizer_without_a_token_that_is_needed_is_refused_by_name(folder_of: Folders, tmp_path: Path) -> None:
    folder = changed(folder_of("llava"), tmp_path / "endless", "tokenizer_config.json", eos_token=None)
    with pytest.raises(BaseModelError, match="has no token that ends a text"):
        opened("llava", folder)
    folder = changed(folder_of("llava"), tmp_path / "blind", "config.json", image_token_id=100_000)
    with pytest.raises(BaseModelError, match=r"has no token 100000, which stands for an image in config\.json"):
        opened("llava", folder)
    folder = Path(copytree(folder_of("pixtral"), tmp_path / "pixtral"))
    spelled = (folder / "tokenizer.json").read_text().replace("[IMG_BREAK]", "[IMG_BROKEN]")
    (folder / "tokenizer.json").write_text(spelled)
    with pytest.raises(BaseModelError, match=r"has no token '\[IMG_BREAK\]', which its family writes around an image"):
        opened("pixtral", folder)


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("llava", 64, "size = 64: the base model takes images of 32 pixels"),
        ("pixtral", 36, "size = 36: the base model takes images whose side is a multiple of 8 pixels up to 64"),
        ("pixtral", 72, "size = 72: .* up to 64"),
        ("qwen2_vl", 40, "size = 40: the base model takes images whose side is a multiple of 16 pixels$"),
        ("qwen2_5_vl", None, "size is missing: the base model takes images of any size"),
    ],
)
def test_an_image_size_that_the_model_does_not_take_is_refused(folder_of: Folders, name: str, size: int | None, said: str) -> None:
    with pytest.raises(BaseModelError, match=said):
        opened(name, folder_of(name), size=size)


@torch.no_grad()
@pytest.mark.parametrize(("name", "size", "tokens"), [("pixtral", 64, 64), ("qwen2_vl", 64, 16), ("qwen2_5_vl", 48, 9)])
def test_a_family_that_takes_any_size_takes_the_recipes(folder_of: Folders, name: str, size: int, tokens: int) -> None:
    net = opened(name, folder_of(name), size=size)
    assert net.size == size and net.tokens_of_image == tokens
    ids, _ = net.encode("Report:", None, limit=8)
    assert len(net.write(net.prefix(torch.rand(1, 1, size, size)), [ids], limit=2)[0].logprobs) in (1, 2)


def test_a_task_and_a_model_that_do_not_go_together_are_refused_by_name(folder_of: Folders, tiny_base: Path) -> None:
    folder = folder_of("llava")
    base = BaseSection(model="vlm", weights=str(folder), sha256=models.digest(folder))
    outputs = Findings(findings=("square", "stripe")).outputs
    with pytest.raises(BaseModelError, match="model 'vlm' writes reports and has no output for square, stripe: task 'report' is for it"):
        models.load(base, lora=LoraSection(), outputs=outputs, folder=folder)
    nothing = Features(torch.zeros(0), torch.zeros(0, 1), np.zeros(0, dtype=np.int64), given=torch.zeros(0, 1))
    with pytest.raises(BaseModelError, match="task 'report' wants a model that writes, such as 'vlm'"):
        TASK.drafts(load_vit(tiny_base), nothing, [])
