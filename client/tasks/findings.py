"""Multi-label classification of findings, where a label may be missing: NaN says that nobody labelled it."""

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field, model_validator
from scipy.special import expit

from client.data.cohort import Cohort
from rainhill.adapter import Array
from rainhill.toml import Section

if TYPE_CHECKING:
    from torch import Tensor


class Findings(Section):
    findings: Annotated[tuple[str, ...], Field(min_length=1)]
    start_from: dict[str, str] = {}
    """Finding -> finding of the base model whose row of the head it starts from, where they are named differently."""

    @model_validator(mode="after")
    def _starts_known_findings(self) -> "Findings":
        twice = sorted({finding for finding in self.findings if self.findings.count(finding) > 1})
        if twice:
            raise ValueError(f"findings names twice: {', '.join(twice)}")
        for finding in self.start_from:
            if finding not in self.findings:
                raise ValueError(f"start_from names {finding!r}, which is not one of the findings {', '.join(self.findings)}")
        return self

    @property
    def outputs(self) -> dict[str, str]:
        return {finding: self.start_from.get(finding, finding) for finding in self.findings}

    def targets(self, cohort: Cohort) -> Array:
        return cohort.labels

    def loss(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """(N,) mean binary cross-entropy over the findings that are labelled; 0 for an image without a label."""
        from torch import isnan, nan_to_num
        from torch.nn.functional import binary_cross_entropy_with_logits

        labelled = ~isnan(targets)
        losses = binary_cross_entropy_with_logits(logits, nan_to_num(targets), reduction="none") * labelled
        return losses.sum(dim=1) / labelled.sum(dim=1).clamp(min=1)

    def scores(self, logits: Array) -> Array:
        return np.asarray(expit(logits))
