"""Similar reports of the site's own, to be shown to a model beside a film; an index stays at the site and is never sent.

CXR-RePaiR-Gen: Ranjit, Ganapathy, Manuel, Ganu 2023, arXiv:2305.03660; after Lewis et al. 2020, arXiv:2005.11401.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from rainhill.errors import DataError
from rainhill.files import read_private, write_whole

VECTORS, REPORTS = "vectors.safetensors", "reports.json"
_VERSION = 1


@dataclass(frozen=True, kw_only=True, repr=False)
class Neighbour:
    report: str
    name: str
    similarity: float
    """Cosine, from -1 to 1."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Index:
    cohort: str
    """Fingerprint of the data set that it was made of."""
    vectors: NDArray[np.float32]
    """(N, d) of length 1; of nothing, 0."""
    reports: tuple[str, ...]
    names: tuple[str, ...]
    """By which a report is cited: a pseudonym, or a file and line."""
    patients: tuple[str, ...]
    """Pseudonyms of those whom the reports are of; empty of a text that is nobody's."""

    @classmethod
    def of(
        cls, vectors: NDArray[Any], reports: Sequence[str], names: Sequence[str], *, patients: Sequence[str] | None = None, cohort: str
    ) -> "Index":
        """Of (N, d) vectors, such as features of films; `patients` are the names unless they are given. DataError for what does not fit."""
        owners = names if patients is None else patients
        if vectors.ndim != 2 or not len(vectors) == len(reports) == len(names) == len(owners):
            sizes = f"{len(reports)} reports, {len(names)} names and {len(owners)} patients"
            raise DataError(f"vectors {vectors.shape} are not of {sizes}: expected (N, d) and N of each")
        return cls(cohort=cohort, vectors=_unit(vectors), reports=tuple(reports), names=tuple(names), patients=tuple(owners))

    def nearest(self, vector: NDArray[Any], k: int, *, without: str | None = None) -> tuple[Neighbour, ...]:
        """The k most similar, most first; fewer where there are fewer. None is of the patient `without`: in training, the film's own.

        Of equals the first in the index comes first. DataError for a vector of another length, and for k below 0.
        """
        if vector.shape != self.vectors.shape[1:] or k < 0:
            raise DataError(f"a vector {vector.shape} and k = {k}: expected {self.vectors.shape[1:]} and 0 or more")
        similarity = self.vectors @ _unit(vector[None])[0]
        order = np.argsort(-similarity, kind="stable")
        others = [place for place in order if without is None or self.patients[place] != without]
        return tuple(
            Neighbour(report=self.reports[place], name=self.names[place], similarity=float(np.clip(similarity[place], -1, 1)))
            for place in others[:k]
        )

    def save(self, folder: Path) -> None:
        """Two files that only their owner may read. They hold reports: they are as secret as those."""
        data = save({"vectors": np.ascontiguousarray(self.vectors)})
        told = {
            "version": _VERSION,
            "cohort": self.cohort,
            "vectors": hashlib.sha256(data).hexdigest(),
            "reports": self.reports,
            "names": self.names,
            "patients": self.patients,
        }
        write_whole(folder / VECTORS, data, private=True)
        write_whole(folder / REPORTS, json.dumps(told, ensure_ascii=False).encode(), private=True)

    @classmethod
    def load(cls, folder: Path, *, cohort: str) -> "Index":
        """DataError for one that is of another cohort, that is damaged, or whose two files are not of one index."""
        data, told = read_private(folder / VECTORS), _read_json(folder / REPORTS)
        if told.get("version") != _VERSION:
            raise DataError(f"{folder / REPORTS}: is of version {told.get('version')}, expected {_VERSION}: make the index anew")
        if told["cohort"] != cohort:
            raise DataError(f"{folder}: is an index of cohort {told['cohort'][:12]}, not of {cohort[:12]}: make the index anew")
        digest = hashlib.sha256(data).hexdigest()
        if digest != told["vectors"]:
            raise DataError(f"{folder / VECTORS}: sha256 {digest[:12]} is not {str(told['vectors'])[:12]}: make the index anew")
        try:
            vectors = load(data)["vectors"]
        except (SafetensorError, KeyError) as error:
            raise DataError(f"{folder / VECTORS}: is not the vectors of an index: make it anew") from error
        return cls.of(vectors, told["reports"], told["names"], patients=told["patients"], cohort=cohort)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(read_private(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not the JSON of an index: make it anew") from error
    wanted = {"version": int, "cohort": str, "vectors": str, "reports": list, "names": list, "patients": list}
    if not isinstance(told, dict) or not all(isinstance(told.get(key), kind) for key, kind in wanted.items()):
        raise DataError(f"{path}: lacks what an index has, expected {', '.join(wanted)}: make it anew")
    return told


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """DataError for what is not finite."""
    exact = np.asarray(vectors, dtype=np.float64)
    if not np.isfinite(exact).all():
        raise DataError(f"{int((~np.isfinite(exact)).any(axis=1).sum())} of {len(exact)} vectors hold what is no finite number")
    # Scaled first, or the square of a large one is none.
    largest = np.abs(exact).max(axis=1, keepdims=True, initial=0.0)
    scaled = exact / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    return (scaled / np.where(length > 0, length, 1.0)).astype(np.float32)
