"""Multi-label classification of findings, where a label may be missing: NaN says that nobody labelled it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field, model_validator
from scipy.special import expit

from client.tasks import Examples, Validated
from rainhill.adapter import Array
from rainhill.errors import BaseModelError
from rainhill.recipe import EvaluationSection
from rainhill.toml import Section

if TYPE_CHECKING:
    from torch import Tensor

    from client.data.cohort import Cohort
    from client.models import Net
    from client.training.features import Features
    from client.training.metrics import Scored

TEMPERATURES = (0.2, 5.0)


class Findings(Section):
    measure: ClassVar[str] = "auroc"
    needs: ClassVar[str] = "label"

    findings: Annotated[tuple[str, ...], Field(min_length=1)]
    start_from: dict[str, str] = {}
    """Finding -> finding of the base model whose row of the head it starts from, where they are named differently."""

    @model_validator(mode="after")
    def _starts_known_findings(self) -> Findings:
        twice = sorted({finding for finding in self.findings if self.findings.count(finding) > 1})
        if twice:
            raise ValueError(f"findings names twice: {', '.join(twice)}")
        for finding in self.start_from:
            if finding not in self.findings:
                raise ValueError(f"start_from names {finding!r}, which is not one of the findings {', '.join(self.findings)}")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        return self.findings

    @property
    def across_patients(self) -> tuple[str, ...]:
        return ()

    @property
    def outputs(self) -> dict[str, str]:
        return {finding: self.start_from.get(finding, finding) for finding in self.findings}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.outputs)

    def usable(self, cohort: Cohort) -> Array:
        return np.asarray(np.isfinite(cohort.labels).any(axis=1))

    def examples(self, cohort: Cohort, net: Net, among: Cohort | None = None) -> Examples:  # noqa: ARG002 - of a task that looks for similar ones
        from torch import from_numpy

        if net.writes:
            raise BaseModelError("task 'findings' wants a model with an output for each finding, and this one writes reports")
        return Examples(targets=from_numpy(self.targets(cohort)))

    def targets(self, cohort: Cohort) -> Array:
        """(N, K) float32, NaN where there is no label."""
        return cohort.labels

    def losses(self, net: Net, features: Features, rows: Tensor) -> Tensor:
        return self.loss(net(features.hidden[rows]), features.targets[rows])

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(N,) mean binary cross-entropy over the findings that are labelled; 0 for an image without a label."""
        from torch import isnan, nan_to_num
        from torch.nn.functional import binary_cross_entropy_with_logits

        labelled = ~isnan(targets)
        losses = binary_cross_entropy_with_logits(logits, nan_to_num(targets), reduction="none") * labelled
        return losses.sum(dim=1) / labelled.sum(dim=1).clamp(min=1)

    def scores(self, logits: Array) -> Array:
        """(N, K) logits -> (N, K) probabilities."""
        return np.asarray(expit(logits))

    def validated(self, net: Net, features: Features) -> Validated:
        """With `auroc`, the mean over the findings that have both classes, where any has."""
        from torch import from_numpy

        from client.training.features import logits
        from client.training.metrics import mean_auroc

        values = logits(net, features.hidden)
        losses = self.loss(from_numpy(values), features.targets)
        auroc = mean_auroc(self.scores(values), features.targets.numpy(), EvaluationSection(min_positives=1))
        metrics = {"loss": float(losses.mean())} | ({} if np.isnan(auroc) else {"auroc": auroc})
        return Validated(losses=losses.numpy(), metrics=metrics, patients=dict.fromkeys(metrics, features.count))

    def temperature(self, net: Net, features: Features) -> float:
        from client.training.features import logits

        return self.fit_temperature(logits(net, features.hidden), features.targets.numpy())

    def track_record(self, net: Net, features: Features) -> None:  # noqa: ARG002 - it writes nothing
        return None

    def fit_temperature(self, values: Array, targets: Array) -> float:
        """The T that makes logits / T most likely. Guo et al. 2017, arXiv:1706.04599."""
        from scipy.optimize import minimize_scalar
        from torch import from_numpy

        if not np.isfinite(targets).any():
            return 1.0
        tensor, truth = from_numpy(values), from_numpy(targets)
        found = minimize_scalar(
            lambda log_t: float(self.loss(tensor / float(np.exp(log_t)), truth).mean()),
            bounds=tuple(np.log(TEMPERATURES)),
            method="bounded",
        )
        return float(np.exp(found.x))

    def score(self, net: Net, features: Features, *, temperature: float, section: EvaluationSection, seed: Sequence[int]) -> Scored:
        from client.training import metrics
        from client.training.features import logits

        probabilities = self.scores(logits(net, features.hidden) / temperature)
        names = list(self.names)
        return metrics.score(probabilities, features.targets.numpy(), features.patients, names=names, section=section, seed=seed)

    def value(self, net: Net, features: Features, section: EvaluationSection) -> float:
        from client.training.features import logits
        from client.training.metrics import mean_auroc

        return mean_auroc(self.scores(logits(net, features.hidden)), features.targets.numpy(), section)

    def truth(self, features: Features) -> Array:
        return np.asarray(features.targets.numpy())

    def unlabelled(self, parts: Sequence[Features]) -> list[str]:
        known = np.any([np.isfinite(part.targets.numpy()).any(axis=0) for part in parts], axis=0)
        return [f"a training label for {name!r}" for name, labelled in zip(self.names, known, strict=True) if not labelled]
