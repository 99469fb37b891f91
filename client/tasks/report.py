"""A radiology report written from an image and a prompt; the loss is on the answer alone, and drafts are measured by what they say.

Prompts with an indication: Hyland et al. 2023 (MAIRA-1), arXiv:2311.13668; training texts without comparisons where there is no earlier
film: Ramesh et al. 2022 (CXR-ReDonE), arXiv:2210.06340.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from client.data.labeler import Labeler
from client.data.vocabulary import FINDINGS
from client.drafting.prompt import Prompt
from client.drafting.scrub import scrub
from client.reporting.clinical import clinical
from client.reporting.reading import Reading, present, reading
from client.tasks import Examples, Validated
from rainhill.adapter import Array
from rainhill.errors import BaseModelError
from rainhill.recipe import EvaluationSection
from rainhill.toml import Section

if TYPE_CHECKING:
    from torch import Tensor

    from client.data.cohort import Cohort
    from client.models import Net, Writer, Written
    from client.training.features import Features
    from client.training.metrics import Scored

BATCH = 32
"""Drafts that are written at a time."""
Block = Literal["indication", "prior"]


class Report(Section):
    measure: ClassVar[str] = "label_f1"

    findings: tuple[str, ...] = ()
    """Label columns of the manifest, by which patients are dealt evenly into parts; none are needed."""
    language: str = "en"
    """Of the reports, and of the phrases that they are read by."""
    blocks: tuple[Block, ...] = ("indication", "prior")
    """What of a case goes into the prompt, where the manifest has it."""
    scrub: bool = True
    """Whether comparisons with an earlier film are taken out of training texts where that film's report is not in the prompt."""
    max_tokens: Annotated[int, Field(ge=8, le=4096)] = 192
    """Of a report, in training and in a draft."""
    val_drafts: Annotated[int, Field(ge=0)] = 24
    """Validation patients whose reports are drafted to measure an adapter before each round; its loss alone is told where 0."""

    @property
    def outputs(self) -> dict[str, str]:
        return {}

    @property
    def names(self) -> tuple[str, ...]:
        return FINDINGS

    @cached_property
    def labeler(self) -> Labeler:
        return Labeler(language=self.language)

    def examples(self, cohort: Cohort, net: Net) -> Examples:
        """(N, T) tokens of prompt and report, and as targets those of the report; an image without one has none, and no loss."""
        from client.models.vlm import padded

        writer = _writer(net)
        rows, begins = (
            zip(*(self._encoded(cohort, place, writer) for place in range(len(cohort))), strict=True) if len(cohort) else ((), ())
        )
        ids = padded(rows)
        targets = ids.clone()
        for row, begin in zip(targets, begins, strict=True):
            row[:begin] = -100
        return Examples(targets=targets, given=ids, texts=cohort.reports)

    def _encoded(self, cohort: Cohort, place: int, writer: Writer) -> tuple[list[int], int]:
        prior = cohort.priors[place] if "prior" in self.blocks else ""
        prompt = Prompt(indication=cohort.indications[place] if "indication" in self.blocks else "", prior=prior)
        report = cohort.reports[place]
        wanted = scrub(report, self.labeler, language=self.language) if self.scrub and not prior else report
        return writer.encode(prompt.text(), wanted.strip() or None, limit=self.max_tokens)

    def losses(self, net: Net, features: Features, rows: Tensor) -> Tensor:
        """(n,) mean over the report's tokens of -log p."""
        from torch.nn.functional import cross_entropy

        assert features.given is not None
        ids, labels = features.given[rows], features.targets[rows]
        longest = int((ids >= 0).sum(dim=1).max())
        ids, labels = ids[:, :longest], labels[:, :longest]
        logits = net(features.hidden[rows], ids, labels >= 0)
        labels = labels[:, longest - logits.shape[1] + 1 :]
        each = cross_entropy(logits[:, :-1].transpose(1, 2), labels, ignore_index=-100, reduction="none")
        return each.sum(dim=1) / (labels >= 0).sum(dim=1).clamp(min=1)

    def drafts(self, net: Net, features: Features, rows: Sequence[int]) -> list[Written]:
        """What the network as it is now writes for these rows."""
        assert features.given is not None
        writer, written = _writer(net), []
        for start in range(0, len(rows), BATCH):
            some = np.asarray(rows[start : start + BATCH])
            prompts = [ids[(ids >= 0) & (own < 0)].tolist() for ids, own in zip(features.given[some], features.targets[some], strict=True)]
            written += writer.write(features.hidden[some], prompts, limit=self.max_tokens)
        return written

    def validated(self, net: Net, features: Features) -> Validated:
        """With `label_f1` of the first `val_drafts` patients."""
        from client.training.features import losses_of

        losses = losses_of(net, features, self)
        rows = [int(own[0]) for own in features.images_of[: self.val_drafts] if features.texts[own[0]].strip()]
        found = {"loss": float(losses.mean())}
        if rows:
            found["label_f1"] = self._value(net, features, rows)
        return Validated(losses=losses, metrics=found)

    def temperature(self, net: Net, features: Features) -> float:  # noqa: ARG002 - a draft is of the most likely words at any temperature
        return 1.0

    def score(self, net: Net, features: Features, *, temperature: float, section: EvaluationSection, seed: Sequence[int]) -> Scored:  # noqa: ARG002
        """`label_f1` and the other measures of `client.reporting`, with the drafts."""
        from client.training.metrics import Scored

        from client.reporting import wording

        rows = _with_report(features)
        if not rows:
            return Scored(means={}, findings={}, left_out=self.names)
        drafts, texts, patients = [one.text for one in self.drafts(net, features, rows)], _texts(features, rows), features.patients[rows]
        found = clinical(self._read(drafts), self._read(texts), patients, section=section, seed=seed)
        return Scored(
            means={**found.means, **wording.measured(drafts, texts, patients, section=section, seed=seed)},
            findings={name: {f"label_{metric}": of for metric, of in each.items()} for name, each in found.findings.items()},
            left_out=found.left_out,
            drafts=tuple(drafts),
        )

    def value(self, net: Net, features: Features, section: EvaluationSection) -> float:  # noqa: ARG002
        rows = _with_report(features)
        return self._value(net, features, rows) if rows else float("nan")

    def _value(self, net: Net, features: Features, rows: Sequence[int]) -> float:
        drafts = self._read([one.text for one in self.drafts(net, features, rows)])
        few = EvaluationSection(bootstraps=100)
        found = clinical(drafts, self._read(_texts(features, rows)), np.arange(len(rows)), section=few, seed=(0,))
        return found.means[self.measure].value

    def _read(self, texts: Sequence[str]) -> list[Reading]:
        return [reading(self.labeler, text) for text in texts]

    def truth(self, features: Features) -> Array:
        """(N, 14): whether the report has it there, or perhaps; NaN where there is no report."""
        said = np.array(present(self._read(features.texts)), dtype=np.float32).reshape(-1, len(FINDINGS))
        said[[not text.strip() for text in features.texts]] = np.nan
        return said

    def unlabelled(self, parts: Sequence[Features]) -> list[str]:
        return [] if any((part.targets >= 0).any() for part in parts) else ["report"]


def _writer(net: Net) -> Writer:
    if not net.writes:
        raise BaseModelError("task 'report' wants a model that writes, such as 'vlm', and this one has an output for each finding")
    return net  # type: ignore[return-value]


def _with_report(features: Features) -> list[int]:
    return [place for place, text in enumerate(features.texts) if text.strip()]


def _texts(features: Features, rows: Sequence[int]) -> list[str]:
    return [features.texts[row] for row in rows]
