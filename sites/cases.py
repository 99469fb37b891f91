"""The nouns of a phantom: a patient, a film of theirs, how it was positioned and what is found on it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

FINDINGS = ("cardiomegaly", "effusion", "pneumothorax", "consolidation", "atelectasis", "nodule", "oedema", "device")

Side = Literal["left", "right", "both"]
View = Literal["PA", "AP"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    name: str
    side: Side
    region: str
    severity: float
    place: tuple[float, float, float]
    """Where within the region and of what form, each in [0, 1)."""


@dataclass(frozen=True, kw_only=True)
class Exposure:
    seed: tuple[int, int, int]
    """Hospital, patient and image: everything random about this film is drawn from it."""
    view: View
    zoom: float
    offset: tuple[float, float]
    rotation_deg: float
    inspiration: float
    oblique: float
    magnification: float


@dataclass(frozen=True, kw_only=True)
class Case:
    """One film of one patient."""

    patient: int
    seed: tuple[int, int]
    """Hospital and patient: the anatomy is drawn from it."""
    sex: Literal["F", "M"]
    age: float
    habitus: float
    findings: tuple[Finding, ...]
    exposure: Exposure


@dataclass(frozen=True, kw_only=True)
class Patient:
    number: int
    sex: Literal["F", "M"]
    age: float
    cases: tuple[Case, ...]


def random(*key: int) -> np.random.Generator:
    """A generator for this key alone, the same on every machine and in every thread."""
    # The length goes first, because a seed sequence takes (1, 2) and (1, 2, 0) for the same.
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((len(key), *key))))
