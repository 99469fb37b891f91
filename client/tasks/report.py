"""A radiology report written from an image and a prompt; the loss is on the answer alone, and drafts are measured by what they say.

Prompts with an indication: Hyland et al. 2023 (MAIRA-1), arXiv:2311.13668; training texts without comparisons where there is no earlier
film: Ramesh et al. 2022 (CXR-ReDonE), arXiv:2210.06340.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from client.data.labeler import Labeler
from client.data.languages import heard, labelers_of
from client.data.vocabulary import FINDINGS
from client.drafting.cases import Wording, answers, prompts, to_train_on
from client.drafting.confidence import GRAVE, Threshold, confidence_of, is_wrong
from client.drafting.prompt import has_prior
from client.drafting.scrub import scrub
from client.drafting.track_record import TrackRecord, named
from client.reporting.clinical import clinical
from client.reporting.reading import Reading, present, reading
from client.tasks import Examples, Validated
from rainhill.adapter import Array
from rainhill.errors import BaseModelError, ConfigError, DataError
from rainhill.recipe import BaseSection, EvaluationSection
from rainhill.toml import Section

if TYPE_CHECKING:
    from torch import Tensor

    from client.data.cohort import Cohort
    from client.models import Net, Writer, Written
    from client.training.features import Features
    from client.training.metrics import Drafted, Scored

log = logging.getLogger(__name__)
BATCH = 32
"""Drafts that are written at a time."""
KEPT = 0.8
"""Share of the drafts of validation patients that the model does not abstain from."""
FEW, MANY, LEAST = 10, 300, 0.1
"""Reports from which on it is seen in which language they are, and that are read for it at most; and the least share of them that has to
speak of some finding."""
Block = Literal["indication", "prior", "findings", "similar"]


class Classifier(BaseSection):
    """A model of the task `findings`, whose findings stand in the prompt."""

    findings: Annotated[tuple[str, ...], Field(min_length=1)]
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Probability from which a finding counts as found."""


