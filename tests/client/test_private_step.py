"""The private step against a loop over patients, one image at a time; and what fails silently where it is done otherwise."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from client.models import Net
from client.privacy.randomness import KEY_BYTES, Stream, commitment, fresh_key, simulated_key
from client.tasks import Task
from client.tasks.findings import Findings
from client.training import clipping, lora
from client.training.clipping import clipped_sum
from client.training.features import Features
from client.training.fit import Pull, fit
from client.training.mechanism import Mechanism
from client.training.per_sample import recorded, refuse_what_mixes
from client.training.start import begin
from rainhill.adapter import Adapter, Array
from rainhill.errors import BaseModelError
from rainhill.recipe import FitSection, LoraSection
from tests.client.test_models import densenet_folder, load

TASK: Task = Findings(findings=("square", "stripe"))
SETS: dict[str, Callable[[str], bool]] = {
    "both factors and the head": lambda name: not name.startswith(lora.NORM),
    "B alone": lambda name: name.endswith(".lora_B"),
    "A alone": lambda name: name.endswith(".lora_A"),
    "norms too": lambda name: True,
}


def prepared(net: Net, *, modules: str = r"q_proj|v_proj", seed: int = 0) -> dict[str, nn.Parameter]:
    """LoRA with both factors away from zero, so that each has a gradient."""
    lora.attach(net, name=lora.SHARED, pattern=modules, rank=2, alpha=4)
    drawn = begin(net, LoraSection(rank=2, alpha=4, modules=modules), seed=seed)
    rng = np.random.default_rng(seed)
    moved = Adapter({name: array + 0.3 * rng.normal(size=array.shape).astype(np.float32) for name, array in drawn.items()})
    lora.write_adapter(net, moved, name=lora.SHARED)
    parameters = lora.trainable(net, name=lora.SHARED, with_head=True, with_norms=True)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return parameters


@pytest.fixture
def vit(tiny_base: Path) -> tuple[Net, dict[str, nn.Parameter]]:
    net = load(tiny_base)
    return net, prepared(net)


def patients_of(net: Net, count: int, *, seed: int = 0, most: int = 4) -> Features:
    """Random images whose gradients differ tenfold in length, one to `most` of each patient, some without a label."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(count), rng.integers(1, most + 1, count))
    images = torch.from_numpy(rng.normal(size=(len(owners), 1, net.size, net.size)).astype(np.float32))
    labels = rng.integers(0, 2, (len(owners), 2)).astype(np.float32)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    with torch.no_grad():
        hidden = net.prefix(images)
    return Features(hidden, torch.from_numpy(labels), owners)


def rows_of(features: Features) -> list[Array]:
    return list(features.images_of)


def only(parameters: dict[str, nn.Parameter], keep: Callable[[str], bool]) -> dict[str, nn.Parameter]:
    for name, parameter in parameters.items():
        parameter.requires_grad_(keep(name))
    return {name: parameter for name, parameter in parameters.items() if keep(name)}


