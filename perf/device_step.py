"""A plain and a private step of a large base where it computes: images a second and memory, its frozen weights held in three ways.

    python -m perf.device_step [--device auto] [--width 768] [--patients 64] [--steps 20] [--precisions float32 bfloat16 nf4]

Meant for a GPU; on a CPU it runs, slowly, and tells no memory. ViT of 12 blocks at 224 px (ViT-B where not said otherwise), LoRA of rank 8
on q and v of every block, one image of each patient; weights are random, for they cost the same. Plain and private steps take turns, and
medians of their ratios are told. Memory is the most that was allocated on the GPU during a step, weights and all.
"""

import argparse
import gc
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import get_args

import numpy as np
import torch

from perf.prefix_cache import Setting, write_base
from perf.private_step import Step, ours, plain
from rainhill.config import BasePrecision, Device

WAYS = {"plain LoRA": plain, "ours, private": ours}


def seconds(step: Step, *, on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak_mb(step: Step) -> float:
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e6


def measure(setting: Setting, patients: int, steps: int) -> None:
    on_gpu = setting.device != "cpu" and torch.cuda.is_available()
    memory = []
    for make in WAYS.values():
        # One network at a time, or the memory of both would be told.
        gc.collect()
        memory.append(f"{peak_mb(make(setting, patients)):.0f} MB" if on_gpu else "-")
    made = [make(setting, patients) for make in WAYS.values()]
    for step in made:
        step()
    found = np.array([[seconds(step, on_gpu=on_gpu) for step in made] for _ in range(steps)])
    ratios = found / found[:, :1]
    for way, taken, ratio, most in zip(WAYS, found.T, ratios.T, memory, strict=True):
        print(f"| {setting.base_precision} | {way} | {patients / median(taken):.0f} | {median(ratio):.2f} | {most} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=get_args(Device), default="auto")
    parser.add_argument("--width", type=int, default=768, help="64 for each head")
    parser.add_argument("--patients", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precisions", nargs="+", choices=get_args(BasePrecision)[1:], default=list(get_args(BasePrecision)[1:]))
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device != "cpu" and torch.cuda.is_available() else "CPU"
    print(f"{name}, torch {torch.__version__}, {options.patients} images a step\n")
    print("| frozen weights | way | images/s | to plain | GPU memory |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        base = write_base(Path(temporary), width=options.width)
        for precision in options.precisions:
            setting = Setting(
                folder=Path(temporary), base=base, blocks=12, precision="float32", device=options.device, base_precision=precision
            )
            measure(setting, options.patients, options.steps)


if __name__ == "__main__":
    main()
