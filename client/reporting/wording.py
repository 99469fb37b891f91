"""Drafts against references by their wording: BLEU, chrF, ROUGE-L, METEOR, CIDEr-D, and the words a radiologist would have to change.

BLEU and chrF by sacrebleu (Post 2018, arXiv:1804.08771), ROUGE-L by rouge-score, METEOR by nltk. CIDEr-D: Vedantam, Zitnick, Parikh 2015,
CVPR, arXiv:1411.5726, with the constants of its authors' code.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import exp, log, sqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from client.training.metrics import Measured, patient_draws
from rainhill.errors import DataError
from rainhill.recipe import EvaluationSection

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEUScore

WORDINGS = ("bleu", "chrf", "rouge_l", "meteor_nosyn", "cider_d", "changed_words")
"""Of one report each; `corpus_bleu` is of all reports together."""
LONGEST = 4
"""Words of an n-gram."""
SIGMA = 6.0
"""Of the penalty for another length, in words."""
SCALE = 10.0
Ngram = tuple[str, ...]


def words(text: str) -> list[str]:
    """In lower case, without punctuation."""
    return re.findall(r"[^\W_]+(?:\.\d+)?", text.lower())


def scores(drafts: Sequence[str], references: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Each of `WORDINGS`, (N,): BLEU and chrF from 0 to 100, ROUGE-L and METEOR from 0 to 1, CIDEr-D from 0 to 10, words.

    DataError where there is not one draft of each reference.
    """
    _one_of_each(drafts, references)
    return _scores(drafts, references, _bleu(drafts, references))


def measured(
    drafts: Sequence[str],
    references: Sequence[str],
    patients: NDArray[np.int64],
    *,
    section: EvaluationSection,
    seed: Sequence[int],
) -> dict[str, Measured]:
    """`corpus_bleu`, and a report's mean of each of `WORDINGS`, on the draws of patients that `clinical` makes from the same seed.

    What n-grams weigh in CIDEr-D is counted once, over all references, and not again for each draw. DataError as for `clinical`.
    """
    if not len(drafts) == len(references) == len(patients) or not len(drafts):
        raise DataError(f"{len(drafts)} drafts of {len(references)} references and {len(patients)} patients: one of each is wanted")
    weights = np.vstack([np.ones(len(drafts)), patient_draws(patients, section.bootstraps, seed)])
    bleu = _bleu(drafts, references)
    # BLEU of a draw is made from counts of n-grams: no report is cut into words again.
    counts = np.array([[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in bleu], dtype=np.float64)
    found = {"corpus_bleu": np.array([_corpus_bleu(row) for row in np.rint(weights @ counts).astype(int).tolist()])}
    found |= {name: weights @ values / weights.sum(axis=1) for name, values in _scores(drafts, references, bleu).items()}
    return {name: Measured(value=float(values[0]), replicates=values[1:]) for name, values in found.items()}


def _scores(drafts: Sequence[str], references: Sequence[str], bleu: "Sequence[BLEUScore]") -> dict[str, NDArray[np.float64]]:
    pairs = list(zip(drafts, references, strict=True))
    found: dict[str, Sequence[float] | NDArray[np.float64]] = {
        "bleu": [one.score for one in bleu],
        "chrf": _chrf(pairs),
        "rouge_l": _rouge_l(pairs),
        "meteor_nosyn": _meteor(pairs),
        "cider_d": cider_d(drafts, references),
        "changed_words": [changed_words(draft, reference) for draft, reference in pairs],
    }
    return {name: np.array(found[name], dtype=np.float64) for name in WORDINGS}


def _bleu(drafts: Sequence[str], references: Sequence[str]) -> "list[BLEUScore]":
    from sacrebleu.metrics.bleu import BLEU

    # A report of three words has no four-gram, and is not wrong for it.
    metric = BLEU(effective_order=True)
    return [metric.sentence_score(draft, [reference]) for draft, reference in zip(drafts, references, strict=True)]


def _corpus_bleu(counts: Sequence[int]) -> float:
    from sacrebleu.metrics.bleu import BLEU

    length, reference_length, *ngrams = counts
    found = BLEU.compute_bleu(
        correct=ngrams[:LONGEST], total=ngrams[LONGEST:], sys_len=length, ref_len=reference_length, smooth_method="exp"
    )
    return float(found.score)


def _chrf(pairs: Sequence[tuple[str, str]]) -> list[float]:
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF()
    return [metric.sentence_score(draft, [reference]).score for draft, reference in pairs]


class _Words:
    """For rouge-score, whose own words have no umlauts."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _rouge_l(pairs: Sequence[tuple[str, str]]) -> list[float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    return [scorer.score(reference, draft)["rougeL"].fmeasure for draft, reference in pairs]


class _NoSynonyms:
    """In place of WordNet, which nltk would have to download: words agree where they or their English stems do."""

    def synsets(self, word: str) -> tuple[()]:  # noqa: ARG002 - as WordNet is called
        return ()


def _meteor(pairs: Sequence[tuple[str, str]]) -> list[float]:
    from nltk.translate.meteor_score import single_meteor_score

    none = _NoSynonyms()
    return [single_meteor_score(words(reference), words(draft), wordnet=none) for draft, reference in pairs]


def _one_of_each(drafts: Sequence[str], references: Sequence[str]) -> None:
    if len(drafts) != len(references):
        raise DataError(f"{len(drafts)} drafts of {len(references)} references: one of each is wanted")


def cider_d(drafts: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """(N,) from 0 to 10 of drafts with one reference each; rare n-grams count more, by how many of the references have them.

    Of a single reference every n-gram is in all of them, and says nothing: its score is 0. DataError where the numbers differ.
    """
    _one_of_each(drafts, references)
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
