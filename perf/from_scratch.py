"""An encoder-decoder and a LLaVA, both from nothing: what they learn of the same films and texts in as many steps, and what LoRA adds.

    python -m perf.from_scratch [--patients 1500] [--looking 6] [--epochs 6] [--batch 32] [--adapting 200] [--lora-steps 150]

Films are of the hospital where the embedded model was trained, each with the reports that it may have there. As there, eyes learn first
what each patch of a film shows, by heads that are thrown away; then all weights learn to write, eyes too. With `--looking 0` they have
nothing but the words. Eyes are of one size, and order, augmentation and texts are the same. Then each model is saved, loaded as a recipe's
base, and adapted by LoRA on all linear layers of its blocks to films and reports of another hospital. F1 is that of the labels that are
read in drafts.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from client import models
from client.drafting.prompt import Prompt
from client.models._families import Family
from client.models.encoder_decoder import EncoderDecoderNet
from client.models.vlm import VlmNet, padded
from client.tasks.report import Report
from client.training import lora
from client.training.features import Features
from client.training.fit import fit
from rainhill.recipe import BaseSection, FitSection, LoraSection
from rainhill.toml import read_toml
from sites import pretrain_report, report_text
from sites.films import PATCH, PIXELS, Films, draw_films
from sites.hospital import HospitalConfig, draw
from sites.phantom import FINDINGS
from sites.pretrain import augment
from sites.pretrain_report import LIMIT, Film, _epochs, films_of, measured, tokenizer_of, untrained, written
from sites.report_text import Style

SITES = Path(pretrain_report.__file__).parent / "reporting"
HOME, AWAY = SITES / "source" / "liverpool.toml", SITES / "manchester.toml"
PLACES, WIDTH = 768, 64
RATE = 2e-3
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "encoder_decoder": {"scope": "decoder+encoder"},
    "vlm": {"scope": "language+projector+vision"},
}
LOOKING: Mapping[str, str] = {"encoder_decoder": "decoder", "vlm": "language"}
"""Scopes whose prefix is what the language model is shown."""


@dataclass(frozen=True, kw_only=True)
class Hospital:
    style: Style
    train: Films
    test: Films
    train_films: Sequence[Film]
    test_films: Sequence[Film]


def open_hospital(path: Path, *, patients: int, test: int, seed: int) -> Hospital:
    config = read_toml(path, HospitalConfig).phantom
    assert config is not None, f"{path} has no [phantom]"
    parts = draw(config.model_copy(update={"patients": patients, "test_patients": test}), seed=seed)
    known, unknown = (draw_films(config, [case for patient in part for case in patient.cases]) for part in parts)
    return Hospital(style=config.report, train=known, test=unknown, train_films=films_of(parts[0]), test_films=films_of(parts[1]))


def encoder_decoder(tokenizer: Any, seed: int) -> Any:
    """With eyes of the size of the LLaVA's, and a decoder of its width and depth."""
    from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

    torch.manual_seed(seed)
    see = ViTConfig(
        hidden_size=WIDTH,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=PIXELS,
        patch_size=PATCH,
        num_channels=1,
    )
    say = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=PLACES,
        n_embd=WIDTH,
        n_layer=2,
        n_head=4,
        n_inner=128,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return VisionEncoderDecoderModel(VisionEncoderDecoderConfig.from_encoder_decoder_configs(see, say))


def new_model(kind: str, tokenizer: Any, seed: int) -> Any:
    return untrained(tokenizer, seed) if kind == "vlm" else encoder_decoder(tokenizer, seed)


def net_of(kind: str, model: Any, tokenizer: Any, scope: Any) -> Any:
    more: dict[str, Any] = {"scope": scope, "last_blocks": None, "scaling": {}}
    net: Any = VlmNet(model, tokenizer, Family(), size=None, **more) if kind == "vlm" else EncoderDecoderNet(model, tokenizer, **more)
    return net.eval()


