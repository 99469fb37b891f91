"""What is learned. One file per task: its outputs, its targets, its loss, its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import client.tasks as _package
from rainhill import plugins, toml
from rainhill.errors import ConfigError
from rainhill.recipe import EvaluationSection, Recipe, TaskSection

if TYPE_CHECKING:
    from torch import Tensor

    from client.data.cohort import Cohort
    from client.drafting.track_record import TrackRecord
    from client.models import Net
    from client.training.features import Features
    from client.training.metrics import Scored
    from rainhill.adapter import Array

__all__ = ["Examples", "Task", "Validated", "from_recipe", "from_section"]


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What a network is to say of each of N images, and what it is given beside the image."""

    targets: Tensor
    """(N, ...)"""
    given: Tensor | None = None
    """(N, ...) of a network that reads more than an image."""
    texts: tuple[str, ...] = ()
    """N reports that what is written is held against; none of a task that writes nothing."""


@dataclass(frozen=True, kw_only=True)
class Validated:
    """An adapter on a site's validation patients, before it is trained further."""

    losses: Array
    """(N,) of each image."""
    metrics: Mapping[str, float]
    """`loss`, their mean, and the task's measure where it can be told."""
    patients: Mapping[str, int]
    """How many stand behind each of these."""


class Task(Protocol):
    """A task is a pydantic model: its fields are the further keys of `[task]`."""

    measure: ClassVar[str]
    """The metric that models are compared by, from 0 to 1."""
    needs: ClassVar[str]
    """What an image has to have to be of use, in words."""

    @property
    def findings(self) -> tuple[str, ...]:
        """The label columns it reads from a site's manifest."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """What of a site's manifest besides images, in words for whoever approves."""
        ...

    @property
    def across_patients(self) -> tuple[str, ...]:
        """Its options by which a patient's example holds something of other patients: there is no patient-level privacy with them."""
        ...

    @property
    def outputs(self) -> dict[str, str]:
        """Each output of the head, and the output of the base model that it starts from; empty where there is no head."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The K findings by which models are measured one by one."""
        ...

    def usable(self, cohort: Cohort) -> Array:
        """(N,) bool: which images have it. The others teach nothing, nothing can be measured by them, and they hide nobody."""
        ...

    def examples(self, cohort: Cohort, net: Net, among: Cohort | None = None) -> Examples:
        """`among` are the site's training images, where these are others. Raises BaseModelError for a network that cannot do the task."""
        ...

    def losses(self, net: Net, features: Features, rows: Tensor) -> Tensor:
        """(n,) loss of each of these rows, through the network as it is now."""
        ...

    def validated(self, net: Net, features: Features) -> Validated: ...

    def temperature(self, net: Net, features: Features) -> float:
        """What the network's logits are to be divided by to be most likely on these patients."""
        ...

    def score(self, net: Net, features: Features, *, temperature: float, section: EvaluationSection, seed: Sequence[int]) -> Scored:
        """Patients that no fit has seen, by the network as it is now."""
        ...

    def track_record(self, net: Net, features: Features) -> TrackRecord | None:
        """Of what the network as it is now writes of these patients; None of a task that writes nothing, and without reports."""
        ...

    def value(self, net: Net, features: Features, section: EvaluationSection) -> float:
        """The measure alone, without its interval; NaN where it cannot be told."""
        ...

    def truth(self, features: Features) -> Array:
        """(N, K) of `names`: 1, 0 or NaN, which is: not known."""
        ...

    def unlabelled(self, parts: Sequence[Features]) -> list[str]:
        """In words, what none of the parts has, and without which an output cannot be learned."""
        ...


def from_recipe(recipe: Recipe) -> Task:
    """Raises ConfigError for a private recipe whose task would put one patient's data into another's example."""
    task = from_section(recipe.task)
    if recipe.privacy is not None and task.across_patients:
        raise ConfigError(
            f"recipe {recipe.name}: {', '.join(task.across_patients)} with [privacy]: what is learned from a patient would hold "
            f"something of others, and clipping by patient would bound neither"
        )
    return task


def from_section(section: TaskSection) -> Task:
    task = plugins.load(_package, section.name, kind="task")
    parsed: Task = toml.parse(section.options, task, origin=f"[task] name = {section.name!r}")
    return parsed
