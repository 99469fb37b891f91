"""What is learned. One file per task: its outputs, its targets, its loss, its scores."""

from typing import Any, Protocol

import client.tasks as _package
from client.data.cohort import Cohort
from rainhill import plugins, toml
from rainhill.adapter import Array
from rainhill.recipe import TaskSection

__all__ = ["Task", "from_section"]


class Task(Protocol):
    """A task is a pydantic model: its fields are the further keys of `[task]`."""

    @property
    def findings(self) -> tuple[str, ...]:
        """The label columns it reads from a site's manifest."""
        ...

    @property
    def outputs(self) -> dict[str, str]:
        """Each output of the head, and the output of the base model that it starts from."""
        ...

    def targets(self, cohort: Cohort) -> Array:
        """(N, K) float32, NaN where there is no label."""
        ...

    def loss(self, logits: Any, targets: Any) -> Any:
        """(N, K) logits and targets as tensors -> (N,) loss of each image."""
        ...

    def scores(self, logits: Array) -> Array:
        """(N, K) logits -> (N, K) probabilities."""
        ...


def from_section(section: TaskSection) -> Task:
    task = plugins.load(_package, section.name, kind="task")
    parsed: Task = toml.parse(section.options, task, origin=f"[task] name = {section.name!r}")
    return parsed