class Report(Section):
    measure: ClassVar[str] = "label_f1"
    needs: ClassVar[str] = "report"

    findings: tuple[str, ...] = ()
    """Label columns of the manifest, by which patients are dealt evenly into parts; none are needed."""
    language: str = "en"
    """Of the reports, and of the phrases that they are read by."""
    blocks: tuple[Block, ...] = ("indication", "prior")
    """What goes into the prompt: indication and the report before, where the manifest has them; what a classifier finds; and reports of the
    site's own films that look alike."""
    classifier: Classifier | None = None
    """For the block `findings`. Its weights are embedded, a folder by its whole path, or a hub's."""
    similar: Annotated[int, Field(ge=1, le=5)] = 2
    """Reports in the block of that name. They are of training patients, and stay at the site."""
    scrub: bool = True
    """Whether comparisons with an earlier film are taken out of training texts, and of drafts, where its report is not in the prompt."""
    counterfactual: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Share of the findings that a training report calls unchanged which are taken out of the report before, and called new: a model that
    is shown little that is new forgets to read what was there before."""
    expand: bool = False
    """Whether a film with labels and without a report is trained on one that is written from its labels, in the site's words."""
    called: dict[str, str] = {}
    """Label column -> finding of CheXpert that it stands for, for `expand`, where it has another name."""
    max_tokens: Annotated[int, Field(ge=8, le=4096)] = 192
    """Of a report, in training and in a draft."""
    val_drafts: Annotated[int, Field(ge=0)] = 24
    """Validation patients whose reports are drafted to measure an adapter before each round; its loss alone is told where 0."""

    @field_validator("language")
    @classmethod
    def _has_phrases(cls, language: str) -> str:
        try:
            Labeler(language=language)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return language

    @model_validator(mode="after")
    def _has_what_its_blocks_need(self) -> Report:
        if ("findings" in self.blocks) != (self.classifier is not None):
            raise ValueError("the block 'findings' and a classifier go together: one is given without the other")
        for column, finding in self.called.items():
            if column not in self.findings:
                raise ValueError(f"called names {column!r}, which is not one of the findings {', '.join(self.findings)}")
            if finding not in FINDINGS:
                raise ValueError(f"called.{column} = {finding!r} is not one of {', '.join(FINDINGS)}")
        unknown = [name for name in self.findings if self.expand and self.called.get(name, name) not in FINDINGS]
        if unknown:
            raise ValueError(f"expand: of {', '.join(unknown)} it is not known which finding it is; say so with called")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        texts = {"indication": "indications", "prior": "reports of the examinations before"}
        return ("reports", *(words for block, words in texts.items() if block in self.blocks), *self.findings)

    @property
    def across_patients(self) -> tuple[str, ...]:
        """Similar reports are other patients', and so are the sentences that a report is written in from labels."""
        return ("block 'similar'",) * ("similar" in self.blocks) + ("expand",) * self.expand

    @property
    def outputs(self) -> dict[str, str]:
        return {}

    @property
    def names(self) -> tuple[str, ...]:
        return FINDINGS

    @cached_property
    def labeler(self) -> Labeler:
        return Labeler(language=self.language)

    def usable(self, cohort: Cohort) -> Array:
        """Those with a report; and with a label where one is written from that."""
        told = np.array([bool(report.strip()) for report in cohort.reports], dtype=bool)
        return told | np.isfinite(cohort.labels).any(axis=1) if self.expand else told

    @cached_property
    def _labelers(self) -> dict[str, Labeler]:
        return labelers_of(self.language, self.labeler)

    def examples(self, cohort: Cohort, net: Net, among: Cohort | None = None) -> Examples:
        """(N, T) tokens of prompt and report, and as targets those of the report; an image without one has none, and no loss."""
        from client.models.vlm import padded

        writer, wording, train = _writer(net), self._wording(net), cohort if among is None else among
        self._refuse_another_language(cohort)
        asked = to_train_on(cohort, wording) if among is None else cohort
        told = [
            writer.encode(prompt, answer or None, limit=self.max_tokens)
            for prompt, answer in zip(prompts(asked, train, wording), answers(asked, train, wording), strict=True)
        ]
        cut = sum(len(row) > begin and row[-1] not in writer.tokens.ends for row, begin in told)
        if cut:
            log.warning("site %s: max_tokens = %d cuts %d of %d reports", cohort.site, self.max_tokens, cut, len(told))
        ids = padded([row for row, _ in told])
        targets = ids.clone()
        for row, (_, begin) in zip(targets, told, strict=True):
            row[:begin] = -100
        return Examples(targets=targets, given=ids, texts=cohort.reports)

    def _refuse_another_language(self, cohort: Cohort) -> None:
        """Raises DataError where hardly a report speaks of any finding, as the labeler reads it, or they do so rather in another language:
        nothing could be measured, or the negations of what is called alike in both would not be seen.
        """
        reports = [report for report in cohort.reports if report.strip()]
        if len(reports) < FEW:
            return
        # From end to end: a table may be sorted by where its reports come from.
        read = heard(reports[:: -(-len(reports) // MANY)], self.language, self._labelers)
        if read.speaking < LEAST * read.reports:
            raise DataError(
                f"site {cohort.site}: {read.speaking} of {read.reports} reports speak of a finding, as phrases of language "
                f"{self.language!r} have it: is that their language?"
            )
        rather = f"site {cohort.site}: {read.elsewhere} of {read.reports} reports read rather as language {read.other!r}"
        if read.elsewhere > read.reports / 2:
            raise DataError(f"{rather} than as {self.language!r}: which one is theirs?")
        if read.elsewhere:
            log.warning("%s: what they say is not understood", rather)

    def _wording(self, net: Net) -> Wording:
        from client.drafting import sight

        return Wording(
            labeler=self.labeler,
            language=self.language,
            with_indication="indication" in self.blocks,
            with_prior="prior" in self.blocks,
            scrubs=self.scrub,
            expands={name: self.called.get(name, name) for name in self.findings} if self.expand else None,
            counterfactual=self.counterfactual,
            finds=sight.finder(self.classifier) if self.classifier else None,
            sees=partial(sight.pooled, _writer(net)) if "similar" in self.blocks else None,
            similar=self.similar,
        )

    def losses(self, net: Net, features: Features, rows: Tensor) -> Tensor:
        """(n,) mean over the report's tokens of -log p."""
        from torch.nn.functional import cross_entropy

        assert features.given is not None
        ids, labels = features.given[rows], features.targets[rows]
        longest = int((ids >= 0).sum(dim=1).max())
        ids, labels = ids[:, :longest], labels[:, :longest]
        logits = net(features.hidden[rows], ids, labels >= 0)
        labels = labels[:, longest - logits.shape[1] + 1 :]
        # Flat, because over a transposed view it is half as fast.
        each = cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none").view_as(labels)
        return each.sum(dim=1) / (labels >= 0).sum(dim=1).clamp(min=1)

    def drafts(self, net: Net, features: Features, rows: Sequence[int]) -> list[Written]:
        """What the network as it is now writes for these rows; without a prior in its prompt a draft compares with nothing, by `scrub`."""
        assert features.given is not None
        writer = _writer(net)
        written: list[Written] = []
        for start in range(0, len(rows), BATCH):
            some = np.asarray(rows[start : start + BATCH])
            prompts = [ids[(ids >= 0) & (own < 0)].tolist() for ids, own in zip(features.given[some], features.targets[some], strict=True)]
            written += map(partial(self._scrubbed, writer), writer.write(features.hidden[some], prompts, limit=self.max_tokens), prompts)
        return written

    def _scrubbed(self, writer: Writer, draft: Written, prompt: Sequence[int]) -> Written:
        if not self.scrub or not self.labeler.comparisons(draft.text) or has_prior(writer.text(prompt)):
            return draft
        return replace(draft, text=scrub(draft.text, self.labeler, language=self.language))

    def validated(self, net: Net, features: Features) -> Validated:
        """With `label_f1` of the first `val_drafts` patients."""
        from client.training.features import losses_of

        losses = losses_of(net, features, self)
        rows = _first_with_report(features)[: self.val_drafts]
        found, patients = {"loss": float(losses.mean())}, {"loss": features.count}
        value = self._value(net, features, rows) if rows else float("nan")
        if np.isfinite(value):
            found["label_f1"], patients["label_f1"] = value, len(rows)
        return Validated(losses=losses, metrics=found, patients=patients)

    def temperature(self, net: Net, features: Features) -> float:  # noqa: ARG002 - a draft is of the most likely words at any temperature
        return 1.0

    def score(self, net: Net, features: Features, *, temperature: float, section: EvaluationSection, seed: Sequence[int]) -> Scored:  # noqa: ARG002
        """`label_f1` and the other measures of `client.reporting`, with the drafts."""
        from client.reporting import wording
        from client.training.metrics import Scored

        rows = _with_report(features)
        if not rows:
            return Scored(means={}, findings={}, left_out=self.names)
        texts, patients = _texts(features, rows), features.patients[rows]
        drafts, said, wanted = self._beside(net, features, rows)
        written = [one.text for one in drafts]
        found = clinical(said, wanted, patients, section=section, seed=seed)
        return Scored(
            means={**found.means, **wording.measured(written, texts, patients, section=section, seed=seed)},
            findings={name: {f"label_{metric}": of for metric, of in each.items()} for name, each in found.findings.items()},
            left_out=found.left_out,
            drafts=tuple(map(_judged, drafts, said, wanted)),
        )

    def track_record(self, net: Net, features: Features) -> TrackRecord | None:
        """By one draft of each of these patients, and with a threshold that keeps `KEPT` of them."""
        rows = _first_with_report(features)
        if not rows:
            return None
        drafts, said, wanted = self._beside(net, features, rows)
        sure = [confidence_of(draft).value for draft in drafts]
        wrong = [is_wrong(*pair, kinds=GRAVE) for pair in zip(said, wanted, strict=True)]
        # What was cut may have come to it.
        ended = [place for place, draft in enumerate(drafts) if draft.ended]
        seen = named([said[place] for place in ended], [wanted[place] for place in ended])
        return TrackRecord(threshold=Threshold.calibrated(sure, wrong, coverage=KEPT), named=seen)

    def value(self, net: Net, features: Features, section: EvaluationSection) -> float:  # noqa: ARG002
        rows = _with_report(features)
        return self._value(net, features, rows) if rows else float("nan")

    def _value(self, net: Net, features: Features, rows: Sequence[int]) -> float:
        _, said, wanted = self._beside(net, features, rows)
        found = clinical(said, wanted, np.arange(len(rows)), section=EvaluationSection(bootstraps=100), seed=(0,))
        return found.means[self.measure].value

    def _beside(self, net: Net, features: Features, rows: Sequence[int]) -> tuple[list[Written], list[Reading], list[Reading]]:
        """Drafts of these rows, what they say, and what their reports say."""
        drafts = self.drafts(net, features, rows)
        return drafts, self._read([one.text for one in drafts]), self._read(_texts(features, rows))

    def _read(self, texts: Sequence[str]) -> list[Reading]:
        return [reading(self.labeler, text) for text in texts]

    def truth(self, features: Features) -> Array:
        """(N, 14): whether the report has it there, or perhaps; NaN where there is no report."""
        said = np.array(present(self._read(features.texts)), dtype=np.float32).reshape(-1, len(FINDINGS))
        said[[not text.strip() for text in features.texts]] = np.nan
        return said

    def unlabelled(self, parts: Sequence[Features]) -> list[str]:
        return [] if any((part.targets >= 0).any() for part in parts) else ["a report to train on (columns.report)"]


def _writer(net: Net) -> Writer:
    if not net.writes:
        raise BaseModelError(
            "task 'report' wants a model that writes, such as 'vlm' or 'encoder_decoder', and this one has an output for each finding"
        )
    return net  # type: ignore[return-value]


def _judged(draft: Written, said: Reading, wanted: Reading) -> Drafted:
    from client.training.metrics import Drafted

    return Drafted(text=draft.text, sure=confidence_of(draft).value, said=said, wanted=wanted)


def _with_report(features: Features) -> list[int]:
    return [place for place, text in enumerate(features.texts) if text.strip()]


def _first_with_report(features: Features) -> list[int]:
    """One row of each patient who has any."""
    found = ([row for row in own.tolist() if features.texts[row].strip()] for own in features.images_of)
    return [rows[0] for rows in found if rows]


def _texts(features: Features, rows: Sequence[int]) -> list[str]:
    return [features.texts[row] for row in rows]
