"""Training and drafting with a vision-language model, with and without privacy, beside plain transformers and PEFT in the same run.

    python -m perf.drafting_speed [--weights FOLDER] [--steps 20] [--images 16] [--drafts 32] [--threads 1]

The plain way is what a script of one's own would do: `LlavaForConditionalGeneration` with PEFT's LoRA on the same layers, `labels` and
`pixel_values` given to its forward pass, AdamW, and `generate`. Both ways see the same films, prompts and reports in the same batches, in
turns, and the fastest of eight rounds counts. Ours drafts with the log-probability of each token, which plain `generate` does not give.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from client.models.vlm import Vlm, VlmNet, padded
from client.tasks.report import Report
from client.training import lora
from client.training.clipping import clipped_sum
from client.training.features import Features
from rainhill.toml import read_toml
from sites.films import draw_films
from sites.hospital import HospitalConfig, draw
from sites.pretrain_report import Film, films_of, written

HERE = Path(__file__).parent.parent
EMBEDDED = HERE / "client/models/weights/draft_tiny"
SOURCE = HERE / "sites/reporting/source/liverpool.toml"
MODULES = "(q_proj|k_proj|v_proj|o_proj|out_proj|gate_proj|up_proj|down_proj|fc1|fc2|linear_1|linear_2)"
RANK, ALPHA, LIMIT = 8, 16, 192
ROUNDS = 8


@dataclass(frozen=True, kw_only=True)
class Data:
    images: torch.Tensor
    """(N, 1, S, S)"""
    ids: torch.Tensor
    targets: torch.Tensor
    prompts: Sequence[Sequence[int]]

    @property
    def tokens(self) -> int:
        return int((self.ids >= 0).sum())


def data_of(net: VlmNet, count: int) -> Data:
    config = read_toml(SOURCE, HospitalConfig).phantom
    assert config is not None
    _, test = draw(config.model_copy(update={"patients": 1, "test_patients": count}), seed=0)
    films: list[Film] = films_of(test)[:count]
    drawn, rng = draw_films(config, [film.case for film in films]), np.random.default_rng(0)
    told = [written(film, rng, config.report) for film in films]
    rows = [net.encode(prompt, answer, limit=LIMIT) for prompt, answer in told]
    ids = padded([row for row, _ in rows])
    targets = ids.clone()
    for row, (_, begin) in zip(targets, rows, strict=True):
        row[:begin] = -100
    return Data(images=drawn.batch(slice(None)), ids=ids, targets=targets, prompts=[row[:begin] for row, begin in rows])


def ours(folder: Path, scope: Any) -> tuple[VlmNet, dict[str, nn.Parameter]]:
    net = Vlm(scope=scope).load(folder, outputs={}, last_blocks=None)
    assert isinstance(net, VlmNet)
    net.base_norms, net.base_head = {}, {}
    net.requires_grad_(False)
    lora.attach(net, name=lora.SHARED, pattern=MODULES, rank=RANK, alpha=ALPHA)
    parameters = lora.trainable(net, name=lora.SHARED, with_head=False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return net, parameters


def plain(folder: Path, names: Sequence[str]) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    return get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(names)))


def fastest(ways: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Seconds of each way, in turns."""
    for way in ways.values():
        way()
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - begun)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=EMBEDDED)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--drafts", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for scope in ("language", "language+projector+vision"):
        net, parameters = ours(options.weights, scope)
        data, task = data_of(net, max(options.images, options.drafts)), Report(max_tokens=LIMIT)
        names = [path.removeprefix("model.") for path, _ in lora.layers(net)]
        other = plain(options.weights, names)
        with torch.no_grad():
            hidden = net.prefix(data.images)
        features = Features(hidden, data.targets, np.arange(len(data.images)), given=data.ids)
        print_training(scope, task, net, parameters, features, other, data, options)
        print_drafting(scope, net, hidden, other, data, options)


def print_training(
    scope: str, task: Report, net: VlmNet, parameters: dict[str, nn.Parameter], features: Features, other: Any, data: Data, options: Any
) -> None:
    rows = torch.arange(options.images)
    mine = torch.optim.AdamW(parameters.values(), lr=1e-4)
    theirs = torch.optim.AdamW([one for one in other.parameters() if one.requires_grad], lr=1e-4)
    ids, targets = data.ids[rows], data.targets[rows]
    longest = int((ids >= 0).sum(dim=1).max())
    ids, targets = ids[:, :longest], targets[:, :longest]

    def our_steps() -> None:
        for _ in range(options.steps):
            mine.zero_grad(set_to_none=True)
            torch.autograd.backward(task.losses(net, features, rows).mean())
            mine.step()

    def private_steps() -> None:
        for _ in range(options.steps):
            totals, _ = clipped_sum(
                net, task, features, [np.array([row]) for row in rows.tolist()], parameters=parameters, max_grad_norm=0.1
            )
            for name, parameter in parameters.items():
                parameter.grad = (totals[name] / len(rows)).to(parameter.dtype)
            mine.step()

    def plain_steps() -> None:
        for _ in range(options.steps):
            theirs.zero_grad(set_to_none=True)
            given = {
                "input_ids": ids.clamp(min=0),
                "attention_mask": (ids >= 0).long(),
                "pixel_values": data.images[rows],
                "labels": targets,
            }
            other(**given).loss.backward()
            theirs.step()

    told = fastest({"plain": plain_steps, "ours": our_steps, "private": private_steps})
    tokens = int((ids >= 0).sum()) * options.steps
    for name, seconds in told.items():
        print(
            f"training, {scope}, {name}: {options.images * options.steps / seconds:.0f} images/s, {tokens / seconds:.0f} tokens/s, "
            f"{told['plain'] / seconds:.2f} of the plain way's speed"
        )


def print_drafting(scope: str, net: VlmNet, hidden: torch.Tensor, other: Any, data: Data, options: Any) -> None:
    prompts, images = data.prompts[: options.drafts], data.images[: options.drafts]
    longest, end = max(map(len, prompts)), net.tokenizer.eos_token_id
    ids = torch.tensor([[-100] * (longest - len(one)) + list(one) for one in prompts])
    counts: dict[str, int] = {}

    def our_drafts() -> None:
        found = net.write(hidden[: options.drafts], prompts, limit=LIMIT)
        counts["ours"] = sum(len(one.logprobs) for one in found)

    def plain_drafts() -> None:
        with torch.no_grad():
            found = other.generate(
                input_ids=ids.clamp(min=0),
                attention_mask=(ids >= 0).long(),
                pixel_values=images,
                max_new_tokens=LIMIT,
                do_sample=False,
                eos_token_id=end,
                pad_token_id=end,
            )[:, longest:]
        counts["plain"] = int(sum(row.index(end) + 1 if end in row else len(row) for row in found.tolist()))

    told = fastest({"plain": plain_drafts, "ours": our_drafts})
    rate = {name: counts[name] / seconds for name, seconds in told.items()}
    for name, speed in rate.items():
        print(
            f"drafting, {scope}, {name}: {options.drafts / told[name]:.1f} films/s, {speed:.0f} tokens/s, "
            f"{speed / rate['plain']:.2f} of the plain way's speed"
        )


if __name__ == "__main__":
    main()
