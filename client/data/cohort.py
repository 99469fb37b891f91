"""The de-identified local data set with patients as the unit: pixels, labels and what is known of a patient, without identifiers."""

import hashlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from client.data import manifest, splits
from client.data.pixels import Pixels, read_image
from rainhill.config import DataConfig, SiteConfig, SplitConfig
from rainhill.errors import ConfigError, DataError

log = logging.getLogger(__name__)

_PIXELS_VERSION = 1  # goes up when pixels.py gives other values, so that no cache outlives them


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Cohort:
    """One site's images, N of P patients. Findings are in the order of the recipe."""

    site: str
    findings: tuple[str, ...]
    images: Pixels
    """(N, 1, H, W) float32 in [-1, 1], bone bright."""
    labels: NDArray[np.float32]
    """(N, F) 0, 1 or NaN, which is: not labelled."""
    patients: NDArray[np.int64]
    """(N,) 0..P-1: places in this cohort, not identifiers."""
    split: NDArray[np.str_]
    """(N,) "train", "val" or "test"; a patient's images are all in the same."""
    sex: NDArray[np.str_]
    """(N,) "M", "F", "O", or "" where unknown: (0010,0040)."""
    age: NDArray[np.float32]
    """(N,) years, NaN where unknown."""
    view: NDArray[np.str_]
    """(N,) "AP", "PA" and so on, "" where unknown: (0018,5101)."""
    reports: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.images)
        shapes = {"labels": (n, len(self.findings)), "reports": (n,), **dict.fromkeys(("patients", "split", "sex", "age", "view"), (n,))}
        for name, expected in shapes.items():
            got = np.shape(getattr(self, name))
            if got != expected:
                raise ValueError(f"{name}: shape {got} is not {expected}")

    def __repr__(self) -> str:
        return f"Cohort(site={self.site!r}, {len(self)} images of {self.n_patients} patients, findings={self.findings})"

    def __len__(self) -> int:
        return len(self.images)

    @property
    def n_patients(self) -> int:
        return int(self.patients.max(initial=-1)) + 1

    def part(self, name: str) -> "Cohort":
        """The images of one part, with its patients numbered anew from 0; it may be empty."""
        if name not in splits.PARTS:
            raise ValueError(f"{name!r} is not one of {', '.join(splits.PARTS)}")
        return self._take(np.flatnonzero(self.split == name))

    def fingerprint(self) -> str:
        """sha256 over findings, arrays and reports: the same data give the same, whatever the site is called."""
        digest = hashlib.sha256(json.dumps([self.findings, self.reports]).encode())
        for array in (self.images, _one_nan(self.labels), self.patients, _one_nan(self.age)):
            digest.update(f"{array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        digest.update(json.dumps([self.split.tolist(), self.sex.tolist(), self.view.tolist()]).encode())
        return digest.hexdigest()

    def _take(self, chosen: NDArray[np.int64]) -> "Cohort":
        columns = {name: getattr(self, name)[chosen] for name in ("images", "labels", "split", "sex", "age", "view")}
        return replace(self, **columns, patients=_numbered(self.patients[chosen]), reports=tuple(self.reports[i] for i in chosen))


def read(site: SiteConfig, *, findings: Sequence[str], size: int, base: Path, cache: Path | None = None) -> Cohort:
    """Reads a site's manifest and images; relative paths start from `base`, the folder of the site's file.

    Raises DataError with every problem found, and refuses a site with nothing to learn. Decoded pixels are kept in the folder `cache`.
    """
    if site.data is None:
        raise ConfigError(f"site {site.name}: has no [data], expected a manifest")
    path = manifest.resolve(site.data.manifest, base)
    rows = manifest.read(site.data, findings=findings, base=base)
    if not rows:
        raise DataError(f"site {site.name}: is empty, no row of {path}{_matching(site.data)}")
    labels = np.array([row.labels for row in rows], dtype=np.float32).reshape(len(rows), len(findings))
    patients = _numbered(np.array([row.patient for row in rows]))
    # The parts before the pixels: what is refused for its table alone is refused at once.
    split = np.array([row.split for row in rows]) if site.data.columns.split else _dealt(site.name, labels, patients, site.data.split)
    _check_learnable(site.name, findings, labels, split)
    cohort = Cohort(
        site=site.name,
        findings=tuple(findings),
        images=_images(rows, path, size, cache),
        labels=labels,
        patients=patients,
        split=split,
        sex=np.array([row.sex for row in rows]),
        age=np.array([row.age for row in rows], dtype=np.float32),
        view=np.array([row.view for row in rows]),
        reports=tuple(row.report for row in rows),
    )
    _warn_of_copies(cohort)
    log.info("site %s: %d images of %d patients", site.name, len(cohort), cohort.n_patients)
    return cohort


def resplit(cohort: Cohort, split: SplitConfig) -> Cohort:
    """The same images dealt again: another fold or seed without reading a file."""
    parts = _dealt(cohort.site, cohort.labels, cohort.patients, split)
    _check_learnable(cohort.site, cohort.findings, cohort.labels, parts)
    return replace(cohort, split=parts)


def concatenate(cohorts: Sequence[Cohort], *, site: str) -> Cohort:
    """All images as one site's, in the parts that they are in; no patient of one cohort is a patient of another."""
    first = cohorts[0]
    for other in cohorts[1:]:
        if other.findings != first.findings:
            raise DataError(f"site {other.site}: findings {other.findings} are not {first.findings} of site {first.site}")
        if other.images.shape[1:] != first.images.shape[1:]:
            raise DataError(f"site {other.site}: images {other.images.shape[1:]} are not {first.images.shape[1:]} of site {first.site}")
    starts = np.cumsum([0, *(cohort.n_patients for cohort in cohorts[:-1])])
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(cohort, name) for cohort in cohorts]) for name in ("images", "labels", "split", "sex", "age", "view")
    }
    patients = np.concatenate([cohort.patients + start for cohort, start in zip(cohorts, starts, strict=True)])
    reports = tuple(report for cohort in cohorts for report in cohort.reports)
    return Cohort(site=site, findings=first.findings, patients=patients, reports=reports, **columns)


