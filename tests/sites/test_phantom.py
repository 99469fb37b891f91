from dataclasses import replace

import numpy as np
import pytest

from sites.phantom import FINDINGS, draw_patients, labels, render
from sites.population import PopulationConfig, ProjectionConfig

NOTHING = dict.fromkeys(FINDINGS, 1e-9)


@pytest.fixture(scope="module")
def cases():
    population = PopulationConfig(prevalence=dict.fromkeys(FINDINGS, 0.3), ages={"child": 1, "young": 1, "old": 1})
    patients = draw_patients(population, 24, 7, projection=ProjectionConfig(ap=0.4))
    return [case for patient in patients for case in patient.cases]


@pytest.fixture(scope="module")
def rendered(cases):
    return render(cases)


def test_same_seed_gives_the_same_bytes(cases, rendered):
    again = render(cases)
    assert again.attenuation.tobytes() == rendered.attenuation.tobytes()
    assert again.masks.tobytes() == rendered.masks.tobytes()


def test_another_seed_gives_other_patients():
    population = PopulationConfig(prevalence=dict.fromkeys(FINDINGS, 0.3))
    one, other = (draw_patients(population, 1, seed)[0].cases[:1] for seed in (1, 2))
    assert not np.array_equal(render(one, 64).attenuation, render(other, 64).attenuation)


def test_the_number_of_threads_changes_nothing(cases, rendered):
    threaded = render(cases, threads=3)
    assert threaded.attenuation.tobytes() == rendered.attenuation.tobytes()
    assert np.array_equal(threaded.boxes, rendered.boxes)


def test_more_patients_leave_the_earlier_ones_alone():
    population = PopulationConfig(prevalence=dict.fromkeys(FINDINGS, 0.3))
    assert draw_patients(population, 5, 3) == draw_patients(population, 9, 3)[:5]
    assert draw_patients(population, 3, 3, first=2) == draw_patients(population, 5, 3)[2:]


def test_a_patient_keeps_the_anatomy_and_changes_the_pose():
    population = PopulationConfig(prevalence=NOTHING)
    one, two = draw_patients(population, 1, 5, images=(2, 2))[0].cases
    other = draw_patients(population, 2, 5, images=(2, 2))[1].cases[0]
    own, same, different = render([one, replace(two, exposure=one.exposure), replace(other, exposure=one.exposure)]).attenuation
    moved = render([two]).attenuation[0]
    assert np.array_equal(own, same)
    assert not np.array_equal(own, moved)
    assert np.abs(own - different).mean() > np.abs(own - same).mean()


def test_films_are_finite_with_a_dark_lung_and_a_dense_middle(rendered):
    films = rendered.attenuation
    assert films.dtype == np.float32
    assert np.isfinite(films).all()
    assert films.min() >= 0
    assert (films[:, 80:120, 88:104].mean(axis=(1, 2)) > films[:, 60:100, 45:60].mean(axis=(1, 2))).all()


def test_a_box_bounds_its_mask_and_an_absent_finding_has_neither(cases, rendered):
    for case, masks, boxes in zip(cases, rendered.masks, rendered.boxes, strict=True):
        for present, mask, (left, top, right, bottom) in zip(labels(case), masks, boxes, strict=True):
            if not present or not mask.any():
                assert not mask.any()
                assert (left, top, right, bottom) == (0, 0, 0, 0)
                continue
            rows, columns = np.nonzero(mask)
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)


@pytest.mark.parametrize("view", ["PA", "AP"])
@pytest.mark.parametrize("name", FINDINGS)
def test_a_finding_changes_the_film_inside_its_mask_more_than_outside(name, view):
    population = PopulationConfig(prevalence=NOTHING | {name: 1 - 1e-9})
    projection = ProjectionConfig(ap=float(view == "AP"))
    drawn = [patient.cases[0] for patient in draw_patients(population, 4, 11, projection=projection, images=(1, 1))]
    ill = [replace(case, findings=tuple(replace(finding, severity=0.8) for finding in case.findings)) for case in drawn]
    well = [replace(case, findings=()) for case in ill]
    with_it, without = render(ill), render(well)
    mask = with_it.masks[:, FINDINGS.index(name)]
    changed = np.abs(with_it.attenuation - without.attenuation)
    assert mask.any(axis=(1, 2)).all()
    assert mask.mean() < 0.5
    assert changed[mask].mean() > 3 * changed[~mask].mean()


def test_a_one_sided_effusion_is_on_its_own_side():
    population = PopulationConfig(prevalence=NOTHING | {"effusion": 1 - 1e-9}, left=1.0)
    patients = draw_patients(population, 12, 2, images=(1, 1))
    cases = [p.cases[0] for p in patients if p.cases[0].findings[0].side == "left"]
    masks = render(cases).masks[:, FINDINGS.index("effusion")]
    assert masks[:, :, 110:].sum() > 20 * masks[:, :, :82].sum()


def test_prevalence_converges_to_what_the_population_says():
    prevalence = dict(zip(FINDINGS, (0.1, 0.2, 0.06, 0.4, 0.3, 0.15, 0.5, 0.6), strict=True))
    patients = draw_patients(PopulationConfig(prevalence=prevalence), 1500, 4)
    found = np.mean([labels(case) for patient in patients for case in patient.cases], axis=0)
    assert np.abs(found - list(prevalence.values())).max() < 0.045


def test_an_anteroposterior_film_shows_a_larger_heart():
    population = PopulationConfig(prevalence=NOTHING | {"cardiomegaly": 1 - 1e-9})
    areas = []
    for ap in (0.0, 1.0):
        cases = [p.cases[0] for p in draw_patients(population, 8, 9, projection=ProjectionConfig(ap=ap), images=(1, 1))]
        areas.append(render(cases).masks[:, FINDINGS.index("cardiomegaly")].mean())
    assert areas[1] > 1.1 * areas[0]
