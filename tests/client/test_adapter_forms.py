"""Forms of an adapter beside the plain pair: lower ranks, cores, residuals; and what a site keeps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from client.training import lora
from client.training.answer import answer, own_view
from client.training.features import logits
from client.training.memory import Memory
from client.workbench import Bench, first_adapter
from rainhill.adapter import Adapter
from rainhill.compression import lossy
from rainhill.errors import ProtocolError
from rainhill.messages import LocalRule, Plan, Update
from rainhill.recipe import CompressionSection, StrategySection
from sites.bench import SiteData
from strategies import from_section
from strategies._factors import narrow, widen


def moved(adapter: Adapter, seed: int = 0) -> Adapter:
    rng = np.random.default_rng(seed)
    return Adapter({name: (array + 0.2 * rng.normal(size=array.shape)).astype(np.float32) for name, array in adapter.items()})


def outputs(bench: Bench, adapter: Adapter, site: SiteData) -> np.ndarray:
    lora.write_adapter(bench.net, adapter, name=lora.SHARED)
    return logits(bench.net, site.test.hidden)


def trained(
    bench: Bench, site: SiteData, rule: LocalRule, adapter: Adapter, *, memory: Path = Path("none"), round_: int = 1
) -> tuple[Update, Adapter]:
    """The update, and what the network holds when it is done."""
    plan = Plan(run="r", recipe=bench.recipe.sha256, round=round_, site="aintree", adapter=adapter, rule=rule)
    given = answer(plan, recipe=bench.recipe, strategy=bench.strategy, net=bench.net, task=bench.task, data=site, memory=Memory(memory))
    assert isinstance(given, Update), given
    return given, lora.read_like(bench.net, adapter, name=lora.SHARED)


def test_an_adapter_of_lower_rank_is_the_one_padded_with_zeros(bench: Bench, site: SiteData) -> None:
    small = narrow(moved(first_adapter(bench)), 1)
    assert small.pairs()[bench.modules[0]].rank == 1
    np.testing.assert_array_equal(outputs(bench, small, site), outputs(bench, widen(small, first_adapter(bench)), site))


def test_training_at_a_lower_rank_stays_there(bench: Bench, site: SiteData) -> None:
    """What fills the slot up to the network's rank has no gradient: it is zero before and after."""
    small = narrow(first_adapter(bench), 1)
    update, _ = trained(bench, site, LocalRule(), small)
    assert {name: array.shape for name, array in update.delta.items()} == {name: array.shape for name, array in small.items()}
    whole = lora.read_adapter(bench.net, name=lora.SHARED, with_head=False)
    for pair in whole.pairs().values():
        assert pair.b[:, :1].any()
        assert not pair.a[1:].any() and not pair.b[:, 1:].any()


def test_an_adapter_of_higher_rank_than_the_network_takes_is_refused(bench: Bench) -> None:
    rank = bench.recipe.lora.rank
    wide = Adapter(
        {
            name: np.zeros((rank + 1, array.shape[1]) if name.endswith("A") else (array.shape[0], rank + 1), np.float32)
            for name, array in lora.draw(bench.net, name=lora.SHARED, with_head=False, seed=0).items()
        }
    )
    with pytest.raises(ProtocolError, match=rf"lora_A: shape \({rank + 1}, \d+\) is not \({rank}, "):
        lora.write_adapter(bench.net, wide, name=lora.SHARED)


def test_a_residual_adds_its_product_and_goes_with_the_next_adapter(bench: Bench, site: SiteData) -> None:
    first = first_adapter(bench)
    rng = np.random.default_rng(0)
    module = bench.modules[3]
    pair = first.pairs()[module]
    a, b = rng.normal(size=(3, pair.a.shape[1])).astype(np.float32), rng.normal(size=(pair.b.shape[0], 3)).astype(np.float32)
    with_residual = first.replace({f"{module}.residual_A": a, f"{module}.residual_B": b})
    plain = outputs(bench, first, site)
    layer = bench.net.get_submodule(module)
    lora.write_adapter(bench.net, with_residual, name=lora.SHARED)
    x = torch.randn(5, a.shape[1])
    torch.testing.assert_close(layer(x), layer.base_layer(x) + bench.recipe.lora.scale * x @ torch.from_numpy(b @ a).T)
    assert np.abs(outputs(bench, with_residual, site) - plain).max() > 1e-3
    np.testing.assert_array_equal(outputs(bench, first, site), plain)


