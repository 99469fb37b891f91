"""Labels of a data set under the names that reports are labelled with, where they mean the same."""

import re
from collections.abc import Collection, Iterable, Mapping

from client.data.vocabulary import FINDINGS, PATHOLOGIES
from rainhill.errors import DataError
from rainhill.text import shown

CHEXPERT = {name.replace("_", " ").title(): name for name in FINDINGS}
"""As the columns of CheXpert and MIMIC-CXR are headed -> finding. Irvin et al. 2019, arXiv:1901.07031."""
_RANK = {"": 0, "0": 1, "-1": 2, "1": 3}
_WORDS = {"": "", "nan": "", "none": "", "null": "", "true": "1", "yes": "1", "false": "0", "no": "0"}

Table = Mapping[str, tuple[str, ...]]
"""Finding -> labels of the set, any of which says that it is there."""


def label(text: str) -> str:
    """ "1", "0", "-1" or "", as the manifest has them. ValueError for anything else."""
    word = text.strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    try:
        return {1.0: "1", 0.0: "0", -1.0: "-1"}[float(word)]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{shown(text)!r}, expected 1, 0, -1 (uncertain) or empty") from error


def label_in(cells: Mapping[str, str], column: str) -> str:
    """As `label`, whose ValueError names the column; one that is not there is empty."""
    try:
        return label(cells.get(column, ""))
    except ValueError as error:
        raise ValueError(f"column {shown(column)!r} is {error}") from error


def strongest(values: Iterable[str]) -> str:
    """There, before perhaps, before not."""
    return max(values, key=_RANK.__getitem__, default="")


def marked(table: Table, said: Collection[str]) -> tuple[str, ...]:
    """Of a set that lists what is there: what it does not list is not there."""
    return tuple("1" if any(one in said for one in of) else "0" for of in table.values())


def chexpert_labels(cells: Mapping[str, str], origin: str) -> tuple[str, ...]:
    """In the order of FINDINGS. A film of which the set says "No Finding" has none of the pathologies, also where it leaves them empty."""
    try:
        found = {finding: label_in(cells, heading) for heading, finding in CHEXPERT.items()}
    except ValueError as error:
        raise DataError(f"{origin}: {error}") from error
    if found["no_finding"] == "1":
        found |= {finding: "0" for finding in PATHOLOGIES if not found[finding]}
    return tuple(found[finding] for finding in FINDINGS)


def snake(text: str) -> str:
    """ "Aortic enlargement" -> "aortic_enlargement"; a name that begins with a digit gets a letter."""
    name = re.sub(r"\W+", "_", text.strip().lower()).strip("_")
    return f"class_{name}" if not name or name[0].isdigit() else name
