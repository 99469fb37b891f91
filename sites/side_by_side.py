"""Drafts beside the report that was signed, word by word: what a draft says more, and what it leaves out."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["same", "more", "missing"]
SHOWN = (("base", "as it arrived"), ("private", "adapted"))
"""Whose drafts are shown, of the five arms, and what they are called there."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Words one after the other that are of a kind, with the line breaks that a draft has between them."""

    kind: Kind
    words: str


@dataclass(frozen=True, kw_only=True)
class Draft:
    by: str
    runs: Sequence[Run]
    abstained: bool
    """Whether the model was less sure of it than of what it keeps."""

    @property
    def same(self) -> bool:
        return all(run.kind == "same" for run in self.runs)


@dataclass(frozen=True, kw_only=True)
class Beside:
    """One film's report and the drafts of it."""

    film: int
    indication: str
    prior: str
    reference: str
    drafts: Sequence[Draft]


def beside(case: Mapping[str, Any]) -> Beside:
    """Reads an entry of a site's `drafts` in results.json."""
    reference = str(case["reference"])
    return Beside(
        film=int(case["film"]),
        indication=str(case["indication"]),
        prior=str(case["prior"]),
        reference=reference,
        drafts=[
            Draft(by=title, runs=marked(str(case[arm]), reference), abstained=arm == "private" and bool(case.get("abstained")))
            for arm, title in SHOWN
        ],
    )


def marked(draft: str, reference: str) -> list[Run]:
    """The draft's words, and between them those of the reference that it has not. Case and punctuation make no difference."""
    said, wanted = re.findall(r"\S+(?:\s*\n)?", "\n".join(draft.splitlines())), reference.split()
    runs: list[Run] = []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, _plain(said), _plain(wanted), autojunk=False).get_opcodes():
        if tag == "equal":
            runs.append(Run(kind="same", words=" ".join(said[i:j])))
            continue
        for kind, words in (("missing", wanted[k:m]), ("more", said[i:j])):
            if words:
                runs.append(Run(kind=kind, words=" ".join(words)))  # type: ignore[arg-type]
    return runs


def _plain(words: Sequence[str]) -> list[str]:
    return [re.sub(r"[^\w?]", "", word).lower() for word in words]
