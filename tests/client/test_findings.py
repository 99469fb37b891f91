import numpy as np
import pytest
import torch

from client import tasks
from rainhill.errors import ConfigError, PluginError
from rainhill.recipe import TaskSection


def findings(**options: object) -> tasks.Task:
    return tasks.from_section(TaskSection(name="findings", **{"findings": ["a", "b"], **options}))


def test_a_missing_label_costs_nothing() -> None:
    task = findings()
    logits = torch.tensor([[0.3, -2.0], [1.0, 1.0], [0.0, 0.0]], requires_grad=True)
    targets = torch.tensor([[1.0, float("nan")], [0.0, 1.0], [float("nan"), float("nan")]])
    losses = task.loss(logits, targets)
    full = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    torch.testing.assert_close(losses, torch.stack([full[0, 0], full[1].mean(), torch.tensor(0.0)]))
    losses.sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0
    assert torch.isfinite(logits.grad).all()


def test_scores_are_probabilities_in_the_order_of_the_recipe() -> None:
    np.testing.assert_allclose(findings().scores(np.array([[0.0, 100.0]])), [[0.5, 1.0]])
    assert findings(start_from={"b": "consolidation"}).outputs == {"a": "a", "b": "consolidation"}


def test_bad_options_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="start_from names 'c', which is not one of the findings a, b"):
        findings(start_from={"c": "x"})
    with pytest.raises(ConfigError, match="findings names twice: a"):
        findings(findings=["a", "b", "a"])
    with pytest.raises(ConfigError, match="finding: unknown key, did you mean 'findings'"):
        findings(finding=["a"])
    with pytest.raises(PluginError, match="no task is called 'finding', did you mean 'findings'"):
        tasks.from_section(TaskSection(name="finding"))
