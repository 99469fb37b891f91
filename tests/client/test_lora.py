import numpy as np
import pytest
import torch

from client.training import lora
from client.training.features import logits
from client.workbench import Bench, first_adapter
from rainhill.errors import BaseModelError, ProtocolError
from sites.bench import SiteData


def test_an_adapter_read_is_the_adapter_written(bench: Bench) -> None:
    drawn = lora.draw(bench.net, name=lora.SHARED, with_head=True, seed=3)
    other = drawn.replace({name: array + np.float32(0.25) for name, array in drawn.items()})
    lora.write_adapter(bench.net, other, name=lora.SHARED)
    assert lora.read_adapter(bench.net, name=lora.SHARED, with_head=True) == other


def test_the_first_adapter_changes_nothing_and_depends_on_the_seed_alone(bench: Bench, site: SiteData) -> None:
    base = logits(bench.net, site.test.hidden)
    lora.write_adapter(bench.net, first_adapter(bench), name=lora.SHARED)
    np.testing.assert_array_equal(logits(bench.net, site.test.hidden), base)
    draws = [lora.draw(bench.net, name=lora.SHARED, with_head=False, seed=seed).fingerprint() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_lora_adds_scale_times_the_product_to_the_weight(bench: Bench) -> None:
    drawn = lora.draw(bench.net, name=lora.SHARED, with_head=False, seed=0)
    module, pair = next(iter(drawn.pairs().items()))
    b = np.random.default_rng(0).normal(size=pair.b.shape).astype(np.float32)
    lora.write_adapter(bench.net, drawn.replace({f"{module}.lora_B": b}), name=lora.SHARED)
    layer = bench.net.get_submodule(module)
    x = torch.randn(5, pair.a.shape[1])
    expected = layer.base_layer(x) + bench.recipe.lora.scale * x @ torch.from_numpy(b @ pair.a).T
    torch.testing.assert_close(layer(x), expected)


def test_only_the_named_modules_take_lora(bench: Bench) -> None:
    assert {module.rpartition(".")[2] for module in bench.modules} == {"q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"}
    assert len(bench.modules) == 12


def test_a_pattern_that_matches_nothing_names_what_there_is(bench: Bench) -> None:
    with pytest.raises(BaseModelError, match="matches no layer of the base model, which has: fc1, fc2, k_proj"):
        lora.matched_modules(bench.net, "query|key|value")
    with pytest.raises(BaseModelError, match="not a regular expression"):
        lora.matched_modules(bench.net, "(")


def test_an_adapter_of_another_model_is_refused(bench: Bench) -> None:
    drawn = lora.draw(bench.net, name=lora.SHARED, with_head=False, seed=0)
    name = next(iter(drawn))
    with pytest.raises(ProtocolError, match=f"{name}: missing"):
        lora.write_adapter(bench.net, drawn.only(lambda key: key != name), name=lora.SHARED)
    with pytest.raises(ProtocolError, match="stranger: not a declared tensor"):
        lora.write_adapter(bench.net, drawn.replace({"stranger": np.zeros(1, np.float32)}), name=lora.SHARED)


def test_a_head_that_does_not_travel_goes_back_to_the_bases_own(bench: Bench) -> None:
    with_head = lora.draw(bench.net, name=lora.SHARED, with_head=True, seed=0)
    own = with_head["head.weight"]
    lora.write_adapter(bench.net, with_head.replace({"head.weight": own + 1}), name=lora.SHARED)
    lora.write_adapter(bench.net, lora.draw(bench.net, name=lora.SHARED, with_head=False, seed=0), name=lora.SHARED)
    np.testing.assert_array_equal(lora.read_head(bench.net)["head.weight"], own)
