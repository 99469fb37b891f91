"""Where a base model computes and how its weights are held: adapters, gradients and noise are float32 whatever is chosen."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from client.models import Compute, Net, place
from client.models._compute import choose
from client.privacy.randomness import Stream, simulated_key
from client.training import lora
from client.training.clipping import clipped_sum
from client.training.fit import fit
from client.training.mechanism import Mechanism
from client.training.start import begin
from client.workbench import Bench, open_bench
from rainhill.errors import BaseModelError, ConfigError
from rainhill.recipe import LoraSection, Recipe
from sites.bench import SiteData, open_site
from sites.consortium import read_sites
from tests.client.test_models import densenet_folder, films, load

GIB = 2**30
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
SMALLER = ("bfloat16", "nf4")


@pytest.mark.parametrize(
    ("device", "precision", "free", "packs", "chosen"),
    [
        ("auto", "auto", None, True, Compute(device="cpu", precision="float32")),
        ("auto", "auto", 80 * GIB, True, Compute(device="cuda", precision="bfloat16")),
        # Seven thousand million numbers take 13 GiB in bfloat16, more than a quarter of 24.
        ("auto", "auto", 24 * GIB, True, Compute(device="cuda", precision="nf4")),
        ("auto", "auto", 24 * GIB, False, Compute(device="cuda", precision="bfloat16")),
        ("cuda", "float32", 24 * GIB, True, Compute(device="cuda", precision="float32")),
        ("cpu", "auto", 80 * GIB, True, Compute(device="cpu", precision="float32")),
        ("cpu", "nf4", None, True, Compute(device="cpu", precision="nf4")),
    ],
)
def test_auto_goes_by_the_gpu_and_by_the_room_that_is_left_on_it(device, precision, free, packs, chosen):
    assert choose(device, precision, weights=7 * 10**9, free=free, packs=packs) == chosen


def test_what_this_machine_cannot_do_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"device = 'cuda': torch .* finds no GPU here"):
        choose("cuda", "auto", weights=1, free=None, packs=True)
    with pytest.raises(ConfigError, match=r"precision = 'nf4': bitsandbytes is not installed"):
        choose("cpu", "nf4", weights=1, free=None, packs=False)


def opened(recipe: Recipe, folder: Path, hospitals: Path, precision: str) -> tuple[Bench, SiteData]:
    bench = open_bench(recipe, folder, precision=precision)
    return bench, open_site(bench, read_sites(hospitals)["aintree"], folder / "cache")


def frozen_bytes(net: Net) -> int:
    return sum(
        layer.weight.numel() * layer.weight.element_size()
        for path, layer in net.named_modules()
        if isinstance(layer, nn.Linear) and path.endswith("base_layer")
    )


@pytest.mark.parametrize(("precision", "share", "apart"), [("bfloat16", 1 / 2, 0.02), ("nf4", 1 / 8, 0.3)])
def test_a_smaller_base_gives_nearly_the_same_and_only_frozen_layers_shrink(recipe, tmp_path, hospitals, precision, share, apart):
    whole, site = opened(recipe, tmp_path, hospitals, "float32")
    small, _ = opened(recipe, tmp_path, hospitals, precision)
    assert small.net.compute == Compute(device="cpu", precision=precision)
    assert frozen_bytes(small.net) == pytest.approx(share * frozen_bytes(whole.net))
    trained = lora.trainable(small.net, name=lora.SHARED, with_head=True, with_norms=True)
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}
    with torch.no_grad():
        films = torch.from_numpy(site.cohort.images[:8])
        there, here = (net(net.prefix(films)) for net in (whole.net, small.net))
    assert here.dtype == torch.float32
    off = float((there - here).norm() / there.norm())
    assert 0 < off < apart


@pytest.mark.parametrize("precision", SMALLER)
def test_on_a_smaller_base_too_the_clipped_sum_is_that_of_patients_one_by_one(recipe, tmp_path, hospitals, precision):
    bench, site = opened(recipe, tmp_path, hospitals, precision)
    parameters = lora.trainable(bench.net, name=lora.SHARED, with_head=True)
    draw = torch.Generator().manual_seed(0)
    for parameter in parameters.values():
        parameter.requires_grad_(True).data.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    patients = site.train.images_of[:6]
    together, _ = clipped_sum(bench.net, bench.task, site.train, patients, parameters=parameters, max_grad_norm=0.05)
    expected = {name: torch.zeros_like(parameter, dtype=torch.float64) for name, parameter in parameters.items()}
    for rows in patients:
        rows = torch.from_numpy(rows)
        loss = bench.task.loss(bench.net(site.train.hidden[rows]), site.train.targets[rows]).mean()
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        norm = torch.sqrt(sum(gradient.double().square().sum() for gradient in gradients))
        for name, gradient in zip(parameters, gradients, strict=True):
            expected[name] += gradient.double() * min(1.0, 0.05 / float(norm))
    for name, total in together.items():
        torch.testing.assert_close(total, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", SMALLER)
def test_a_smaller_base_is_trained_on_and_stays_as_it_is(recipe, tmp_path, hospitals, precision):
    bench, site = opened(recipe, tmp_path, hospitals, precision)
    trained = lora.trainable(bench.net, name=lora.SHARED, with_head=True)
    own = {id(parameter) for parameter in trained.values()}
    base = {name: value.clone() for name, value in bench.net.named_parameters() if id(value) not in own}
    before = lora.read_adapter(bench.net, name=lora.SHARED, with_head=True)
    fitted = fit(bench.net, site.train, bench.task, recipe.rounds, parameters=trained, seed=(0,))
    assert np.isfinite(fitted.losses).all()
    assert lora.read_adapter(bench.net, name=lora.SHARED, with_head=True) != before
    for name, value in bench.net.named_parameters():
        if name in base:
            assert torch.equal(value, base[name]), name


def test_where_a_follows_the_base_its_weights_must_not_be_packed(recipe, tmp_path):
    bench = open_bench(recipe, tmp_path, precision="nf4")
    section = recipe.lora.model_copy(update={"init": "principal"})
    with pytest.raises(BaseModelError, match=r"lora.init = 'principal' reads the base model's weights, and those of .* are packed"):
        begin(bench.net, section, seed=0)


@torch.no_grad()
def test_convolutions_are_taken_in_bfloat16_and_not_packed(tmp_path):
    whole, net = (load(densenet_folder(tmp_path), model="densenet", lora_section=LoraSection(last_blocks=1)) for _ in range(2))
    with pytest.raises(BaseModelError, match="packs linear layers, and the base model has none: use bfloat16"):
        place(net, device="cpu", precision="nf4")
    lora.attach(net, name=lora.SHARED, pattern="conv.*", rank=2, alpha=2)
    place(net, device="cpu", precision="bfloat16")
    assert {layer.get_base_layer().weight.dtype for _, layer in lora.layers(net)} == {torch.bfloat16}
    there, here = (one(one.prefix(films(size=64))) for one in (whole, net))
    assert here.dtype == torch.float32
    assert 0 < float((there - here).norm()) < 0.05 * float(there.norm())


def step_of(bench: Bench, site: SiteData) -> dict[str, torch.Tensor]:
    """A private step's noised gradients, in main memory."""
    parameters = lora.trainable(bench.net, name=lora.SHARED, with_head=True)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    mechanism = Mechanism(
        noise_multiplier=1.0,
        max_grad_norm=0.1,
        sample_rate=0.8,
        expected_patients=0.8 * site.train.count,
        images_per_patient=2,
        drawable=np.ones(site.train.count, dtype=np.bool_),
        stream=Stream(simulated_key((1, 2, 3))),
    )
    mechanism.fill(bench.net, bench.task, site.train, parameters)
    return {name: parameter.grad.cpu() for name, parameter in parameters.items()}


