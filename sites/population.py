"""Who is filmed: a hospital's patients, what is found in each, and how each film of theirs is positioned."""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator
from scipy.special import ndtri

from rainhill.config import Fraction
from rainhill.toml import Section
from sites.cases import FINDINGS, Case, Exposure, Finding, Patient, Side, random

# Findings that come together do so through one latent "how ill" value; the loading is its correlation with each.
_LOADING = {"cardiomegaly": 0.5, "effusion": 0.5, "oedema": 0.6, "consolidation": 0.25, "atelectasis": 0.3, "device": 0.4}
_REGIONS = {
    "cardiomegaly": ("cardiac",),
    "effusion": ("base",),
    "pneumothorax": ("apex",),
    "consolidation": ("upper", "middle", "lower", "lower"),
    "atelectasis": ("middle", "lower", "lower"),
    "nodule": ("upper", "upper", "middle", "lower"),
    "oedema": ("perihilar",),
    "device": ("line", "line", "tube", "pacemaker"),
}
_BILATERAL = {"cardiomegaly": 1.0, "oedema": 1.0, "effusion": 0.3, "consolidation": 0.12, "atelectasis": 0.15}
_AGE_BANDS = {"child": (0.3, 14.0), "young": (15.0, 45.0), "middle": (45.0, 70.0), "old": (70.0, 95.0)}


class PopulationConfig(Section):
    """Whom the hospital sees."""

    prevalence: dict[str, Annotated[float, Field(gt=0, lt=1)]]
    """Finding -> fraction of the films that show it; every finding is named."""
    ages: dict[Literal["child", "young", "middle", "old"], Annotated[float, Field(ge=0)]] = Field(
        default={"young": 0.3, "middle": 0.4, "old": 0.3}
    )
    """Weights of the bands 0-14, 15-44, 45-69 and 70-94 years."""
    women: Fraction = 0.48
    severity: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (2.0, 2.0)
    """Beta distribution of how marked a finding is, 0 barely visible to 1 florid."""
    habitus: float = Field(default=0.0, ge=-2, le=3)
    """Mean thickness of the patients, in standard deviations."""
    left: Fraction = 0.5
    """Share of one-sided findings that are on the patient's left."""
    follow_up: Fraction = 0.25
    """Chance that a further film of a patient was taken later, when findings may have come and gone."""

    @field_validator("prevalence")
    @classmethod
    def _names_every_finding(cls, prevalence: dict[str, float]) -> dict[str, float]:
        if set(prevalence) != set(FINDINGS):
            wrong = sorted(set(prevalence) ^ set(FINDINGS))
            raise ValueError(f"names every finding once and no other: {', '.join(wrong)}")
        return prevalence


class ProjectionConfig(Section):
    """How patient, tube and detector stand to each other."""

    ap: Fraction = 0.1
    """Share of films taken anteroposterior, at the bedside: magnified heart, high diaphragm, scapulae over the lungs."""
    zoom: float = Field(default=1.0, gt=0.4, lt=2)
    """Size of the chest on the film; 1 fills it, less shows more around it."""
    zoom_sd: float = Field(default=0.03, ge=0, lt=0.3)
    offset: tuple[float, float] = (0.0, 0.0)
    """Mean displacement of the chest on the film (right, down), in half film widths."""
    offset_sd: float = Field(default=0.025, ge=0, lt=0.5)
    rotation_sd_deg: float = Field(default=1.5, ge=0, lt=45)
    inspiration: float = Field(default=0.0, ge=-2, le=2)
    """Mean depth of inspiration, in standard deviations."""
    magnification: float = Field(default=1.13, ge=1, lt=1.5)
    """Of the heart on AP films, 1 as on PA films."""


def draw_patients(
    population: PopulationConfig,
    n: int,
    seed: int,
    *,
    projection: ProjectionConfig | None = None,
    images: tuple[int, int] = (1, 3),
    first: int = 0,
) -> list[Patient]:
    """Patients `first` to `first + n`: each is drawn from (seed, its number) alone, so more patients never change the earlier ones."""
    view = projection or ProjectionConfig()
    return [_patient(population, view, images, seed, number) for number in range(first, first + n)]


