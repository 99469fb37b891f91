"""What an importer makes of a data set: patients, each with their studies, each with its films."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from client.data.manifest import OLDEST

FRONTAL = ("PA", "AP", "FRONTAL")
"""FRONTAL is of a set that does not say from which side. DICOM's View Position, (0018,5101)."""
OWN_PATIENT = (
    "the set does not say which images are of one person: each counts as a patient of its own, "
    "so that one person may be in train and in test, and the test is worth less than it seems"
)
_AGE = re.compile(r"(\d+(?:\.\d+)?)([DWMY]?)")
_IN_A_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0, "": 1.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    image: str
    """Path from the set's folder, with slashes."""
    view: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """Films that share one report and one set of labels."""

    patient: str = field(repr=False)
    pictures: tuple[Picture, ...] = field(repr=False)
    labels: tuple[str, ...] = field(default=(), repr=False)
    """In the order of the source's findings: "1", "0", "-1" (uncertain) or "" (not labelled)."""
    when: tuple[float, ...] = ()
    """Sorts a patient's studies; empty where the set has no dates."""
    split: str = ""
    sex: str = field(default="", repr=False)
    age: str = field(default="", repr=False)
    report: str = field(default="", repr=False)
    indication: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Source:
    findings: tuple[str, ...]
    patients: Iterable[Sequence[Study]] = field(repr=False)
    """All studies of a patient at once, each patient once."""
    parts: frozenset[str] = frozenset()
    """Of train, val and test those that the set has."""
    tells_views: bool = True
    notes: tuple[str, ...] = ()
    """What a person should know of this import."""


def by_patient(studies: Iterable[Study]) -> list[list[Study]]:
    """In the order in which the patients first come."""
    found: dict[str, list[Study]] = {}
    for study in studies:
        found.setdefault(study.patient, []).append(study)
    return list(found.values())


def priors(studies: Sequence[Study]) -> list[str]:
    """Of each of a patient's studies the latest report before it. Studies of one time are not before one another."""
    found = [""] * len(studies)
    dated = sorted((place for place, study in enumerate(studies) if study.when), key=lambda place: studies[place].when)
    latest = ""
    for _, places in groupby(dated, key=lambda place: studies[place].when):
        together = list(places)
        for place in together:
            found[place] = latest
        latest = next((studies[place].report for place in reversed(together) if studies[place].report), latest)
    return found


def plain_sex(text: str) -> str:
    """ "M", "F", "O", or "" for what says nothing."""
    return text.strip()[:1].upper() if text.strip()[:1].upper() in {"M", "F", "O"} else ""


def plain_age(text: str) -> str | None:
    """Years, from a number or an age string of DICOM; "" for none, None for what is no person's age."""
    if text.strip().lower() in {"", "nan", "none"}:
        return ""
    found = _AGE.fullmatch(text.strip().upper())
    years = float(found[1]) / _IN_A_YEAR[found[2]] if found else -1.0
    return f"{years:.4g}" if 0 <= years <= OLDEST else None
