"""Where A begins."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from client.training import lora
from client.training.features import logits
from client.training.start import begin
from client.workbench import Bench, first_adapter
from rainhill.adapter import Adapter
from rainhill.errors import ConfigError
from sites.bench import SiteData


def begun(bench: Bench, init: str, site: SiteData | None = None) -> Adapter:
    section = bench.recipe.lora.model_copy(update={"init": init})
    return begin(bench.net, section, seed=0, task=bench.task, public=site.train if site else None)


@pytest.mark.parametrize("init", ["random", "orthonormal", "principal", "gradient"])
def test_no_start_changes_the_model_and_each_is_the_same_again(bench: Bench, site: SiteData, init: str) -> None:
    base = logits(bench.net, site.test.hidden)
    first = begun(bench, init, site)
    lora.write_adapter(bench.net, first, name=lora.SHARED)
    np.testing.assert_array_equal(logits(bench.net, site.test.hidden), base)
    assert begun(bench, init, site) == first
    plain = begun(bench, "random")
    assert {name: array.shape for name, array in first.items()} == {name: array.shape for name, array in plain.items()}
    assert (first == plain) == (init == "random")
    for module, pair in first.pairs().items():
        drawn = plain.pairs()[module].a
        assert np.linalg.norm(pair.a) == pytest.approx(np.linalg.norm(drawn), rel=1e-5)
    assert not any(parameter.requires_grad for parameter in bench.net.parameters())


def test_orthonormal_rows_span_what_was_drawn(bench: Bench) -> None:
    first, plain = begun(bench, "orthonormal"), begun(bench, "random")
    for module, pair in first.pairs().items():
        gram = pair.a @ pair.a.T
        np.testing.assert_allclose(gram, np.eye(pair.rank) * gram[0, 0], atol=1e-5)
        drawn = plain.pairs()[module].a
        np.testing.assert_allclose(drawn @ np.linalg.pinv(pair.a) @ pair.a, drawn, atol=1e-5)


def test_principal_rows_are_where_the_weight_is_largest(bench: Bench) -> None:
    first = begun(bench, "principal")
    for module, pair in first.pairs().items():
        weight = bench.net.get_submodule(module).get_base_layer().weight.detach().numpy()
        spectrum = np.linalg.svd(weight, compute_uv=False)
        gains = np.linalg.norm(weight @ pair.a.T, axis=0) / np.linalg.norm(pair.a, axis=1)
        np.testing.assert_allclose(gains, spectrum[: pair.rank], rtol=1e-4)


def test_a_step_of_b_along_the_gradients_rows_lowers_the_loss_most(bench: Bench, site: SiteData) -> None:
    """To first order a step of B lowers the loss by |G A^T|^2 for rows of a given length: the leading right singular vectors of G win."""
    reach = {}
    for init in ("random", "principal", "gradient"):
        adapter = begun(bench, init, site)
        lora.write_adapter(bench.net, adapter, name=lora.SHARED)
        parameters = {name: p for name, p in lora.trainable(bench.net, name=lora.SHARED, with_head=False).items() if name.endswith("B")}
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        loss = bench.task.loss(bench.net(site.train.hidden), site.train.targets).sum()
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        reach[init] = float(sum((gradient**2).sum() for gradient in gradients))
        bench.net.requires_grad_(False)
    assert reach["gradient"] > 2 * max(reach["random"], reach["principal"])


def test_a_gradient_without_public_patients_is_refused(bench: Bench) -> None:
    section = bench.recipe.lora.model_copy(update={"init": "gradient"})
    with pytest.raises(ConfigError, match="lora.init = 'gradient' needs a public hospital in source/, there is none"):
        first_adapter(replace(bench, recipe=bench.recipe.model_copy(update={"lora": section})))
