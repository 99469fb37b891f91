"""Patients with a rare finding are drawn more often: sampling weights by the inverse prevalence of the rarest that they have.

As class-balanced sampling of ImageNet's tail (Shen, Lin, Huang 2016, arXiv:1512.05830), with patients as the unit.
"""

import numpy as np
from numpy.typing import NDArray

from rainhill.errors import DataError

CAP = 10.0
"""The largest weight is at most this many times the smallest: a single patient does not become a site's data set."""


def patient_weights(labels: NDArray[np.floating], *, strength: float) -> NDArray[np.float64]:
    """(P, F) 1, 0 or NaN for each patient -> (P,) weights, all above 0, of mean 1.

    A patient counts as prevalence**-strength of the rarest finding that he or she has, and one who has none by how many those are.
    `strength` 0 leaves all alike, 1 is the full inverse. A label that is NaN says nothing, neither of the patient nor of the prevalence.
    Not for a private run: its accountant assumes that all patients are drawn with the same probability. DataError for what is no label.
    """
    if labels.ndim != 2 or not (np.isnan(labels) | (labels == 0) | (labels == 1)).all():
        raise DataError(f"labels {labels.shape}: expected (patients, findings) of 0, 1 or NaN")
    if not 0 <= strength <= 1:
        raise DataError(f"strength = {strength}, expected 0 (all alike) to 1 (the full inverse of prevalence)")
    if not len(labels):
        return np.ones(0)
    positive = labels == 1
    known = (~np.isnan(labels)).sum(axis=0)
    prevalence = positive.sum(axis=0) / np.maximum(known, 1)
    rarest = np.where(positive, prevalence, np.inf).min(axis=1, initial=np.inf)
    none = np.isinf(rarest)
    rarest = np.where(none, none.mean(), rarest)
    weights = (rarest / rarest.max()) ** -strength
    weights = np.minimum(weights, CAP)
    return np.asarray(weights / weights.mean())
