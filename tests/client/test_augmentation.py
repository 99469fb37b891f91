"""Random views of training images."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client.training.augmentation import draw_views
from client.training.features import compute, compute_views
from client.workbench import Bench
from rainhill.recipe import AugmentationSection
from sites.bench import SiteData

STILL = {"rotation_deg": 0.0, "shift": 0.0, "zoom": 0.0, "gamma": 0.0, "contrast": 0.0, "brightness": 0.0}
SIDE = 64


def section(**limits: float) -> AugmentationSection:
    return AugmentationSection(views=1, **{**STILL, **limits})


def disc(row: float, column: float, radius: float, n: int = 200) -> torch.Tensor:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    image = np.where((rows - row) ** 2 + (columns - column) ** 2 <= radius**2, 1.0, -1.0).astype(np.float32)
    return torch.from_numpy(np.repeat(image[None, None], n, axis=0))


def centres(images: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and area of what is bright."""
    bright = (images[:, 0].numpy() + 1) / 2
    rows, columns = np.mgrid[:SIDE, :SIDE]
    area = bright.sum(axis=(1, 2))
    return (bright * rows).sum(axis=(1, 2)) / area, (bright * columns).sum(axis=(1, 2)) / area, area


def test_limits_of_zero_change_nothing() -> None:
    images = disc(20, 40, 9, n=3)
    torch.testing.assert_close(draw_views(images, section(), np.random.default_rng(0)), images, atol=1e-4, rtol=0)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.floats(0, 45), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 1), st.floats(0, 0.9), st.floats(0, 0.5))
def test_a_view_keeps_shape_and_range(
    seed: int, rotation_deg: float, shift: float, zoom: float, gamma: float, contrast: float, brightness: float
) -> None:
    limits = AugmentationSection(
        views=1, rotation_deg=rotation_deg, shift=shift, zoom=zoom, gamma=gamma, contrast=contrast, brightness=brightness
    )
    images = torch.rand((4, 1, 16, 16), generator=torch.Generator().manual_seed(seed % 2**31)) * 2 - 1
    views = draw_views(images, limits, np.random.default_rng(seed))
    assert views.shape == images.shape
    assert torch.isfinite(views).all()
    assert views.abs().max() <= 1


def test_a_shift_moves_up_to_its_share_of_the_side_both_ways() -> None:
    row, column, _ = centres(draw_views(disc(31.5, 31.5, 8), section(shift=0.1), np.random.default_rng(1)))
    for moved in (row - 31.5, column - 31.5):
        assert np.abs(moved).max() <= 0.1 * SIDE + 0.05
        assert moved.min() < -0.08 * SIDE
        assert moved.max() > 0.08 * SIDE


def test_a_rotation_turns_about_the_middle_by_up_to_its_degrees() -> None:
    row, column, _ = centres(draw_views(disc(31.5, 51.5, 6), section(rotation_deg=10), np.random.default_rng(2)))
    turned = np.rad2deg(np.arctan2(row - 31.5, column - 31.5))
    assert 9 < turned.max() <= 10.2
    assert -9 > turned.min() >= -10.2
    np.testing.assert_allclose(np.hypot(row - 31.5, column - 31.5), 20, atol=0.3)


def test_a_zoom_changes_the_area_by_its_square() -> None:
    _, _, area = centres(draw_views(disc(31.5, 31.5, 12), section(zoom=0.2), np.random.default_rng(3)))
    ratio = area / (np.pi * 12**2)
    assert 0.62 < ratio.min() < 0.7
    assert 1.36 < ratio.max() < 1.46


def test_exposure_changes_grey_and_not_place() -> None:
    images = torch.zeros((200, 1, 8, 8))
    grey = draw_views(images, section(brightness=0.15), np.random.default_rng(4))
    assert (grey.std(dim=(1, 2, 3)) < 1e-6).all()
    assert -0.3 <= grey.min() < -0.27
    assert 0.27 < grey.max() <= 0.3 + 1e-6


def test_views_are_further_images_of_the_same_patients(bench: Bench, site: SiteData) -> None:
    films = site.cohort.part("train")
    plain = compute(bench.net, films, bench.task)
    section_ = AugmentationSection(views=3)
    more = compute_views(bench.net, films, bench.task, section_, seed=(5,))
    assert more.count == plain.count
    assert len(more.hidden) == 4 * len(films)
    torch.testing.assert_close(more.hidden[: len(films)], plain.hidden)
    assert not torch.equal(more.hidden[len(films) : 2 * len(films)], more.hidden[2 * len(films) : 3 * len(films)])
    for few, many in zip(plain.images_of, more.images_of, strict=True):
        assert set(many % len(films)) == set(few)
        assert torch.equal(more.targets[many], plain.targets[many % len(films)])
    again = compute_views(bench.net, films, bench.task, section_, seed=(5,))
    assert torch.equal(again.hidden, more.hidden)
    other = compute_views(bench.net, films, bench.task, section_, seed=(6,))
    assert not torch.equal(other.hidden, more.hidden)
