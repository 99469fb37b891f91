"""Trains the embedded base model from nothing on phantoms of the source hospital: `python -m sites.pretrain --out DIR`.

A small vision transformer learns slowly from image labels alone, so while it trains a second head tells from each patch which findings lie
in it (the phantoms know); that head is thrown away. Augmentation stays light on purpose: a base that were robust to every
department would leave nothing to adapt.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits, grid_sample
from transformers import ViTConfig, ViTForImageClassification

from client.models import digest
from rainhill.toml import read_toml
from sites.films import PATCH, PIXELS, Films, draw_films
from sites.hospital import HospitalConfig, draw
from sites.phantom import FINDINGS

SOURCE = Path(__file__).parent / "source" / "halifax.toml"
HELD_OUT = 1000  # patients


def untrained(seed: int) -> ViTForImageClassification:
    torch.manual_seed(seed)
    return ViTForImageClassification(
        ViTConfig(
            image_size=PIXELS,
            patch_size=PATCH,
            num_channels=1,
            hidden_size=128,
            num_hidden_layers=6,
            num_attention_heads=4,
            intermediate_size=512,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            problem_type="multi_label_classification",
            id2label=dict(enumerate(FINDINGS)),
            label2id={name: index for index, name in enumerate(FINDINGS)},
        )
    )


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Up to four pixels aside, a few per cent larger or smaller, a slight gamma."""
    n = len(images)
    r = torch.rand((n, 4), generator=generator)
    theta = torch.zeros((n, 2, 3))
    theta[:, 0, 0] = theta[:, 1, 1] = 1 + 0.10 * (r[:, 0] - 0.5)
    theta[:, :, 2] = 0.125 * (r[:, 1:3] - 0.5)
    grid = torch.nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    moved = grid_sample(images, grid, padding_mode="border", align_corners=False)
    gamma = torch.exp(0.2 * (r[:, 3] - 0.5))[:, None, None, None]
    return ((moved + 1) / 2).clamp(0, 1).pow(gamma).mul(2).sub(1)


def train(model: ViTForImageClassification, data: Films, *, seed: int, epochs: int, batch: int, rate: float) -> Iterator[tuple[int, float]]:
    """AdamW with a cosine over all steps; yields (epoch, mean loss) after each epoch."""
    generator = torch.Generator().manual_seed(seed)
    head = torch.nn.Linear(model.config.hidden_size, len(FINDINGS))
    torch.nn.init.zeros_(head.weight)
    decay = [p for p in [*model.parameters(), *head.parameters()] if p.ndim > 1]
    plain = [p for p in [*model.parameters(), *head.parameters()] if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}], lr=rate, betas=(0.9, 0.98)
    )
    per_epoch = len(data.images) // batch
    steps = epochs * per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.06, cycle_momentum=False, final_div_factor=100
    )
    labels, patches = torch.from_numpy(data.labels), torch.from_numpy(data.patches)
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(data.images), generator=generator)
        total = 0.0
        for step in range(per_epoch):
            rows = order[step * batch : (step + 1) * batch]
            tokens = model.vit(augment(data.batch(rows.numpy()), generator)).last_hidden_state
            image_loss = binary_cross_entropy_with_logits(model.classifier(tokens[:, 0]), labels[rows])
            patch_loss = binary_cross_entropy_with_logits(head(tokens[:, 1:]), patches[rows].float())
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(image_loss + 2.0 * patch_loss)
            torch.nn.utils.clip_grad_norm_([*model.parameters(), *head.parameters()], 1.0)
            optimizer.step()
            schedule.step()
            total += float(image_loss.detach())
        yield epoch, total / per_epoch
    model.eval()


def scores(model: ViTForImageClassification, data: Films) -> NDArray[np.float32]:
    model.eval()
    with torch.inference_mode():
        parts = [model(data.batch(slice(start, start + 256))).logits for start in range(0, len(data.images), 256)]
    return np.asarray(torch.cat(parts).numpy())


def auroc(predicted: NDArray[np.float32], labels: NDArray[np.float32]) -> dict[str, float]:
    return {name: float(roc_auc_score(labels[:, k], predicted[:, k])) for k, name in enumerate(FINDINGS)}


def card(folder: Path, found: dict[str, float], *, seed: int, films: int, epochs: int, seconds: float) -> str:
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in found.items())
    mean = sum(found.values()) / len(found)
    return f"""# thorax-tiny

The base model that comes with Rainhill: a vision transformer of 1.2 million parameters (128 px, patches of 16, 6 layers of
width 128, 4 heads) for eight findings on frontal chest films.
**It was trained on drawn phantoms only and has no clinical meaning.** Licence: that of the project.

- Input: (1, 128, 128) in [-1, 1], bone bright; the 1st to 99th percentile of the film's values is spread over that range.
- Output: one logit per finding, in the order of `id2label`.
- Trained on {films} films of `sites/source/halifax.toml`, a department that digitises film and takes part in no simulation:
  {epochs} epochs in fp32, with an auxiliary head on the patches that is not kept. Augmentation is slight, so the model is
  *not* robust to other departments: that is the point.
- Made by `python -m sites.pretrain --out DIR --seed {seed}` in {seconds / 60:.0f} minutes on 2 cores. Training is
  deterministic for one seed, number of threads, machine and set of library versions; elsewhere expect the same to rounding.
- Pinned as sha256 `{digest(folder)}`,
  which is what `(cd DIR && sha256sum config.json model.safetensors | sha256sum)` prints.

AUROC on films of patients of the source hospital who were not trained on:

| finding | AUROC |
|---|---|
{rows}
| **mean** | **{mean:.3f}** |
"""


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--patients", default=14000, show_default=True, help="Patients of the source hospital to train on.")
@click.option("--epochs", default=14, show_default=True)
@click.option("--batch", default=64, show_default=True)
@click.option("--rate", default=1e-3, show_default=True, help="Peak learning rate.")
@click.option("--threads", default=2, show_default=True)
def main(out: Path, seed: int, patients: int, epochs: int, batch: int, rate: float, threads: int) -> None:
    """Draws the source hospital, trains the base model on it and saves it with its card."""
    began = time.monotonic()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    config = read_toml(SOURCE, HospitalConfig).phantom
    if config is None:
        raise click.ClickException(f"{SOURCE}: has no [phantom]")
    known, test = draw(config.model_copy(update={"patients": patients, "test_patients": HELD_OUT}), seed=seed)
    data, held_out = (draw_films(config, [case for patient in part for case in patient.cases], threads=threads) for part in (known, test))
    click.echo(f"{len(data.images)} films drawn in {time.monotonic() - began:.0f} s", err=True)
    model = untrained(seed)
    for epoch, loss in train(model, data, seed=seed, epochs=epochs, batch=batch, rate=rate):
        mean = np.mean(list(auroc(scores(model, held_out), held_out.labels).values()))
        model.train()
        click.echo(f"epoch {epoch + 1:2d}: loss {loss:.4f}, held-out mean AUROC {mean:.4f}, {time.monotonic() - began:.0f} s", err=True)
    found = auroc(scores(model, held_out), held_out.labels)
    model.save_pretrained(out)
    text = card(out, found, seed=seed, films=len(data.images), epochs=epochs, seconds=time.monotonic() - began)
    (out / "README.md").write_text(text, encoding="utf-8")
    for name, value in found.items():
        click.echo(f"{name:14s} {value:.3f}")
    click.echo(f"{'mean':14s} {np.mean(list(found.values())):.3f}\n{digest(out)}")


if __name__ == "__main__":
    sys.exit(main())
