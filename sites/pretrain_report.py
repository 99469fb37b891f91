"""Trains the embedded model that drafts reports, from nothing, on phantoms of its home: `python -m sites.pretrain_report --out DIR`.

A tiny LLaVA with its own tokenizer. First its eyes learn on a teaching collection, in which each finding is frequent, what a film shows,
how grave it is and in which patches (the phantoms know; the heads for that are thrown away). Then the rest of it learns to write of what
they see on the films of other patients, with findings as frequent as they are there: so it learns how far its eyes can be trusted. Half of
the reports are in the home hospital's style, the others in those of other departments, so that the model has met their words.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from client.data.labeler import Labeler
from client.drafting.prompt import Prompt
from client.models import digest
from client.models._families import Family
from client.models.vlm import VlmNet, padded
from client.reporting.clinical import clinical
from client.reporting.reading import reading
from rainhill.recipe import EvaluationSection
from rainhill.toml import read_toml
from sites import phantom, report_text
from sites.cases import Case, Patient
from sites.films import PATCH, PIXELS, Films, draw_films
from sites.hospital import HospitalConfig, PhantomConfig, draw
from sites.phantom import FINDINGS
from sites.pretrain import augment
from sites.report_text import Style

SOURCE = Path(__file__).parent / "reporting" / "source" / "liverpool.toml"
HELD_OUT = 300  # patients
IMAGE, END = "<image>", "</s>"
VOCABULARY = 768
LIMIT = 192
COMMON = 0.25
"""Share of the films of the teaching collection that show each finding."""
AT_HOME = 0.5
"""Share of the reports that are in the home hospital's style."""
WITH_PRIOR = 0.75
"""Of the films that have one before them, the share whose report compares with it, and has its report in the prompt."""
IMAGINED = 0.6
"""Of the others, the share whose report compares with a film that was never taken."""
WITH_FINDINGS = 0.25
"""Share of the prompts that say what a classifier found."""


@dataclass(frozen=True, kw_only=True)
class Film:
    """What may be written of one film."""

    case: Case
    before: Case | None


def films_of(patients: Sequence[Patient]) -> list[Film]:
    return [
        Film(case=case, before=before) for patient in patients for before, case in zip((None, *patient.cases), patient.cases, strict=False)
    ]


def written(film: Film, rng: np.random.Generator, home: Style) -> tuple[str, str]:
    """A prompt and a report; another style, another prompt, and another answer each time."""
    others = [style for style in get_args(Style) if style != home]
    style: Style = home if rng.random() < AT_HOME else others[int(rng.integers(len(others)))]
    before = _before(film, rng)
    prompt = Prompt(
        indication=report_text.indication(film.case, style) if rng.random() < 0.8 else "",
        prior=report_text.write(before, style) if before else "",
        findings=_predicted(film.case, rng) if rng.random() < WITH_FINDINGS else None,
    )
    return prompt.text(), report_text.write(film.case, style, before=before)


def _before(film: Film, rng: np.random.Generator) -> Case | None:
    """Of those that are drawn nearly all findings stay; of those that are imagined half, so that both words are learned."""
    if film.before and rng.random() < WITH_PRIOR:
        return film.before
    return report_text.imagined(film.case) if rng.random() < IMAGINED else None


def _predicted(case: Case, rng: np.random.Generator) -> tuple[str, ...]:
    """As a classifier might find it: one label in twenty is wrong."""
    wrong = rng.random(len(FINDINGS)) < 0.05
    return tuple(name for name, label, flip in zip(FINDINGS, phantom.labels(case), wrong, strict=True) if bool(label) != flip)


def tokenizer_of(texts: Sequence[str]) -> Any:
    """Byte-level BPE (Sennrich et al. 2016, arXiv:1508.07909): it can write any text, and has words for those of phantoms."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END, IMAGE], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, extra_special_tokens={"image_token": IMAGE})


def untrained(tokenizer: Any, seed: int) -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=PIXELS,
        patch_size=PATCH,
        num_channels=1,
        attention_dropout=0.0,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            tie_word_embeddings=True,
        )
    )


def as_writer(model: Any, tokenizer: Any) -> VlmNet:
    """The model as `client.models` would load it."""
    net = VlmNet(model, tokenizer, Family(), scope="language", size=None, last_blocks=None, scaling={})
    return net.eval()


class Eyes(nn.Module):
    """The vision tower with three heads that are thrown away: what the film shows, how grave that is, and what each patch shows."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, width = model.model.vision_tower, model.config.vision_config.hidden_size
        self.whole, self.grave, self.each = (nn.Linear(width, len(FINDINGS)) for _ in range(3))

    def loss(self, images: Tensor, labels: Tensor, severities: Tensor, patches: Tensor) -> Tensor:
        tokens = _tokens(self.tower, images)
        most = tokens.amax(dim=1)
        there = binary_cross_entropy_with_logits(self.whole(most), labels)
        where = binary_cross_entropy_with_logits(self.each(tokens), patches.float())
        off = (self.grave(most).sigmoid() - severities).square()[labels > 0].mean() if labels.any() else torch.zeros(())
        # A square of what is off by a sixth or so is little beside the others.
        return there + 2.0 * where + 10.0 * off


