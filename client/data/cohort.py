"""The de-identified local data set with patients as the unit: pixels, labels and what is known of a patient, without identifiers."""

import hashlib
import hmac
import json
import logging
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.data import manifest, splits, store
from client.data.rows import CHUNK, Rows
from client.data.store import Entry, Write
from rainhill.config import DataConfig, SiteConfig, SplitConfig
from rainhill.errors import ConfigError, DataError

log = logging.getLogger(__name__)

Images = Rows[np.float32]
_TEXTS = ("reports", "indications", "priors")
PIXELS_VERSION = 1  # goes up when pixels.py gives other values, so that no cache outlives them


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Cohort:
    """One site's images, N of P patients. Findings are in the order of the recipe."""

    site: str
    findings: tuple[str, ...]
    images: Images
    """(N, 1, H, W) float32 in [-1, 1], bone bright; read from disk as they are indexed, where the cohort has a cache."""
    labels: NDArray[np.float32]
    """(N, F) 0, 1 or NaN, which is: not labelled."""
    patients: NDArray[np.int64]
    """(N,) 0..P-1: places in this cohort, not identifiers."""
    pseudonym: NDArray[np.str_]
    """(N,) of the image's patient: the same in every data set of the site, and no way back to the identifier without the site's key."""
    split: NDArray[np.str_]
    """(N,) "train", "val" or "test"; a patient's images are all in the same."""
    sex: NDArray[np.str_]
    """(N,) "M", "F", "O", or "" where unknown: (0010,0040)."""
    age: NDArray[np.float32]
    """(N,) years, NaN where unknown."""
    view: NDArray[np.str_]
    """(N,) "AP", "PA" and so on, "" where unknown: (0018,5101)."""
    reports: tuple[str, ...]
    indications: tuple[str, ...]
    """N, why each examination was asked for, "" where it is not said."""
    priors: tuple[str, ...]
    """N, the report of the patient's previous examination, "" where there is none or it is not at hand."""

    def __post_init__(self) -> None:
        n = len(self.images)
        shapes = {
            "labels": (n, len(self.findings)),
            **dict.fromkeys((*_TEXTS, "patients", "pseudonym", "split", "sex", "age", "view"), (n,)),
        }
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

    @property
    def pseudonyms(self) -> tuple[str, ...]:
        """(P,) of the patients, in the order of their numbers."""
        _, first = np.unique(self.patients, return_index=True)
        return tuple(self.pseudonym[first].tolist())

    def part(self, name: str) -> "Cohort":
        """The images of one part, with its patients numbered anew from 0; it may be empty."""
        if name not in splits.PARTS:
            raise ValueError(f"{name!r} is not one of {', '.join(splits.PARTS)}")
        return self._take(np.flatnonzero(self.split == name))

    def only(self, chosen: NDArray[np.bool_]) -> "Cohort":
        """The images where (N,) `chosen` is true, with their patients numbered anew from 0."""
        return self if chosen.all() else self._take(np.flatnonzero(chosen))

    def fingerprint(self) -> str:
        """sha256 over findings, arrays and texts: the same data give the same, whatever the site is called."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps([self.findings, self.reports]).encode())
        if any(self.indications) or any(self.priors):
            # Not of empty ones: a data set that never had them stays the one that its ledger knows.
            digest.update(json.dumps([self.indications, self.priors]).encode())
        self.images.feed(digest)
        for array in (_one_nan(self.labels), self.patients, _one_nan(self.age)):
            Rows[Any](array).feed(digest)
        digest.update(json.dumps([self.split.tolist(), self.sex.tolist(), self.view.tolist()]).encode())
        return digest.hexdigest()

    def _take(self, chosen: NDArray[np.int64]) -> "Cohort":
        columns = {name: getattr(self, name)[chosen] for name in ("labels", "pseudonym", "split", "sex", "age", "view")}
        texts: dict[str, Any] = {name: tuple(getattr(self, name)[i] for i in chosen) for name in _TEXTS}
        return replace(self, **columns, **texts, images=self.images.only(chosen), patients=_numbered(self.patients[chosen]))


def read(site: SiteConfig, *, findings: Sequence[str], size: int, base: Path, cache: Path | None = None, key: bytes = b"") -> Cohort:
    """Reads a site's manifest and images; relative paths start from `base`, the folder of the site's file.

    Raises DataError with every problem found, and refuses a site with nothing to learn. Decoded pixels are kept in the folder `cache`, and
    read from there when they are needed, so that a cohort may be larger than memory; `store.wipe` removes them. `key` is the site's own,
    for pseudonyms: without one, whoever knows an identifier can look its pseudonym up.
    """
    table = _table(site, findings, base, key)
    rows, labels = table.rows, table.labels
    cohort = Cohort(
        site=site.name,
        findings=tuple(findings),
        images=_images(rows, table.path, size, cache),
        labels=labels,
        patients=table.patients,
        pseudonym=table.pseudonym,
        split=table.split,
        sex=np.array([row.sex for row in rows]),
        age=np.array([row.age for row in rows], dtype=np.float32),
        view=np.array([row.view for row in rows]),
        reports=tuple(row.report for row in rows),
        indications=tuple(row.indication for row in rows),
        priors=tuple(row.prior for row in rows),
    )
    _warn_of_copies(cohort)
    for file in cohort.images.files:
        store.mark(file, cohort.fingerprint())
    log.info("site %s: %d images of %d patients", site.name, len(cohort), cohort.n_patients)
    return cohort


def training_patients(site: SiteConfig, *, findings: Sequence[str], base: Path, key: bytes = b"") -> tuple[str, ...]:
    """Pseudonyms of those whom `read` would train on, told without a look at an image. Raises DataError as `read` does."""
    table = _table(site, findings, base, key)
    return tuple(dict.fromkeys(table.pseudonym[table.split == "train"].tolist()))


def resplit(cohort: Cohort, split: SplitConfig) -> Cohort:
    """The same images dealt again: another fold or seed without reading a file."""
    parts = _dealt(cohort.site, cohort.labels, cohort.patients, cohort.pseudonym, split)
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
        name: np.concatenate([getattr(cohort, name) for cohort in cohorts])
        for name in ("labels", "pseudonym", "split", "sex", "age", "view")
    }
    images = Rows.join([cohort.images for cohort in cohorts])
    patients = np.concatenate([cohort.patients + start for cohort, start in zip(cohorts, starts, strict=True)])
    texts: dict[str, Any] = {name: tuple(text for cohort in cohorts for text in getattr(cohort, name)) for name in _TEXTS}
    return Cohort(site=site, findings=first.findings, images=images, patients=patients, **texts, **columns)


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A site's manifest, dealt into parts; of its N images no pixel, so that what is refused for its table alone is refused at once."""

    rows: Sequence[manifest.Row]
    path: Path
    labels: NDArray[np.float32]
    """(N, F)"""
    patients: NDArray[np.int64]
    pseudonym: NDArray[np.str_]
    split: NDArray[np.str_]