class Eyes(nn.Module):
    """What the language model is shown of a film, with two heads that are thrown away: what the film shows, and what each patch does."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net, self.whole, self.each = net, nn.Linear(WIDTH, len(FINDINGS)), nn.Linear(WIDTH, len(FINDINGS))

    def loss(self, images: Tensor, labels: Tensor, patches: Tensor) -> Tensor:
        # An encoder-decoder has one token more, at the beginning.
        tokens = self.net.prefix(images)[:, -patches.shape[1] :]
        loss = binary_cross_entropy_with_logits(self.whole(tokens.amax(dim=1)), labels)
        return loss + 2.0 * binary_cross_entropy_with_logits(self.each(tokens), patches.float())


def learn(kind: str, model: Any, tokenizer: Any, home: Hospital, options: argparse.Namespace) -> Any:
    """Trained in place, as a net of the widest scope."""
    generator, rng = torch.Generator().manual_seed(options.seed), np.random.default_rng(options.seed)
    data, count = home.train, len(home.train_films)
    eyes, net = Eyes(net_of(kind, model, tokenizer, LOOKING[kind])), net_of(kind, model, tokenizer, OPTIONS[kind]["scope"])
    labels, patches = torch.from_numpy(data.labels), torch.from_numpy(data.patches)

    def look(rows: Tensor) -> Tensor:
        return eyes.loss(augment(data.batch(rows.numpy()), generator), labels[rows], patches[rows])

    def write(rows: Tensor) -> Tensor:
        told = [net.encode(*written(home.train_films[int(row)], rng, home.style), limit=LIMIT) for row in rows]
        return loss_of(net, augment(data.batch(rows.numpy()), generator), told)

    for name, loss_of_rows, module, epochs in (("looking", look, eyes, options.looking), ("writing", write, net, options.epochs)):
        batch = min(options.batch, count)
        for loss in _epochs(loss_of_rows, [module], count, epochs=epochs, batch=batch, rate=RATE, generator=generator):
            print(f"{kind}: {name}: loss {loss:.3f}", file=sys.stderr, flush=True)
    return net


def loss_of(net: Any, images: Tensor, told: Sequence[tuple[list[int], int]]) -> Tensor:
    """Mean over all tokens of the reports."""
    ids = padded([tokens for tokens, _ in told])
    answers = (torch.arange(ids.shape[1]) >= torch.tensor([[begin] for _, begin in told])) & (ids >= 0)
    logits = net(images, ids, answers)
    labels = ids.masked_fill(~answers, -100)[:, ids.shape[1] - logits.shape[1] + 1 :]
    return cross_entropy(logits[:, :-1].transpose(1, 2), labels, ignore_index=-100)


def save(net: Any, folder: Path) -> None:
    """As transformers has it: where GPT-2's layers became nn.Linear, their weights lie on their sides again."""
    from transformers.pytorch_utils import Conv1D
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = net.model
    if isinstance(net, EncoderDecoderNet):
        model = type(model)(model.config)
        model.encoder.pooler = None
        turned = {f"{path}.weight" for path, module in model.named_modules() if isinstance(module, Conv1D)}
        model.load_state_dict({key: one.T.contiguous() if key in turned else one for key, one in net.model.state_dict().items()})
    model.save_pretrained(folder)
    net.tokenizer.save_pretrained(folder)