def _patient(population: PopulationConfig, projection: ProjectionConfig, images: tuple[int, int], seed: int, number: int) -> Patient:
    rng = random(seed, number)
    sex: Literal["F", "M"] = "F" if rng.random() < population.women else "M"
    age = _age(population, rng)
    findings = _findings(population, rng)
    low, high = images
    weights = 0.4 ** np.arange(high - low + 1)
    count = low + int(rng.choice(high - low + 1, p=weights / weights.sum()))
    ap = rng.random() < projection.ap
    cases = []
    for image in range(count):
        if image and rng.random() < population.follow_up:
            findings = _later(population, findings, rng)
        shown = tuple(_graded(finding, rng) for finding in findings) if image else findings
        cases.append(
            Case(
                patient=number,
                seed=(seed, number),
                sex=sex,
                age=age,
                habitus=population.habitus,
                findings=shown,
                exposure=_exposure(projection, ap=ap, seed=(seed, number, image)),
            )
        )
    return Patient(number=number, sex=sex, age=age, cases=tuple(cases))


def _age(population: PopulationConfig, rng: np.random.Generator) -> float:
    bands = [band for band in _AGE_BANDS if band in population.ages]
    weights = np.array([population.ages[band] for band in bands])
    low, high = _AGE_BANDS[bands[int(rng.choice(len(bands), p=weights / weights.sum()))]]
    return round(float(rng.uniform(low, high)), 1)


def _findings(population: PopulationConfig, rng: np.random.Generator) -> tuple[Finding, ...]:
    ill = rng.standard_normal()
    own = rng.standard_normal(len(FINDINGS))
    found = []
    for name, noise in zip(FINDINGS, own, strict=True):
        loading = _LOADING.get(name, 0.0)
        liability = loading * ill + np.sqrt(1 - loading**2) * noise
        finding = _finding(population, name, rng)
        if liability > -ndtri(population.prevalence[name]):
            found.append(finding)
    return tuple(found)


def _finding(population: PopulationConfig, name: str, rng: np.random.Generator) -> Finding:
    both, left = rng.random(2)
    side: Side = "both" if both < _BILATERAL.get(name, 0.0) else "left" if left < population.left else "right"
    region = str(rng.choice(_REGIONS[name]))
    if name == "device":
        side = "both" if region == "tube" else side
    a, b, c = rng.random(3).tolist()
    return Finding(name=name, side=side, region=region, severity=float(rng.beta(*population.severity)), place=(a, b, c))


def _later(population: PopulationConfig, findings: tuple[Finding, ...], rng: np.random.Generator) -> tuple[Finding, ...]:
    """Findings weeks later: a quarter resolve, and as many arise, so that prevalence stays what it is."""
    present = {finding.name: finding for finding in findings}
    kept = []
    for name in FINDINGS:
        chance, p = rng.random(), population.prevalence[name]
        new = _finding(population, name, rng)
        if name in present and (chance >= 0.25 or name == "cardiomegaly"):
            kept.append(present[name])
        elif name not in present and name != "cardiomegaly" and chance < 0.25 * p / (1 - p):
            kept.append(new)
    return tuple(kept)


def _graded(finding: Finding, rng: np.random.Generator) -> Finding:
    severity = float(np.clip(finding.severity + 0.05 * rng.standard_normal(), 0.0, 1.0))
    return Finding(name=finding.name, side=finding.side, region=finding.region, severity=severity, place=finding.place)


def _exposure(projection: ProjectionConfig, *, ap: Any, seed: tuple[int, int, int]) -> Exposure:
    rng = random(*seed, 3)
    z = rng.standard_normal(6)
    return Exposure(
        seed=seed,
        view="AP" if ap else "PA",
        zoom=float(projection.zoom * np.exp(projection.zoom_sd * z[0])),
        offset=(float(projection.offset[0] + projection.offset_sd * z[1]), float(projection.offset[1] + projection.offset_sd * z[2])),
        rotation_deg=float(projection.rotation_sd_deg * z[3] * (1.8 if ap else 1.0)),
        inspiration=float(projection.inspiration + 0.8 * z[4] - (0.6 if ap else 0.0)),
        oblique=float(z[5] * (1.5 if ap else 0.7)),
        magnification=projection.magnification if ap else 1.0,
    )