def by_loop(
    net: Net, features: Features, patients: Sequence[Array], parameters: dict[str, nn.Parameter], max_grad_norm: float
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The oracle: each patient's mean loss, one image at a time through plain autograd, clipped, summed."""
    totals = {name: torch.zeros(parameter.shape, dtype=torch.float64) for name, parameter in parameters.items()}
    norms = []
    for own in patients:
        mean = [torch.zeros(parameter.shape, dtype=torch.float64) for parameter in parameters.values()]
        for row in own:
            loss = TASK.loss(net(features.hidden[row : row + 1]), features.targets[row : row + 1]).sum()
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            mean = [total if one is None else total + one.double() / len(own) for total, one in zip(mean, gradients, strict=True)]
        norm = float(torch.sqrt(sum((one.square().sum() for one in mean), torch.zeros((), dtype=torch.float64))))
        norms.append(norm)
        for total, one in zip(totals.values(), mean, strict=True):
            total += one * min(1.0, max_grad_norm / norm) if norm else 0.0
    return totals, norms


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return float(torch.sqrt(sum((((one[name] - other[name]) ** 2).sum() for name in one), torch.zeros((), dtype=torch.float64))))


def length(one: dict[str, torch.Tensor]) -> float:
    return distance(one, {name: torch.zeros_like(total) for name, total in one.items()})


@pytest.mark.parametrize("which", SETS)
def test_the_clipped_sum_is_that_of_a_loop_over_patients(vit: tuple[Net, dict[str, nn.Parameter]], which: str) -> None:
    net, everything = vit
    parameters = only(everything, SETS[which])
    features = patients_of(net, 40)
    _, norms = by_loop(net, features, rows_of(features), parameters, 1.0)
    bound = float(np.median(norms))
    expected, _ = by_loop(net, features, rows_of(features), parameters, bound)
    got, losses = clipped_sum(net, TASK, features, rows_of(features), parameters=parameters, max_grad_norm=bound)
    assert min(norms) < bound < max(norms), "the bound should cut some and leave some"
    assert distance(got, expected) <= 1e-6 * length(expected)
    assert len(losses) == 40
    assert all(parameter.grad is None for parameter in everything.values())


def test_a_convolution_with_lora_goes_by_opacus_and_agrees_too(tmp_path: Path) -> None:
    net = load(densenet_folder(tmp_path), model="densenet", lora_section=LoraSection(last_blocks=1))
    parameters = prepared(net, modules=r"conv\d?")
    features = patients_of(net, 6)
    assert any(parameter.ndim == 4 for parameter in parameters.values())
    expected, norms = by_loop(net, features, rows_of(features), parameters, 0.5)
    got, _ = clipped_sum(net, TASK, features, rows_of(features), parameters=parameters, max_grad_norm=0.5)
    assert max(norms) > 0.5
    assert distance(got, expected) <= 2e-6 * length(expected)


def test_a_core_between_the_factors_has_a_gradient_of_each_image(vit: tuple[Net, dict[str, nn.Parameter]]) -> None:
    net, _ = vit
    current = lora.read_adapter(net, name=lora.SHARED, with_head=False)
    cores = {f"{module}.lora_R": np.eye(2, dtype=np.float32) + 0.1 for module in current.pairs()}
    lora.write_adapter(net, current.replace(cores), name=lora.SHARED)
    parameters = only(lora.trainable(net, name=lora.SHARED, with_head=True), lambda name: name.endswith(".lora_R"))
    features = patients_of(net, 12)
    expected, _ = by_loop(net, features, rows_of(features), parameters, 0.01)
    got, _ = clipped_sum(net, TASK, features, rows_of(features), parameters=parameters, max_grad_norm=0.01)
    assert parameters
    assert distance(got, expected) <= 1e-6 * length(expected)


def test_opacus_gives_the_same_gradient_of_each_image(vit: tuple[Net, dict[str, nn.Parameter]]) -> None:
    """The second implementation: Opacus's hooks on the same layers."""
    from opacus.grad_sample import GradSampleModule

    net, parameters = vit
    features = patients_of(net, 8, most=1)
    with recorded(net, parameters) as samples:
        TASK.loss(net(features.hidden), features.targets).sum().backward()
        ours = {name: samples[parameter].clone() for name, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = None
    # Its hooks look away in evaluation mode; this network has no dropout, so that both modes are one.
    hooked = GradSampleModule(net.train(), loss_reduction="sum", strict=False)
    try:
        TASK.loss(hooked(features.hidden.clone().requires_grad_(True)), features.targets).sum().backward()
        for name, parameter in parameters.items():
            torch.testing.assert_close(ours[name], parameter.grad_sample.reshape(ours[name].shape), rtol=1e-5, atol=1e-7)
    finally:
        hooked.to_standard_module()


@pytest.mark.parametrize("which", SETS)
def test_removing_a_patient_moves_the_sum_by_no_more_than_the_bound(vit: tuple[Net, dict[str, nn.Parameter]], which: str) -> None:
    net, everything = vit
    parameters = only(everything, SETS[which])
    features = patients_of(net, 24, most=6)
    bound = 1e-3
    whole, _ = clipped_sum(net, TASK, features, rows_of(features), parameters=parameters, max_grad_norm=bound)
    moved = []
    for left_out in range(features.count):
        rest = [own for number, own in enumerate(rows_of(features)) if number != left_out]
        without, _ = clipped_sum(net, TASK, features, rest, parameters=parameters, max_grad_norm=bound)
        moved.append(distance(whole, without))
    assert max(moved) <= bound * (1 + 1e-5)
    assert sum(one >= bound * (1 - 1e-3) for one in moved) > 20, "few patients have no gradient; all others are cut"


def test_a_patient_is_never_split_over_two_passes(vit: tuple[Net, dict[str, nn.Parameter]], monkeypatch: pytest.MonkeyPatch) -> None:
    net, parameters = vit
    features = patients_of(net, 9, most=7)
    whole, losses = clipped_sum(net, TASK, features, rows_of(features), parameters=parameters, max_grad_norm=0.01)
    monkeypatch.setattr(clipping, "PART", 3)
    parts = list(clipping._parts(rows_of(features)))
    assert sum(map(len, parts)) == 9 and max(map(len, rows_of(features))) > 3
    in_parts, again = clipped_sum(net, TASK, features, rows_of(features), parameters=parameters, max_grad_norm=0.01)
    assert distance(whole, in_parts) <= 1e-6 * length(whole)
    np.testing.assert_allclose(losses, again, rtol=1e-5)


def test_a_gradient_that_is_not_finite_adds_nothing_and_spoils_nothing(vit: tuple[Net, dict[str, nn.Parameter]]) -> None:
    net, parameters = vit
    features = patients_of(net, 10)
    without, _ = clipped_sum(net, TASK, features, rows_of(features)[1:], parameters=parameters, max_grad_norm=0.1)
    features.hidden[features.images_of[0]] = float("inf")
    features.targets[features.images_of[0]] = 1.0
    with_it, _ = clipped_sum(net, TASK, features, rows_of(features), parameters=parameters, max_grad_norm=0.1)
    assert distance(with_it, without) <= 1e-6 * length(without)


def mechanism(features: Features, *, sigma: float = 0.0, rate: float = 1.0, key: bytes | None = None, **changes: object) -> Mechanism:
    settings = {
        "noise_multiplier": sigma,
        "max_grad_norm": 0.1,
        "sample_rate": rate,
        "expected_patients": rate * features.count,
        "images_per_patient": 4,
        "drawable": np.ones(features.count, dtype=np.bool_),
        "stream": Stream(key or simulated_key([0])),
    }
    return Mechanism(**(settings | changes))


def step(net: Net, features: Features, parameters: dict[str, nn.Parameter], one: Mechanism) -> tuple[torch.Tensor, float | None]:
    loss = one.fill(net, TASK, features, parameters)
    return torch.cat([parameter.grad.flatten() for parameter in parameters.values()]), loss


def test_the_noise_has_the_size_that_the_ledger_is_charged_for(vit: tuple[Net, dict[str, nn.Parameter]]) -> None:
    net, parameters = vit
    features = patients_of(net, 10, most=1)
    rows = rows_of(features)
    sums, _ = clipped_sum(net, TASK, features, rows, parameters=parameters, max_grad_norm=0.1)
    clipped = torch.cat([total.flatten() for total in sums.values()])
    draws = []
    for number in range(40):
        released, _ = step(net, features, parameters, mechanism(features, sigma=1.3, key=simulated_key([number])))
        draws.append((released.double() * features.count - clipped) / (1.3 * 0.1))
    noise = torch.cat(draws).numpy()
    # chi-square of the energy: a sigma that is a tenth too small would be found with certainty.
    assert 1e-3 < stats.chi2.cdf(np.sum(noise**2), len(noise)) < 1 - 1e-3
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(draws[0], draws[1])[0, 1]) < 5 / np.sqrt(len(draws[0]))


def test_a_step_that_draws_nobody_is_noise_alone_and_still_a_step(vit: tuple[Net, dict[str, nn.Parameter]]) -> None:
    net, parameters = vit
    features = patients_of(net, 5)
    nobody = mechanism(features, sigma=1.0, drawable=np.zeros(5, dtype=np.bool_))
    released, loss = step(net, features, parameters, nobody)
    assert loss is None
    assert 0 < float(released.std()) == pytest.approx(0.1 / 5, rel=0.2)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    fitted = fit(net, features, TASK, FitSection(steps=3, learning_rate=1e-2), parameters=parameters, seed=(0,), mechanism=nobody)
    assert fitted.steps == 3 and fitted.losses == []
    assert any(not torch.equal(before[name], parameter) for name, parameter in parameters.items())


def test_patients_are_drawn_by_themselves_at_the_rate(vit: tuple[Net, dict[str, nn.Parameter]]) -> None:
    stream = Stream(fresh_key())
    masks = np.stack([stream.mask(50, 0.3) for _ in range(2000)])
    # Binomial in each column and in each row: with a fixed batch size rows would not vary at all.
    assert abs(masks.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / masks.size)
    assert masks.sum(axis=1).var() == pytest.approx(50 * 0.3 * 0.7, rel=0.15)
    assert masks.sum(axis=0).std() < 2 * np.sqrt(2000 * 0.3 * 0.7)


def test_who_has_spent_the_budget_is_not_drawn_and_the_divisor_stays(vit: tuple[Net, dict[str, nn.Parameter]]) -> None:
    net, parameters = vit
    features = patients_of(net, 8)
    left = np.arange(8) % 2 == 0
    released, _ = step(net, features, parameters, mechanism(features, drawable=left))
    sums, _ = clipped_sum(
        net,
        TASK,
        features,
        [own for own, may in zip(rows_of(features), left, strict=True) if may],
        parameters=parameters,
        max_grad_norm=0.1,
    )
    torch.testing.assert_close(released.double(), torch.cat([total.flatten() for total in sums.values()]) / 8, rtol=1e-5, atol=1e-9)


def test_at_most_k_images_of_a_patient_are_drawn_and_others_each_time(vit: tuple[Net, dict[str, nn.Parameter]]) -> None:
    net, _ = vit
    features = patients_of(net, 3, most=9, seed=3)
    one = mechanism(features, images_per_patient=2)
    own = max(rows_of(features), key=len)
    draws = [tuple(one._images(own)) for _ in range(600)]
    assert all(len(set(draw)) == 2 and set(draw) <= set(own.tolist()) for draw in draws)
    assert len(set(draws)) == len(own) * (len(own) - 1) // 2


def test_a_factor_that_stands_still_takes_nothing_of_the_norm(vit: tuple[Net, dict[str, nn.Parameter]]) -> None:
    net, everything = vit
    parameters = only(everything, lambda name: ".lora_" in name)
    features = patients_of(net, 6, most=1)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    one = FitSection(steps=1, learning_rate=1e-2)
    fit(net, features, TASK, one, parameters=parameters, seed=(0,), pull=Pull(alternate=True), mechanism=mechanism(features, sigma=1.0))
    moved = {name for name, parameter in parameters.items() if not torch.equal(before[name], parameter)}
    assert moved == {name for name in parameters if name.endswith(".lora_B")}


def test_the_same_key_gives_the_same_fit_and_another_another(vit: tuple[Net, dict[str, nn.Parameter]]) -> None:
    net, parameters = vit
    features = patients_of(net, 12)
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    def fitted(key: bytes) -> torch.Tensor:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(start[name])
        one = mechanism(features, sigma=1.0, rate=0.5, key=key)
        fit(net, features, TASK, FitSection(steps=4, learning_rate=1e-2), parameters=parameters, seed=(0,), mechanism=one)
        return torch.cat([parameter.detach().flatten().clone() for parameter in parameters.values()])

    assert torch.equal(fitted(simulated_key([1])), fitted(simulated_key([1])))
    assert not torch.equal(fitted(simulated_key([1])), fitted(simulated_key([2])))


def test_keys_are_fresh_and_named_without_being_given_away() -> None:
    keys = {fresh_key() for _ in range(100)}
    assert len(keys) == 100 and {len(key) for key in keys} == {KEY_BYTES}
    assert len({commitment(key) for key in keys}) == 100
    with pytest.raises(ValueError, match="32 bytes, not 16"):
        Stream(bytes(16))


def test_the_keystream_is_that_of_rfc_8439() -> None:
    """An all-zero key and nonce: RFC 8439, A.1, test vector 1."""
    assert Stream(bytes(32)).words(2).tobytes().hex() == "76b8e0ada0f13d90405d6ae55386bd28"


def test_normal_draws_do_not_depend_on_how_many_are_asked_for_at_a_time() -> None:
    assert len(Stream(simulated_key([0])).normal((1 << 18) + 5)) == (1 << 18) + 5
    assert Stream(simulated_key([0])).normal(0).shape == (0,)
    draws = Stream(simulated_key([5])).normal(200_000)
    assert stats.kstest(draws, "norm").pvalue > 1e-3


def test_batch_norm_in_training_mode_is_refused_by_name(vit: tuple[Net, dict[str, nn.Parameter]]) -> None:
    net, parameters = vit
    net.add_module("extra", nn.BatchNorm2d(3).eval())
    refuse_what_mixes(net, parameters)
    net.train()
    with pytest.raises(BaseModelError, match="extra: BatchNorm in training mode .* evaluation mode, or use a base model with group norm"):
        refuse_what_mixes(net, parameters)


def test_dora_is_refused_by_name(tiny_base: Path) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    net = load(tiny_base)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj"], use_dora=True), net, adapter_name=lora.SHARED)
    with pytest.raises(BaseModelError, match="q_proj: DoRA .* use plain LoRA"):
        refuse_what_mixes(net, {})


def test_attention_that_trains_as_one_block_is_refused_by_name(vit: tuple[Net, dict[str, nn.Parameter]]) -> None:
    net, _ = vit
    attention = nn.MultiheadAttention(16, 2)
    net.add_module("attention", attention)
    refuse_what_mixes(net, {})
    with pytest.raises(BaseModelError, match="attention: MultiheadAttention has no per-image gradient for x: leave it frozen, or use"):
        refuse_what_mixes(net, {"x": attention.in_proj_weight})