def _table(site: SiteConfig, findings: Sequence[str], base: Path, key: bytes) -> _Table:
    if site.data is None:
        raise ConfigError(f"site {site.name}: has no [data], expected a manifest")
    path = manifest.resolve(site.data.manifest, base)
    rows = manifest.read(site.data, findings=findings, base=base)
    if not rows:
        raise DataError(f"site {site.name}: is empty, no row of {path}{_matching(site.data)}")
    labels = np.array([row.labels for row in rows], dtype=np.float32).reshape(len(rows), len(findings))
    patients = _numbered(np.array([row.patient for row in rows]))
    pseudonym = np.array([_pseudonym(row.patient, key) for row in rows])
    given = bool(site.data.columns.split)
    split = np.array([row.split for row in rows]) if given else _dealt(site.name, labels, patients, pseudonym, site.data.split)
    _check_learnable(site.name, findings, labels, split)
    return _Table(rows=rows, path=path, labels=labels, patients=patients, pseudonym=pseudonym, split=split)


def _pseudonym(patient: str, key: bytes) -> str:
    """128 bits of HMAC-SHA-256 (RFC 2104), in hexadecimal."""
    return hmac.new(key, patient.encode(), hashlib.sha256).hexdigest()[:32]


def _numbered(patients: NDArray[Any]) -> NDArray[np.int64]:
    """Anything -> 0..P-1 in order of first appearance."""
    _, first, inverse = np.unique(patients, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def _one_nan(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isnan(values), np.float32(np.nan), values)


def _matching(data: DataConfig) -> str:
    return " matches " + " and ".join(f"{column} = {value!r}" for column, value in data.where.items()) if data.where else " is left"


def _dealt(
    site: str, labels: NDArray[np.float32], patients: NDArray[np.int64], pseudonym: NDArray[np.str_], split: SplitConfig
) -> NDArray[np.str_]:
    try:
        return splits.deal(labels, patients, pseudonym, split)
    except DataError as error:
        raise DataError(f"site {site}: {error}") from error


def _check_learnable(site: str, findings: Sequence[str], labels: NDArray[np.float32], split: NDArray[np.str_]) -> None:
    """One class of one finding in train is a rare finding; of every finding it is a site that has nothing to teach.

    A task that reads no label has others to learn from.
    """
    if not (split == "train").any():
        raise DataError(f"site {site}: none of {len(split)} images is in train")
    if not findings:
        return
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


def _images(rows: Sequence[manifest.Row], path: Path, size: int, cache: Path | None) -> Images:
    """(N, 1, size, size) from the cache, or decoded into it; in memory where there is none or it takes nothing."""
    shape, dtype = (len(rows), 1, size, size), np.dtype(np.float32)
    if cache is not None:
        made_from = {"version": PIXELS_VERSION, "size": size, "files": _files(rows)}
        entry = Entry(folder=cache, made_from=made_from, shape=shape, dtype=dtype, what="image cache", redone="decoding")
        stored = store.load(entry)
        if stored is None:
            stored = store.save(entry, lambda write: _decode(rows, path, size, write))
        if stored is not None:
            return Rows(stored)
    images = np.empty(shape, dtype)

    def write(place: int, decoded: NDArray[Any]) -> None:
        images[place : place + len(decoded)] = decoded

    _decode(rows, path, size, write)
    return Rows(images)


def _decode(rows: Sequence[manifest.Row], path: Path, size: int, write: Write) -> None:
    # With it come pydicom and Pillow, which commands that look at no film do not wait for.
    from client.data.pixels import read_image

    def decode(start: int) -> list[manifest.Problem]:
        problems = []
        for place, row in enumerate(rows[start : start + CHUNK], start):
            try:
                image = read_image(row.image, size)
            except DataError as error:
                what = f"unreadable image: {str(error).removeprefix(f'{row.image}: ')}"
                problems.append(manifest.Problem(row=row.number, column="", what=what))
            else:
                write(place, image[None])
        return problems

    # Filters are of the whole process, so they are set here, before the threads. Pillow and pydicom would quote a file's own words.
    with warnings.catch_warnings(), ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("ignore")
        problems = [problem for some in pool.map(decode, range(0, len(rows), CHUNK)) for problem in some]
    manifest.refuse(path, problems)


def _files(rows: Sequence[manifest.Row]) -> str:
    """sha256 of the files' names, sizes and times, not of the labels: a corrected label does not decode everything again."""
    stats = [(str(row.image), stat.st_size, stat.st_mtime_ns) for row in rows for stat in [row.image.stat()]]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()
