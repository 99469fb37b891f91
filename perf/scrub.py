"""What the scrubber leaves of real reports: how many compare, how many have words left, and of how many the labels changed.

    python -m perf.scrub [--reports ../shared/data/cxr/reports_iu/NLMCXR_reports.tgz]

The reports are those of perf.labeler. Labels, sides and severities are the labeler's, before and after; words that grade a change
(`slightly increased`) do not count as a finding's severity. Speed is that of one process on one core, over the reports that compare.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client.data.labeler import Labeler
from client.drafting.scrub import scrub, ungraded
from client.reporting.reading import reading
from perf.labeler import reports_in

REPORTS = Path("../shared/data/cxr/reports_iu/NLMCXR_reports.tgz")


@dataclass(frozen=True, kw_only=True)
class Scrubbed:
    reports: int
    comparing: int
    compare_still: int
    labels_changed: int
    places_changed: int
    """Reports of which a label, a side or a severity changed."""
    emptied: int
    words_kept: float
    """Share of the words of the comparing reports."""
    per_second: float


def scrubbed(texts: Sequence[str], labeler: Labeler, *, language: str = "en") -> Scrubbed:
    comparing = [text for text in texts if labeler.comparisons(text)]
    begun = time.perf_counter()
    after = [scrub(text, labeler, language=language) for text in comparing]
    took_s = time.perf_counter() - begun
    before = [ungraded(text, labeler, language=language) for text in comparing]
    pairs = [(reading(labeler, old), reading(labeler, new)) for old, new in zip(before, after, strict=True)]
    return Scrubbed(
        reports=len(texts),
        comparing=len(comparing),
        compare_still=sum(bool(labeler.comparisons(text)) for text in after),
        labels_changed=sum(labeler.labels(old) != new.labels for old, (_, new) in zip(comparing, pairs, strict=True)),
        places_changed=sum((old.labels, old.sides, old.severities) != (new.labels, new.sides, new.severities) for old, new in pairs),
        emptied=sum(not text for text in after),
        words_kept=sum(len(text.split()) for text in after) / max(sum(len(text.split()) for text in comparing), 1),
        per_second=len(comparing) / max(took_s, 1e-9),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=Path, default=REPORTS)
    options = parser.parse_args()
    if not options.reports.exists():
        print(f"{options.reports}: not there, so nothing is said of real reports")
        return
    of = scrubbed([one.text for one in reports_in(options.reports)], Labeler())
    print(f"{of.comparing} of {of.reports} reports compare ({of.comparing / of.reports:.1%})")
    print(f"after scrubbing {of.compare_still} compare still, and {of.emptied} are empty")
    print(f"labels changed in {of.labels_changed}; labels, sides or severities in {of.places_changed}")
    print(f"{of.words_kept:.1%} of their words are kept; {of.per_second:.0f} reports a second")


if __name__ == "__main__":
    main()