def _tokens(tower: Any, images: Tensor) -> Tensor:
    """(N, 1, S, S) -> (N, patches, width), which the language model may read."""
    found: Tensor = tower(images, output_hidden_states=True).hidden_states[-1][:, 1:]
    return found


def look(model: Any, data: Films, *, seed: int, epochs: int, batch: int, rate: float) -> Iterator[float]:
    """Trains the model's eyes; yields the mean loss of each epoch."""
    generator, eyes = torch.Generator().manual_seed(seed), Eyes(model)
    labels, severities, patches = map(torch.from_numpy, (data.labels, data.severities, data.patches))

    def loss(rows: Tensor) -> Tensor:
        return eyes.loss(augment(data.batch(rows.numpy()), generator), labels[rows], severities[rows], patches[rows])

    return _epochs(loss, [eyes], len(data.images), epochs=epochs, batch=batch, rate=rate, generator=generator)


def write(
    net: VlmNet, data: Films, films: Sequence[Film], *, home: Style, seed: int, epochs: int, batch: int, rate: float
) -> Iterator[float]:
    """Trains the rest of the model to write of what its eyes see, which move no more; yields the mean loss of each epoch."""
    generator, rng, inner = torch.Generator().manual_seed(seed), np.random.default_rng(seed), net.model.model
    seen = _seen(inner.vision_tower, data)

    def loss(rows: Tensor) -> Tensor:
        return _writing(net, inner.multi_modal_projector(seen[rows].float()), [films[int(row)] for row in rows], rng, home)

    voice = [inner.multi_modal_projector, inner.language_model]
    return _epochs(loss, voice, len(films), epochs=epochs, batch=batch, rate=rate, generator=generator)


def _epochs(
    loss_of: Callable[[Tensor], Tensor],
    modules: Sequence[nn.Module],
    count: int,
    *,
    epochs: int,
    batch: int,
    rate: float,
    generator: torch.Generator,
) -> Iterator[float]:
    """AdamW with one cycle of the learning rate over all steps; the mean loss of each epoch."""
    steps, weights = count // batch, list(dict.fromkeys(weight for module in modules for weight in module.parameters()))
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": 0.05},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=max(1, epochs * steps), pct_start=0.06, cycle_momentum=False, final_div_factor=100
    )
    for _ in range(epochs):
        total, order = 0.0, torch.randperm(count, generator=generator)
        for step in range(steps):
            loss = loss_of(order[step * batch : (step + 1) * batch])
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        yield total / max(1, steps)


@torch.no_grad()
def _seen(tower: Any, data: Films) -> Tensor:
    """(N, patches, width) tokens of the films as they are, in half the room."""
    return torch.cat([_tokens(tower, data.batch(slice(start, start + 256))).bfloat16() for start in range(0, len(data.images), 256)])


