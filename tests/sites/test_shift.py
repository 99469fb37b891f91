import numpy as np
import pytest

from sites.phantom import FINDINGS, draw_patients, render
from sites.population import PopulationConfig, ProjectionConfig
from sites.shift import ShiftConfig, apply, respond

PLAIN = ShiftConfig(marker="none", scatter=0.0, dose=1e9, blur_px=0.0)


@pytest.fixture(scope="module")
def films():
    population = PopulationConfig(prevalence=dict.fromkeys(FINDINGS, 0.2))
    cases = [p.cases[0] for p in draw_patients(population, 6, 3, projection=ProjectionConfig(ap=0.5), images=(1, 1))]
    return render(cases).attenuation, [case.exposure for case in cases]


def shot(films, **changes):
    return apply(films[0], PLAIN.model_copy(update=changes), films[1]).astype(float)


def fine(stored, above=0.25):
    """Power above a fraction of the sampling rate."""
    taper = np.outer(np.hanning(192), np.hanning(192))
    power = np.abs(np.fft.fft2((stored - stored.mean(axis=(1, 2), keepdims=True)) * taper)) ** 2
    frequency = np.hypot(np.fft.fftfreq(192)[:, None], np.fft.fftfreq(192)[None])
    return power[:, frequency > above].mean()


def test_stored_values_are_twelve_bits_and_repeat(films):
    stored = apply(films[0], ShiftConfig(), films[1])
    assert stored.dtype == np.uint16
    assert stored.max() <= 4095
    assert np.array_equal(stored, apply(films[0], ShiftConfig(), films[1]))
    assert np.array_equal(stored[2:], apply(films[0][2:], ShiftConfig(), films[1][2:]))


def test_blur_takes_away_fine_detail(films):
    assert fine(shot(films, blur_px=1.2)) < 0.5 * fine(shot(films))


def test_less_dose_is_more_noise(films):
    assert fine(shot(films, dose=5000.0)) > fine(shot(films, dose=50000.0)) > fine(shot(films))


def test_edge_enhancement_and_detail_add_contrast_to_the_fine(films):
    assert fine(shot(films, edge=1.0)) > fine(shot(films))
    assert fine(shot(films, detail=1.0), above=0.06) > fine(shot(films), above=0.06)


def test_equalising_narrows_the_broad_differences(films):
    plain, equal = shot(films), shot(films, equalise=0.7)
    lung, middle = np.s_[:, 60:100, 45:60], np.s_[:, 80:120, 88:104]
    assert (equal[middle].mean() - equal[lung].mean()) < (plain[middle].mean() - plain[lung].mean())


def test_scatter_flattens_what_is_dense(films):
    dense = (films[0] > 3.2)[:, 1:]
    contrast = [np.abs(np.diff(shot(films, scatter=share), axis=1))[dense].mean() for share in (0.0, 0.5)]
    assert contrast[1] < 0.8 * contrast[0]


@pytest.mark.parametrize("response", ["log", "gamma", "film"])
def test_a_response_never_falls_and_keeps_its_ends(response):
    ramp = np.linspace(0, 1.1, 500, dtype=np.float32)
    curve = respond(ramp, ShiftConfig(response=response, gamma=1.7))
    assert (np.diff(curve) >= 0).all()
    assert curve[0] == pytest.approx(0, abs=1e-6)
    assert curve[-1] == pytest.approx(1, abs=1e-6)


def test_a_higher_gamma_is_darker(films):
    assert shot(films, response="gamma", gamma=1.6).mean() < shot(films, response="gamma", gamma=1.0).mean()


def test_a_window_saturates_both_ends(films):
    stored = shot(films, window=(10.0, 90.0))
    assert (stored == 0).mean() == pytest.approx(0.1, abs=0.03)
    assert (stored == 4095).mean() == pytest.approx(0.1, abs=0.03)


def test_monochrome1_stores_the_inverse(films):
    assert np.array_equal(shot(films, photometric="MONOCHROME1"), 4095 - shot(films))


def test_collimation_shuts_the_border_only(films):
    open_, shut = shot(films), shot(films, collimation=0.1)
    centre = np.s_[:, 60:130, 60:130]
    assert np.array_equal(open_[centre], shut[centre])
    assert (shut == 0).mean() > (open_ == 0).mean() + 0.1


@pytest.mark.parametrize("marker", ["letter", "view", "plate"])
def test_a_marker_writes_on_the_margin_and_not_on_the_chest(films, marker):
    changed = (shot(films, marker=marker) != shot(films)).any(axis=0)
    assert changed.any()
    assert not changed[60:170, 40:150].any()