@on_gpu
def test_on_a_gpu_a_private_step_is_the_same_up_to_rounding(recipe, tmp_path, hospitals):
    here, site = opened(recipe, tmp_path, hospitals, "float32")
    there = open_bench(recipe, tmp_path, device="cuda")
    assert {weight.device.type for weight in there.net.parameters()} == {"cuda"}
    expected = step_of(here, site)
    for name, gradient in step_of(there, site).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


@on_gpu
@pytest.mark.parametrize("precision", ["float32", *SMALLER])
def test_on_a_gpu_a_fit_moves_the_adapter_and_it_comes_back(recipe, tmp_path, hospitals, precision):
    bench = open_bench(recipe, tmp_path, device="cuda", precision=precision)
    site = open_site(bench, read_sites(hospitals)["aintree"], tmp_path / "cache")
    start = lora.read_adapter(bench.net, name=lora.SHARED, with_head=True)
    trained = lora.trainable(bench.net, name=lora.SHARED, with_head=True)
    fit(bench.net, site.train, bench.task, recipe.rounds, parameters=trained, seed=(0,))
    moved = lora.read_adapter(bench.net, name=lora.SHARED, with_head=True)
    assert moved != start
    lora.write_adapter(bench.net, moved, name=lora.SHARED)
    assert lora.read_adapter(bench.net, name=lora.SHARED, with_head=True) == moved
