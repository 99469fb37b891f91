"""How far an image lies from those that a site's model was adapted on: of what lies too far, no draft is to be trusted.

Mahalanobis distance of pooled features: Lee et al. 2018, arXiv:1807.03888; covariance shrunk as by Ledoit, Wolf 2004,
doi:10.1016/S0047-259X(03)00096-4. What is fitted tells of a site's images: it stays there and is never sent.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy.ndimage import gaussian_filter

from rainhill.errors import BaseModelError, DataError
from rainhill.files import read_private, write_whole

if TYPE_CHECKING:
    from torch import Tensor

    from client.models import Net

MOST_FLAGGED = 0.05
BATCH = 64
DETAIL = (0.5, 1.0, 2.0, 4.0)
"""Pixels: the scales between which detail is measured."""
_STILL = 1e-3
_VERSION = "1"


def features_of(net: "Net", images: "Tensor") -> NDArray[np.float32]:
    """(N, 1, S, S) in [-1, 1] -> (N, 2 width + 13): what the network's frozen part sees, and how the film itself looks.

    A network learns to pass over noise and sharpness, so these are measured beside it. BaseModelError for a network whose frozen part sees
    nothing, because LoRA touches what is before it.
    """
    return np.concatenate([pooled(net, images), looks(images.numpy())], axis=1)


def pooled(net: "Net", images: "Tensor") -> NDArray[np.float32]:
    """(N, 1, S, S) in [-1, 1] -> (N, 2 width): mean and spread over tokens. BaseModelError as `features_of`."""
    import torch

    if net.writes and getattr(net, "scope", "language") != "language":
        raise BaseModelError(f"scope {net.scope!r} leaves no frozen features of an image: load the model with scope 'language'")
    found = []
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            hidden = net.prefix(images[start : start + BATCH]).float()
            tokens = hidden.reshape(len(hidden), -1, hidden.shape[-1])
            found.append(torch.cat([tokens.mean(dim=1), tokens.std(dim=1, correction=0)], dim=1))
    return torch.cat(found).numpy()


def looks(images: NDArray[Any]) -> NDArray[np.float32]:
    """(N, 1, S, S) in [-1, 1] -> (N, 13): deciles of the grey values, and the logarithm of the detail at four scales."""
    if len(images) > BATCH:
        return np.concatenate([looks(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])
    grey = np.asarray(images, dtype=np.float64)[:, 0]
    deciles = np.quantile(grey, np.linspace(0.1, 0.9, 9), axis=(1, 2)).T
    detail, finer = [], grey
    for sigma in DETAIL:
        coarser = gaussian_filter(grey, sigma=(0, sigma, sigma))
        detail.append(np.log((finer - coarser).std(axis=(1, 2)) + _STILL))
        finer = coarser
    return np.concatenate([deciles, np.stack(detail, axis=1)], axis=1).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    strange: bool
    distance: float
    threshold: float

    def __str__(self) -> str:
        return f"{'strange' if self.strange else 'familiar'}: distance {self.distance:.3g}, threshold {self.threshold:.3g}"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Familiar:
    """What a site's images look like to one base model."""

    cohort: str
    """Fingerprint of the images and of the base model."""
    centre: NDArray[np.float64]
    """(d,)"""
    whitening: NDArray[np.float64]
    """(d, d): the distance is the length of what it makes of a difference to the centre."""
    threshold: float
    """Distance that at most `most_flagged` of further images of the site exceed."""
    most_flagged: float

    @classmethod
    def of(cls, train: NDArray[Any], validation: NDArray[Any], *, cohort: str, most_flagged: float = MOST_FLAGGED) -> "Familiar":
        """(N, d) and (M, d) features of a site's images, of different patients.

        DataError for features that do not fit or are not finite, and for too few validation images to know that quantile from.
        """
        from sklearn.covariance import LedoitWolf

        train, validation = _features(train, None), _features(validation, train.shape[-1])
        if len(train) < 2:
            raise DataError(f"{len(train)} training images: what is familiar is not known from fewer than 2")
        if not 0 < most_flagged < 1:
            raise DataError(f"most_flagged = {most_flagged}: expected more than 0 and less than 1")
        # In units of its own spread, so that no feature counts for its scale; one that never varies, in what is left of rounding.
        spread = np.maximum(train.std(axis=0), 1e-6 * max(float(train.std()), 1e-12))
        covariance = LedoitWolf().fit((train - train.mean(axis=0)) / spread).covariance_
        values, vectors = np.linalg.eigh(covariance)
        whitening = (vectors / np.sqrt(np.maximum(values, values.max() * 1e-12))).T / spread
        found = cls(cohort=cohort, centre=train.mean(axis=0), whitening=whitening, threshold=np.inf, most_flagged=most_flagged)
        # The rank of conformal prediction: exact for any number of images.
        rank = int(np.ceil((len(validation) + 1) * (1 - most_flagged) - 1e-9))
        if rank > len(validation):
            few = int(np.ceil(1 / most_flagged)) - 1
            raise DataError(f"{len(validation)} validation images: to flag at most {most_flagged:.1%} wants at least {few}")
        at = float(np.sort(found.distances(validation))[rank - 1])
        return cls(cohort=cohort, centre=found.centre, whitening=whitening, threshold=at, most_flagged=most_flagged)

    def distances(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """(N, d) -> (N,)"""
        differences = _features(features, len(self.centre)) - self.centre
        return np.asarray(np.linalg.norm(differences @ self.whitening.T, axis=1))

    def judge(self, features: NDArray[Any]) -> list[Verdict]:
        return [
            Verdict(strange=bool(distance > self.threshold), distance=float(distance), threshold=self.threshold)
            for distance in self.distances(features)
        ]

    def save(self, path: Path) -> None:
        """A file that only its owner may read."""
        tensors = {"centre": self.centre, "whitening": np.ascontiguousarray(self.whitening)}
        numbers = {"threshold": repr(self.threshold), "most_flagged": repr(self.most_flagged)}
        write_whole(path, save(tensors, metadata={"version": _VERSION, "cohort": self.cohort, **numbers}), private=True)

    @classmethod
    def load(cls, path: Path, *, cohort: str) -> "Familiar":
        """DataError for a file that is of another cohort, or damaged."""
        # Whether it is its owner's alone.
        read_private(path)
        try:
            with safe_open(path, framework="numpy") as file:
                told = file.metadata() or {}
                centre, whitening = file.get_tensor("centre"), file.get_tensor("whitening")
            version, of = told["version"], told["cohort"]
            threshold, most_flagged = float(told["threshold"]), float(told["most_flagged"])
        except (SafetensorError, KeyError, ValueError) as error:
            raise DataError(f"{path}: does not say what is familiar at a site: fit it anew") from error
        if version != _VERSION or of != cohort:
            raise DataError(f"{path}: is of version {version} and cohort {of[:12]}, not of {_VERSION} and {cohort[:12]}: fit it anew")
        if whitening.shape != (len(centre), len(centre)):
            raise DataError(f"{path}: whitening {whitening.shape} is not of {len(centre)} features: fit it anew")
        return cls(cohort=of, centre=centre, whitening=whitening, threshold=threshold, most_flagged=most_flagged)


def _features(values: NDArray[Any], width: int | None) -> NDArray[np.float64]:
    exact = np.asarray(values, dtype=np.float64)
    if exact.ndim != 2 or (width is not None and exact.shape[1] != width):
        raise DataError(f"features {exact.shape}: expected (N, {'d' if width is None else width})")
    if not np.isfinite(exact).all():
        raise DataError(f"{int((~np.isfinite(exact)).any(axis=1).sum())} of {len(exact)} images have features that are no finite numbers")
    return exact
