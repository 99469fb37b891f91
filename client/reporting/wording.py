"""Drafts against references by their wording: CIDEr-D, and how many words a radiologist would have to change.

CIDEr-D: Vedantam, Zitnick, Parikh 2015, CVPR, arXiv:1411.5726, with the constants of its authors' code.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

from rainhill.errors import DataError

LONGEST = 4
"""Words of an n-gram."""
SIGMA = 6.0
"""Of the penalty for another length, in words."""
SCALE = 10.0
Ngram = tuple[str, ...]


def words(text: str) -> list[str]:
    """In lower case, without punctuation."""
    return re.findall(r"[^\W_]+(?:\.\d+)?", text.lower())


def cider_d(drafts: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """(N,) from 0 to 10 of drafts with one reference each; rare n-grams count more, by how many of the references have them.

    Of a single reference every n-gram is in all of them, and says nothing: its score is 0. DataError where the numbers differ.
    """
    if len(drafts) != len(references):
        raise DataError(f"{len(drafts)} drafts of {len(references)} references: one of each is wanted")
    counted = [(_counts(draft), _counts(reference)) for draft, reference in zip(drafts, references, strict=True)]
    having = Counter(ngram for _, reference in counted for of in reference for ngram in of)
    total = log(len(references)) if references else 0.0
    weight = {ngram: total - log(count) for ngram, count in having.items()}
    return np.array([_similarity(draft, reference, weight, total) for draft, reference in counted], dtype=np.float64)


def changed_words(draft: str, reference: str) -> int:
    """The fewest words to insert, delete or replace that make the draft the reference. Levenshtein 1966, over words."""
    said, wanted = words(draft), words(reference)
    row = list(range(len(wanted) + 1))
    for place, word in enumerate(said, start=1):
        above, row[0] = row[0], place
        for column, other in enumerate(wanted, start=1):
            above, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, above + (word != other))
    return row[-1]


def _counts(text: str) -> list[Counter[Ngram]]:
    said = words(text)
    return [Counter(tuple(said[at : at + size]) for at in range(len(said) - size + 1)) for size in range(1, LONGEST + 1)]


def _similarity(draft: list[Counter[Ngram]], reference: list[Counter[Ngram]], weight: Mapping[Ngram, float], unseen: float) -> float:
    # The authors' code takes the length in bigrams, of which there is one fewer than words.
    longer = sum(draft[1].values()) - sum(reference[1].values())
    penalty = exp(-(longer**2) / (2 * SIGMA**2))
    found = 0.0
    for said, wanted in zip(draft, reference, strict=True):
        own = {ngram: count * weight.get(ngram, unseen) for ngram, count in said.items()}
        theirs = {ngram: count * weight[ngram] for ngram, count in wanted.items()}
        length = sqrt(sum(value**2 for value in own.values()) * sum(value**2 for value in theirs.values()))
        if length:
            found += sum(min(value, theirs.get(ngram, 0.0)) * theirs.get(ngram, 0.0) for ngram, value in own.items()) / length
    return SCALE * penalty * found / LONGEST