def test_a_residual_is_neither_trained_nor_sent(bench: Bench, site: SiteData) -> None:
    first = first_adapter(bench)
    module, pair = next(iter(first.pairs().items()))
    extra = {
        f"{module}.residual_A": np.ones((1, pair.a.shape[1]), np.float32),
        f"{module}.residual_B": np.ones((pair.b.shape[0], 1), np.float32),
    }
    update, after = trained(bench, site, LocalRule(), first.replace(extra))
    assert not any("residual" in name for name in update.delta)
    for name, array in extra.items():
        np.testing.assert_array_equal(after[name], array)


def test_a_core_stands_between_the_factors_and_is_all_that_trains(bench: Bench, site: SiteData) -> None:
    strategy = from_section(StrategySection(rule="fedsb"))
    first = strategy.first(first_adapter(bench))
    plain = outputs(bench, first_adapter(bench), site)
    np.testing.assert_allclose(outputs(bench, first, site), plain, atol=1e-6)
    bench = replace(bench, strategy=strategy)
    rule = strategy.local(first, strategy.init(first), "aintree")
    update, after = trained(bench, site, rule, first)
    assert {name.rpartition(".")[2] for name in update.delta} == {"lora_R", "weight", "bias"}
    assert all(update.delta[f"{module}.lora_R"].any() for module in bench.modules)
    for name in first:
        if name.endswith(("lora_A", "lora_B")):
            np.testing.assert_array_equal(after[name], first[name])
    module = bench.modules[0]
    layer, x = bench.net.get_submodule(module), torch.randn(4, first.pairs()[module].a.shape[1])
    expected = layer.base_layer(x) + bench.recipe.lora.scale * x @ torch.from_numpy(after.product(module)).T
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)
    np.testing.assert_array_equal(outputs(bench, first_adapter(bench), site), plain)