def adapted(kind: str, folder: Path, away: Hospital, *, steps: int, seed: int) -> tuple[Any, int]:
    """The saved model as a recipe's base with LoRA trained on the other hospital's films; and how many numbers LoRA has."""
    base = BaseSection(model=kind, weights=str(folder), sha256=models.digest(folder), **OPTIONS[kind])
    # All linear layers of the parts: attention and MLP.
    section = LoraSection(rank=8, alpha=16, modules=".*(_proj|_attn|fc|fc1|fc2|linear_1|linear_2)")
    net: Any = models.load(base, lora=section, outputs={}, folder=folder)
    lora.attach(net, name=lora.SHARED, pattern=section.modules, rank=section.rank, alpha=section.alpha)
    lora.write_adapter(net, lora.draw(net, name=lora.SHARED, with_head=False, seed=seed), name=lora.SHARED)
    told = [net.encode(*_asked(film, away.style), limit=LIMIT) for film in away.train_films]
    ids = padded([tokens for tokens, _ in told])
    targets = ids.masked_fill(torch.arange(ids.shape[1]) < torch.tensor([[begin] for _, begin in told]), -100)
    owners = np.unique([film.case.patient for film in away.train_films], return_inverse=True)[1]
    features = Features(away.train.batch(slice(None)), targets, owners, given=ids)
    parameters = lora.trainable(net, name=lora.SHARED, with_head=False)
    task, fitting = Report(max_tokens=LIMIT), FitSection(steps=steps, patients_per_step=16, learning_rate=3e-3)
    if steps:
        fit(net, features, task, fitting, parameters=parameters, seed=(seed,))
    return net, sum(parameter.numel() for parameter in parameters.values())


def _asked(film: Film, style: Style) -> tuple[str, str]:
    return Prompt(indication=report_text.indication(film.case, style)).text(), report_text.write(film.case, style)


def row_of(kind: str, tokenizer: Any, home: Hospital, away: Hospital, options: argparse.Namespace) -> str:
    model = new_model(kind, tokenizer, options.seed)
    began = time.perf_counter()
    net = learn(kind, model, tokenizer, home, options)
    took, before, elsewhere = time.perf_counter() - began, _measured(net, home), _measured(net, away)
    count = sum(one.numel() for one in net.parameters())
    with tempfile.TemporaryDirectory() as folder:
        save(net, Path(folder))
        began = time.perf_counter()
        net, trained = adapted(kind, Path(folder), away, steps=options.lora_steps, seed=options.seed)
    lora_took, after = time.perf_counter() - began, _measured(net, away)
    with lora.switched_off(net):
        same = _measured(net, home) == before
    return (
        f"| {kind} | {count:,} | {took:.0f} s | {before['label F1']:.3f} | {before['word for word']:.3f} | {elsewhere['label F1']:.3f} "
        f"| {trained:,} | {lora_took:.0f} s | {after['label F1']:.3f} | {'the same' if same else 'NOT the same'} |"
    )


def _measured(net: Any, of: Hospital) -> dict[str, float]:
    return measured(net, of.test, of.test_films, home=of.style)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=1500)
    parser.add_argument("--looking", type=int, default=6, help="Epochs.")
    parser.add_argument("--epochs", type=int, default=6, help="Of writing.")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--adapting", type=int, default=200, help="Patients of the other hospital.")
    parser.add_argument("--lora-steps", type=int, default=150)
    parser.add_argument("--test", type=int, default=150, help="Patients of each hospital.")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    home = open_hospital(HOME, patients=options.patients, test=options.test, seed=options.seed)
    away = open_hospital(AWAY, patients=options.adapting, test=options.test, seed=options.seed)
    rng = np.random.default_rng(options.seed)
    tokenizer = tokenizer_of([text for film in home.train_films[:4000] for text in written(film, rng, home.style)])
    steps = len(home.train_films) // min(options.batch, len(home.train_films))
    print(
        f"{len(home.train_films)} films at home, {options.looking * steps} steps of looking and {options.epochs * steps} of writing; "
        f"{len(away.train_films)} elsewhere, {options.lora_steps} steps of LoRA"
    )
    print("| model | parameters | trained in | F1 at home | word for word | elsewhere | LoRA | in | elsewhere | home, adapter off |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for kind in OPTIONS:
        print(row_of(kind, tokenizer, home, away, options), flush=True)


if __name__ == "__main__":
    main()
