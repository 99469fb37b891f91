"""An image that is not like a site's own is flagged, by distances that no scale of a feature changes, and the site's own seldom are."""

import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf

from client.drafting.strangeness import Familiar, features_of, looks, pooled
from client.models.vlm import Vlm
from rainhill.errors import BaseModelError, CredentialError, DataError
from rainhill.toml import read_toml
from sites.films import draw_films
from sites.hospital import HospitalConfig, draw
from tests.client.vlm_families import save

HOME = Path(__file__).parents[3] / "sites/reporting/source/liverpool.toml"
Array = NDArray[np.float64]


def _some(seed: int, count: int = 200, width: int = 6) -> Array:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ np.random.default_rng(9).normal(size=(width, width)) + 3


@pytest.fixture(scope="module")
def films() -> torch.Tensor:
    config = read_toml(HOME, HospitalConfig).phantom
    assert config is not None
    patients, _ = draw(config.model_copy(update={"patients": 60, "size": 96}), seed=4)
    return draw_films(config.model_copy(update={"size": 96}), [one.cases[0] for one in patients], threads=1).batch(slice(None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("llava", tmp_path_factory.mktemp("llava"))


def test_the_distance_is_mahalanobis_with_a_shrunk_covariance() -> None:
    train, further = _some(0), _some(1)
    spread = train.std(axis=0)
    inverse = np.linalg.inv(LedoitWolf().fit((train - train.mean(axis=0)) / spread).covariance_)
    expected = [mahalanobis(row / spread, train.mean(axis=0) / spread, inverse) for row in further]
    np.testing.assert_allclose(Familiar.of(train, _some(2), cohort="c").distances(further), expected)


@given(st.lists(st.floats(0.01, 100), min_size=6, max_size=6), st.lists(st.floats(-100, 100), min_size=6, max_size=6))
@settings(max_examples=30, deadline=None)
def test_no_unit_and_no_zero_of_a_feature_changes_a_distance(scale: list[float], shift: list[float]) -> None:
    def moved(values: Array) -> Array:
        return values * scale + shift

    plain = Familiar.of(_some(0), _some(1), cohort="c")
    other = Familiar.of(moved(_some(0)), moved(_some(1)), cohort="c")
    np.testing.assert_allclose(other.distances(moved(_some(2))), plain.distances(_some(2)), rtol=1e-6)
    assert other.threshold == pytest.approx(plain.threshold)


def test_with_many_images_no_linear_map_of_the_features_matters() -> None:
    rng = np.random.default_rng(3)
    train, validation, further = rng.normal(size=(50_000, 6)), rng.normal(size=(100, 6)), rng.normal(size=(50, 6))
    mix = np.eye(6) + 0.2 * rng.normal(size=(6, 6))
    plain = Familiar.of(train, validation, cohort="c").distances(further)
    mixed = Familiar.of(train @ mix + 1, validation @ mix + 1, cohort="c").distances(further @ mix + 1)
    np.testing.assert_allclose(mixed, plain, rtol=0.02)


def test_of_further_images_of_the_site_no_more_are_flagged_than_promised() -> None:
    flagged = []
    for seed in range(60):
        familiar = Familiar.of(_some(3 * seed + 100), _some(3 * seed + 101, 40), cohort="c", most_flagged=0.1)
        flagged.append((familiar.distances(_some(3 * seed + 102)) > familiar.threshold).mean())
    assert np.mean(flagged) < 0.1 + 3 * np.std(flagged) / np.sqrt(len(flagged))
    assert np.mean(flagged) > 0.05


def test_a_feature_that_never_varies_does_not_break_it_and_counts_once_it_does() -> None:
    train, validation = _some(0), _some(1)
    train[:, 2] = validation[:, 2] = 1.0
    familiar = Familiar.of(train, validation, cohort="c")
    further = _some(2)
    further[:, 2] = 1.0
    assert np.mean([one.strange for one in familiar.judge(further)]) < 0.2
    further[:, 2] = 1.5
    assert all(one.strange for one in familiar.judge(further))


def test_inverted_turned_noisy_and_foreign_films_are_flagged(films: torch.Tensor, folder: Path) -> None:
    net = Vlm().load(folder, outputs={}, last_blocks=None).eval()
    own = features_of(net, films)
    familiar = Familiar.of(own[:30], own[30:50], cohort="c")
    test = films[50:]
    noise = torch.randn(test.shape, generator=torch.Generator().manual_seed(0))
    foreign = (-test, test.rot90(1, (2, 3)), (test + 0.3 * noise).clamp(-1, 1), noise.clamp(-1, 1), torch.zeros(1, 1, 128, 128))
    known = familiar.distances(own[50:])
    for images in foreign:
        assert np.median(familiar.distances(features_of(net, images))) > np.median(known)
    assert all(one.strange for images in foreign[2:] for one in familiar.judge(features_of(net, images)))


def test_features_do_not_depend_on_the_batch(films: torch.Tensor, folder: Path) -> None:
    net = Vlm().load(folder, outputs={}, last_blocks=None).eval()
    many = torch.cat([films, films[:10]])
    np.testing.assert_allclose(features_of(net, many)[65:70], features_of(net, films[5:10]), rtol=1e-4, atol=1e-5)


def test_a_network_without_frozen_features_is_refused(folder: Path) -> None:
    net = Vlm(scope="language+projector+vision").load(folder, outputs={}, last_blocks=None).eval()
    with pytest.raises(BaseModelError, match="leaves no frozen features"):
        pooled(net, torch.zeros(1, 1, 32, 32))


def test_how_a_film_looks_by_hand() -> None:
    flat = looks(np.zeros((1, 1, 16, 16)))
    np.testing.assert_allclose(flat[0], [0] * 9 + [np.log(1e-3)] * 4, rtol=1e-6)


def test_what_is_saved_is_its_owners_alone_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "familiar.safetensors"
    familiar = Familiar.of(_some(0), _some(1), cohort="c")
    familiar.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Familiar.load(path, cohort="c")
    np.testing.assert_array_equal(again.distances(_some(2)), familiar.distances(_some(2)))
    assert (again.threshold, again.most_flagged) == (familiar.threshold, familiar.most_flagged)
    path.chmod(0o644)
    with pytest.raises(CredentialError, match="mode 644"):
        Familiar.load(path, cohort="c")


def test_a_file_of_another_cohort_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "familiar.safetensors"
    Familiar.of(_some(0), _some(1), cohort="ours").save(path)
    with pytest.raises(DataError, match="cohort ours, not of 1 and theirs"):
        Familiar.load(path, cohort="theirs")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="fit it anew"):
        Familiar.load(path, cohort="ours")


@pytest.mark.parametrize(
    ("train", "validation", "flagged"),
    [
        (_some(0, 1), _some(1), 0.05),
        (_some(0), _some(1, width=5), 0.05),
        (_some(0), _some(1) * np.nan, 0.05),
        (_some(0), _some(1, 18), 0.05),
        (_some(0), _some(1), 1.0),
    ],
)
def test_what_does_not_fit_is_refused(train: Array, validation: Array, flagged: float) -> None:
    with pytest.raises(DataError):
        Familiar.of(train, validation, cohort="c", most_flagged=flagged)
