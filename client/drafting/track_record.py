"""What a site's validation patients tell of a model's drafts: from where on it is sure enough, and what it is blind to.

No measure of how sure it is knows of the latter: it leaves the finding out of every draft alike, and would do so again. So it is told by
name beforehand, and whoever reads a draft looks for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from client.drafting.confidence import CERTAINTY, Threshold, upper_bound
from client.reporting.reading import CLASSES, THERE, Reading
from rainhill.errors import DataError

LEAST = 0.5
"""Share of the reports with a finding in whose drafts a model has to name it."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """Of one finding."""

    there: int
    """Reports that have it, or may."""
    named: int
    """Drafts of these that do."""

    @property
    def is_blind(self) -> bool:
        """Whether, with 95 % certainty of this one finding, fewer than `LEAST` of such reports' drafts name it; of four reports or fewer
        nothing is that certain.
        """
        return upper_bound(self.named, self.there, CERTAINTY) < LEAST


def named(drafts: Sequence[Reading], references: Sequence[Reading]) -> dict[str, Named]:
    """Of each finding that any reference has; one draft per patient, for the bound takes them for independent. DataError for another number
    of drafts.
    """
    if len(drafts) != len(references):
        raise DataError(f"{len(drafts)} drafts of {len(references)} references: one of each is wanted")
    found = {}
    for finding in CLASSES:
        said = [
            draft.labels[finding] in THERE
            for draft, reference in zip(drafts, references, strict=True)
            if reference.labels[finding] in THERE
        ]
        if said:
            found[finding] = Named(there=len(said), named=sum(said))
    return found


def blind_to(counts: Mapping[str, Named]) -> frozenset[str]:
    """Findings that a model leaves out more often than not, by what `named` gives."""
    return frozenset(finding for finding, of in counts.items() if of.is_blind)


@dataclass(frozen=True, kw_only=True)
class TrackRecord:
    threshold: Threshold
    named: Mapping[str, Named]
    """By finding."""

    @property
    def blind(self) -> frozenset[str]:
        return blind_to(self.named)