def test_forms_on_a_convolution_compute_the_product_too() -> None:
    """A 3x3 convolution with stride: core and residual against one convolution by the flattened product."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 5, 3, stride=2, padding=1))
    from peft import LoraConfig, inject_adapter_in_model

    from client.training import extras
    from rainhill.adapter import Pair

    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=2, target_modules=["0"]), net, adapter_name=lora.SHARED)
    layer = net[0]
    rng = np.random.default_rng(0)
    a, b, core = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 18), (5, 2), (2, 2)))
    residual = Pair(a=rng.normal(size=(3, 18)).astype(np.float32), b=rng.normal(size=(5, 3)).astype(np.float32))
    with torch.no_grad():
        layer.lora_A[lora.SHARED].weight.copy_(torch.from_numpy(a).reshape(2, 2, 3, 3))
        layer.lora_B[lora.SHARED].weight.copy_(torch.from_numpy(b).reshape(5, 2, 1, 1))
        extras.set_core(layer.lora_B[lora.SHARED], core)
        extras.set_residual(layer, residual, scale=1.0)
        x = torch.randn(2, 2, 8, 8)
        kernel = torch.from_numpy(b @ core @ a + residual.product()).reshape(5, 2, 3, 3)
        expected = layer.get_base_layer()(x) + torch.nn.functional.conv2d(x, kernel, stride=2, padding=1)
        torch.testing.assert_close(layer(x), expected, atol=1e-4, rtol=1e-4)


def test_factors_take_turns_from_step_to_step(bench: Bench, site: SiteData) -> None:
    one = bench.recipe.model_copy(update={"rounds": bench.recipe.rounds.model_copy(update={"steps": 1})})
    two = bench.recipe.model_copy(update={"rounds": bench.recipe.rounds.model_copy(update={"steps": 2})})
    start = moved(first_adapter(bench))
    after_one, after_two = (
        trained(replace(bench, recipe=recipe), site, LocalRule(alternate=True), start)[0].delta for recipe in (one, two)
    )
    module = bench.modules[0]
    assert not after_one[f"{module}.lora_A"].any() and after_one[f"{module}.lora_B"].any()
    assert after_two[f"{module}.lora_A"].any()
    assert after_one["head.bias"].any()


def test_the_variate_is_the_mean_gradient_of_what_is_sent(bench: Bench, site: SiteData) -> None:
    start = moved(first_adapter(bench))
    update, _ = trained(bench, site, LocalRule(train=frozenset("B"), send=frozenset("B"), variate=True), start)
    assert update.variate is not None
    assert update.variate.keys() == update.delta.keys()
    assert update.variate.norm() > 0
    assert trained(bench, site, LocalRule(), start)[0].variate is None
    # AdamW's first step goes against the gradient: where it is clear, delta and variate have opposite signs.
    name = max(update.variate, key=lambda key: float(np.abs(update.variate[key]).mean()))
    assert np.mean(np.sign(update.delta[name]) != np.sign(update.variate[name])) > 0.8


def test_a_site_goes_on_from_what_it_kept(bench: Bench, site: SiteData, tmp_path: Path) -> None:
    rule, first = LocalRule(keep=("*.lora_B",)), first_adapter(bench)
    update, after = trained(bench, site, rule, first, memory=tmp_path)
    assert not any(name.endswith("lora_B") for name in update.delta)
    kept = Memory(tmp_path).before(2)
    assert kept == after.only(lambda name: name.endswith("lora_B"))
    assert Memory(tmp_path).before(1) is None
    assert own_view(first, rule, Memory(tmp_path), 2) == first.replace(kept)
    again, _ = trained(bench, site, rule, first, memory=tmp_path)
    assert again == update
    second, _ = trained(bench, site, rule, first, memory=tmp_path, round_=2)
    fresh, _ = trained(bench, site, rule, first, memory=tmp_path / "elsewhere", round_=2)
    assert second.delta != fresh.delta


@pytest.mark.parametrize("encoding", ["bf16", "int8", "top_k"])
def test_what_the_wire_loses_is_sent_with_the_next_round(bench: Bench, site: SiteData, tmp_path: Path, encoding: str) -> None:
    section = CompressionSection(encoding=encoding, share=0.2, error_feedback=True)
    packed = replace(bench, recipe=bench.recipe.model_copy(update={"compression": section}))
    first = first_adapter(bench)
    whole, _ = trained(bench, site, LocalRule(), first)
    plan = {"memory": tmp_path}
    one, _ = trained(packed, site, LocalRule(), first, **plan)
    lost = whole.delta - one.delta
    assert lost.norm() > 0
    # Round 2 from the same adapter: what it learns, and what was lost, as far as that crosses.
    second_whole, _ = trained(bench, site, LocalRule(), first, round_=2)
    second, _ = trained(packed, site, LocalRule(), first, round_=2, **plan)
    wanted = second_whole.delta + lost
    assert second.delta.max_abs_difference(lossy(wanted, encoding, share=0.2)) < 1e-6
    without = replace(packed, recipe=packed.recipe.model_copy(update={"compression": section.model_copy(update={"error_feedback": False})}))
    forgetful, _ = trained(without, site, LocalRule(), first, round_=2, **plan)
    assert forgetful.delta.max_abs_difference(lossy(second_whole.delta, encoding, share=0.2)) < 1e-6


def test_a_damaged_memory_is_named(tmp_path: Path) -> None:
    (tmp_path / "round-000001.safetensors").write_bytes(b"scrambled")
    with pytest.raises(ProtocolError, match=r"round-000001.safetensors: not a safetensors adapter"):
        Memory(tmp_path).before(2)
