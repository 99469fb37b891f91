"""What a private step costs beside a plain one: ours, Opacus's hooks and Opacus's ghost clipping. ViT at 224 px, one thread.

    python -m perf.private_step [--models small tiny] [--patients 8] [--steps 7]

LoRA of rank 8 on q and v of all 12 blocks, one image of each patient, forward, backward, clipping by patient and noise; weights are random,
for they cost the same. Every way takes its turn and medians are compared, so that a busy machine is busy for all. Memory is the most that
was resident in a process of its own which does only steps of one kind.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from client.models import Net
from client.privacy.randomness import Stream, fresh_key
from client.tasks.findings import Findings
from client.training import lora
from client.training.features import Features
from client.training.mechanism import Mechanism
from perf.prefix_cache import Setting, open_net, write_base

WIDTHS = {"small": 384, "tiny": 192}
BOUND, SIGMA = 0.1, 1.0
Step = Callable[[], None]


def opened(setting: Setting, patients: int) -> tuple[Net, Findings, Features, dict[str, nn.Parameter]]:
    """The network, and patients with one random image each."""
    net, task = open_net(setting)
    torch.manual_seed(0)
    with torch.no_grad():
        hidden = net.prefix(torch.rand(patients, 1, 224, 224) * 2 - 1)
    parameters = lora.trainable(net, name=lora.SHARED, with_head=True)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return net, task, Features(hidden, torch.ones(patients, 1), np.arange(patients)), parameters


def plain(setting: Setting, patients: int) -> Step:
    net, task, features, parameters = opened(setting, patients)
    optimizer = torch.optim.SGD(parameters.values(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(task.loss(net(features.hidden[:]), features.targets).mean())
        optimizer.step()

    return step


def ours(setting: Setting, patients: int) -> Step:
    net, task, features, parameters = opened(setting, patients)
    optimizer = torch.optim.SGD(parameters.values(), lr=1e-6)
    mechanism = Mechanism(
        noise_multiplier=SIGMA,
        max_grad_norm=BOUND,
        sample_rate=1.0,
        expected_patients=patients,
        images_per_patient=1,
        drawable=np.ones(patients, dtype=np.bool_),
        stream=Stream(fresh_key()),
    )

    def step() -> None:
        mechanism.fill(net, task, features, parameters)
        optimizer.step()

    return step


def hooks(setting: Setting, patients: int) -> Step:
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer

    net, task, features, parameters = opened(setting, patients)
    # In evaluation mode its hooks look away; there is no dropout here.
    module = GradSampleModule(net.train(), loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(parameters.values(), lr=1e-6),
        noise_multiplier=SIGMA,
        max_grad_norm=BOUND,
        expected_batch_size=patients,
        loss_reduction="sum",
    )
    hidden = features.hidden[:].clone().requires_grad_(True)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(task.loss(module(hidden), features.targets).sum())
        optimizer.step()

    return step


def ghost(setting: Setting, patients: int) -> Step:
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    net, task, features, parameters = opened(setting, patients)
    module = GradSampleModuleFastGradientClipping(net.train(), max_grad_norm=BOUND, use_ghost_clipping=True, loss_reduction="sum")
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(parameters.values(), lr=1e-6),
        noise_multiplier=SIGMA,
        max_grad_norm=BOUND,
        expected_batch_size=patients,
        loss_reduction="sum",
    )
    criterion = DPLossFastGradientClipping(module, optimizer, _ByImage(task), loss_reduction="sum")
    hidden = features.hidden[:].clone().requires_grad_(True)

    def step() -> None:
        optimizer.zero_grad()
        criterion(module(hidden), features.targets).backward()
        optimizer.step()

    return step


class _ByImage:
    """A loss that ghost clipping takes: one number per image, and a reduction to set."""

    def __init__(self, task: Findings) -> None:
        self.task, self.reduction = task, "sum"

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        each: torch.Tensor = self.task.loss(logits, targets)
        return each


WAYS: dict[str, Callable[[Setting, int], Step]] = {"plain LoRA": plain, "ours, private": ours, "Opacus hooks": hooks, "Opacus ghost": ghost}


def seconds(step: Step) -> float:
    """Of the processor: one thread does all the work."""
    started = time.process_time()
    step()
    return time.process_time() - started


def peak_mb(setting: Setting, way: str, patients: int) -> float:
    """Run in a process of its own."""
    torch.set_num_threads(1)
    step = WAYS[way](setting, patients)
    for _ in range(2):
        step()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--patients", type=int, default=8)
    parser.add_argument("--steps", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | way | step | to plain | resident |")
    print("|---|---|---|---|---|")
    for model in options.models:
        with tempfile.TemporaryDirectory() as temporary:
            base = write_base(Path(temporary), width=WIDTHS[model])
            setting = Setting(folder=Path(temporary), base=base, blocks=12, precision="float32")
            steps = [make(setting, options.patients) for make in WAYS.values()]
            for step in steps:
                step()
            found = np.array([[seconds(step) for step in steps] for _ in range(options.steps)])
            # Of each turn the ratio: what slows the machine down slows a whole turn.
            ratios = found / found[:, :1]
            with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
                memory = [pool.apply(peak_mb, (setting, way, options.patients)) for way in WAYS]
        for way, taken, ratio, resident in zip(WAYS, found.T, ratios.T, memory, strict=True):
            print(f"| ViT-{model} | {way} | {median(taken):.3f} s | {median(ratio):.2f} | {resident:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