def _numbered(patients: NDArray[Any]) -> NDArray[np.int64]:
    """Anything -> 0..P-1 in order of first appearance."""
    _, first, inverse = np.unique(patients, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def _one_nan(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isnan(values), np.float32(np.nan), values)


def _matching(data: DataConfig) -> str:
    return " matches " + " and ".join(f"{column} = {value!r}" for column, value in data.where.items()) if data.where else " is left"


def _dealt(site: str, labels: NDArray[np.float32], patients: NDArray[np.int64], split: SplitConfig) -> NDArray[np.str_]:
    try:
        return splits.deal(labels, patients, split)
    except DataError as error:
        raise DataError(f"site {site}: {error}") from error


def _check_learnable(site: str, findings: Sequence[str], labels: NDArray[np.float32], split: NDArray[np.str_]) -> None:
    """One class of one finding in train is a rare finding; of every finding it is a site that has nothing to teach."""
    if not (split == "train").any():
        raise DataError(f"site {site}: none of {len(split)} images is in train")
    train = labels[split == "train"]
    if any({0.0, 1.0} <= set(column.tolist()) for column in train.T):
        return
    labelled = ~np.isnan(train)
    classes = [f"{name} = {np.nanmax(values):g}" for name, values, known in zip(findings, train.T, labelled.T, strict=True) if known.any()]
    if not classes:
        raise DataError(f"site {site}: no training image is labelled for {', '.join(findings)}")
    raise DataError(f"site {site}: every labelled training image has {', '.join(classes)}: one class cannot be learned")


def _warn_of_copies(cohort: Cohort) -> None:
    owner: dict[bytes, int] = {}
    copies = sum(
        owner.setdefault(hashlib.sha256(image.tobytes()).digest(), int(patient)) != patient
        for image, patient in zip(cohort.images, cohort.patients, strict=True)
    )
    if copies:
        log.warning("site %s: %d images are copies of another patient's: is one patient under two names?", cohort.site, copies)


def _images(rows: Sequence[manifest.Row], path: Path, size: int, cache: Path | None) -> Pixels:
    """(N, 1, size, size) from the cache, or decoded and then cached."""
    if cache is None:
        return _decode(rows, path, size)
    file = cache / f"{_cache_key(rows, size)}.npz"
    shape = (len(rows), 1, size, size)
    images = _load(file, shape)
    if images is None:
        images = _decode(rows, path, size)
        _save(file, images)
    return images


def _decode(rows: Sequence[manifest.Row], path: Path, size: int) -> Pixels:
    images = np.empty((len(rows), 1, size, size), dtype=np.float32)

    def decode(place: int) -> manifest.Problem | None:
        row = rows[place]
        try:
            images[place] = read_image(row.image, size)
        except DataError as error:
            return manifest.Problem(row=row.number, column="", what=f"unreadable image: {str(error).removeprefix(f'{row.image}: ')}")
        return None

    # Filters are of the whole process, so they are set here, before the threads. Pillow and pydicom would quote a file's own words.
    with warnings.catch_warnings(), ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("ignore")
        problems = [problem for problem in pool.map(decode, range(len(rows))) if problem is not None]
    manifest.refuse(path, problems)
    return images


def _cache_key(rows: Sequence[manifest.Row], size: int) -> str:
    """Of the files, not of the labels: a corrected label does not decode everything again."""
    stats = [(str(row.image), stat.st_size, stat.st_mtime_ns) for row in rows for stat in [row.image.stat()]]
    return hashlib.sha256(json.dumps([_PIXELS_VERSION, size, stats]).encode()).hexdigest()[:32]


def _load(file: Path, shape: tuple[int, ...]) -> Pixels | None:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            images: Pixels = stored["images"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        log.warning("image cache %s is damaged (%s), decoding again", file.name, type(error).__name__)
        return None
    if images.shape != shape or images.dtype != np.float32:
        log.warning("image cache %s holds something else, decoding again", file.name)
        return None
    return images


def _save(file: Path, images: Pixels) -> None:
    """Written aside, then renamed; readable by the owner only. A full disk costs the cache, not the run."""
    aside: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as stream:
            aside = Path(stream.name)
            np.savez(stream, images=images)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(file)
    except OSError as error:
        log.warning("image cache not written: %s", error.strerror)
        if aside is not None:
            aside.unlink(missing_ok=True)