def _writing(net: VlmNet, features: Tensor, films: Sequence[Film], rng: np.random.Generator, home: Style) -> Tensor:
    """Mean over all tokens of the reports; long prompts and short ones apart, so that little is filled up."""
    told = [net.encode(*written(film, rng, home), limit=LIMIT) for film in films]
    order = sorted(range(len(told)), key=lambda place: len(told[place][0]))
    half, total, tokens = -(-len(order) // 2), torch.zeros(()), 0
    for rows in (order[:half], order[half:]):
        ids = padded([told[row][0] for row in rows])
        answers = (torch.arange(ids.shape[1]) >= torch.tensor([[told[row][1]] for row in rows])) & (ids >= 0)
        logits = net(features[rows], ids, answers)
        labels = ids.masked_fill(~answers, -100)[:, ids.shape[1] - logits.shape[1] + 1 :]
        total = total + cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
        tokens += int(answers.sum())
    return total / tokens


@torch.no_grad()
def measured(net: VlmNet, data: Films, films: Sequence[Film], *, home: Style) -> dict[str, float]:
    """Drafts of these films, each with its indication and without an earlier film, against their reports."""
    labeler = Labeler()
    truth = [report_text.write(film.case, home) for film in films]
    prompts = [
        net.encode(Prompt(indication=report_text.indication(film.case, home), prior="").text(), None, limit=LIMIT)[0] for film in films
    ]
    drafts = [
        one.text
        for start in range(0, len(films), 64)
        for one in net.write(net.prefix(data.batch(slice(start, start + 64))), prompts[start : start + 64], limit=LIMIT)
    ]
    said, wanted = ([reading(labeler, text) for text in texts] for texts in (drafts, truth))
    found = clinical(said, wanted, np.arange(len(films)), section=EvaluationSection(bootstraps=100), seed=(0,))
    each = {name: of["f1"].value for name, of in found.findings.items()}
    exact = float(np.mean([draft == text for draft, text in zip(drafts, truth, strict=True)]))
    return {"label F1": found.means["label_f1"].value, **each, "word for word": exact}


def collection(config: PhantomConfig, patients: int) -> PhantomConfig:
    """The teaching collection: other patients of the hospital, chosen for what they have."""
    often = config.population.model_copy(update={"prevalence": dict.fromkeys(FINDINGS, COMMON)})
    return config.model_copy(update={"population": often, "patients": patients, "test_patients": 0, "seed": config.seed + 10_000})


def card(
    folder: Path,
    found: dict[str, float],
    *,
    seed: int,
    films: tuple[int, int],
    parameters: int,
    looking: int,
    writing: int,
    seconds: float,
) -> str:
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in found.items())
    return f"""# draft-tiny

The model that drafts reports, as it comes with Rainhill: a LLaVA of {parameters / 1e6:.2f} million parameters (128 px, patches of 16;
eyes of four layers, a language model of two, width 64) with a byte-level BPE tokenizer of {VOCABULARY} tokens.
**It was trained on drawn phantoms and the texts of a grammar, and has no clinical meaning.** Licence: that of the project.

- Input: (1, 128, 128) in [-1, 1], bone bright, and a prompt: indication, the report of the film before where there is one, and in a
  quarter of the training what a classifier finds.
- Output: findings and impression.
- Trained on films of `sites/reporting/source/liverpool.toml`, a department that digitises film and takes part in no run: {looking} epochs
  of looking at {films[0]} of a teaching collection, in which every finding is frequent, with heads that are not kept; and {writing} of
  writing on {films[1]} others. {AT_HOME:.0%} of the reports are in that department's style, the others in those of four more departments.
- Made by `python -m sites.pretrain_report --out DIR --seed {seed}` in {seconds / 60:.0f} minutes on one core. Training is
  deterministic for one seed, number of threads, machine and set of library versions; elsewhere expect the same to rounding.
- Pinned as sha256 `{digest(folder)}`,
  of the listing that `sha256sum` prints of config.json, model.safetensors, tokenizer.json and tokenizer_config.json.

F1 of the labels that are read in drafts, on films of patients of the same hospital who were not trained on, without an earlier film:

| what | F1 |
|---|---|
{rows}
"""


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--collected", default=12000, show_default=True, help="Patients of the teaching collection, to learn looking on.")
@click.option("--patients", default=9000, show_default=True, help="Patients of the home hospital, to learn writing on.")
@click.option("--looking", default=60, show_default=True, help="Epochs.")
@click.option("--writing", default=14, show_default=True, help="Epochs.")
@click.option("--batch", default=64, show_default=True)
@click.option("--rate", default=2e-3, show_default=True, help="Peak learning rate.")
@click.option("--threads", default=1, show_default=True)
def main(out: Path, seed: int, collected: int, patients: int, looking: int, writing: int, batch: int, rate: float, threads: int) -> None:
    """Draws the home hospital, trains the model on it and saves it with its card."""
    began = time.monotonic()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    config = read_toml(SOURCE, HospitalConfig).phantom
    if config is None:
        raise click.ClickException(f"{SOURCE}: has no [phantom]")
    known, test = draw(config.model_copy(update={"patients": patients, "test_patients": HELD_OUT}), seed=seed)
    shown, _ = draw(collection(config, collected), seed=seed)
    films, rng = films_of(known), np.random.default_rng(seed)
    taught, data, held_out = (
        draw_films(config, [case for patient in part for case in patient.cases], threads=threads) for part in (shown, known, test)
    )
    click.echo(f"{len(taught.images)} and {len(films)} films drawn in {time.monotonic() - began:.0f} s", err=True)
    tokenizer = tokenizer_of([text for film in films[:4000] for text in written(film, rng, config.report)])
    net = as_writer(untrained(tokenizer, seed), tokenizer)
    for loss in look(net.model, taught, seed=seed, epochs=looking, batch=batch, rate=rate):
        click.echo(f"looking: loss {loss:.4f}, {time.monotonic() - began:.0f} s", err=True)
    for loss in write(net, data, films, home=config.report, seed=seed, epochs=writing, batch=batch, rate=rate):
        click.echo(f"writing: loss {loss:.4f}, {time.monotonic() - began:.0f} s", err=True)
    found = measured(net, held_out, films_of(test), home=config.report)
    net.model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    # Nobody reads it: what generates has its own settings.
    (out / "generation_config.json").unlink(missing_ok=True)
    text = card(
        out,
        found,
        seed=seed,
        films=(len(taught.images), len(films)),
        parameters=sum(weight.numel() for weight in net.model.parameters()),
        looking=looking,
        writing=writing,
        seconds=time.monotonic() - began,
    )
    (out / "README.md").write_text(text, encoding="utf-8")
    for name, value in found.items():
        click.echo(f"{name:24s} {value:.3f}")
    click.echo(digest(out))


if __name__ == "__main__":
    sys.exit(main())
