"""Occlusion points at what a score looks at, and at nothing where it looks at nothing; what comes of it says that it is indicative."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.drafting.regions import NOTE, Score, occluded, overlap, score_of_finding, score_of_sentence
from client.models import Writer
from client.models.vit import Vit
from client.models.vlm import Vlm
from rainhill.errors import BaseModelError, DataError
from tests.client.vlm_families import save

SIDE = 64
EMBEDDED = Path(__file__).parents[3] / "client/models/weights/thorax_tiny"
Images = NDArray[np.float32]


def _planted(left: int, top: int, side: int) -> tuple[Images, tuple[int, int, int, int]]:
    image = np.full((SIDE, SIDE), -0.5, dtype=np.float32)
    image[top : top + side, left : left + side] = 0.9
    return image, (left, top, left + side, top + side)


def _bright(box: tuple[int, int, int, int]) -> Score:
    left, top, right, bottom = box

    def score(images: Images) -> NDArray[np.float64]:
        return np.asarray(images[:, 0, top:bottom, left:right].mean(axis=(1, 2)), dtype=np.float64)

    return score


@given(st.integers(0, 44), st.integers(0, 44))
@settings(max_examples=20, deadline=None)
def test_a_planted_square_is_found_by_a_scorer_that_looks_there(left: int, top: int) -> None:
    image, box = _planted(left, top, 20)
    found = occluded(image, _bright(box), finding="square", patch=12, stride=4, filler=np.full((SIDE, SIDE), -0.5), keep=0.4)
    assert found is not None
    assert overlap(found.box, box) > 0.5
    assert box[0] <= found.peak[0] < box[2]
    assert box[1] <= found.peak[1] < box[3]
    assert found.drop > 0


def test_without_a_filler_the_image_blurred_covers_it() -> None:
    image, box = _planted(20, 30, 10)
    found = occluded(image, _bright(box), finding="square", patch=12, stride=4)
    assert found is not None
    assert box[0] <= found.peak[0] < box[2]
    assert box[1] <= found.peak[1] < box[3]


def test_a_scorer_that_looks_elsewhere_is_shown_to() -> None:
    image, _ = _planted(4, 4, 12)
    image[40:60, 40:60] = 0.2
    found = occluded(image, _bright((40, 40, 60, 60)), finding="square", patch=12, stride=4, filler=np.full((SIDE, SIDE), -0.5))
    assert found is not None
    assert overlap(found.box, (4, 4, 16, 16)) == 0.0


def test_where_nothing_makes_the_score_fall_there_is_no_region() -> None:
    image, _ = _planted(4, 4, 12)
    assert occluded(image, lambda images: np.zeros(len(images)), finding="square", patch=12, stride=4) is None


def test_a_region_says_that_it_is_indicative() -> None:
    image, box = _planted(4, 4, 12)
    found = occluded(image, _bright(box), finding="square", patch=12, stride=4)
    assert found is not None
    assert found.indicative is True
    assert found.note == NOTE
    assert NOTE.startswith("indicative")


def test_overlap_by_hand() -> None:
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1.0
    assert overlap((0, 0, 2, 2), (2, 2, 4, 4)) == 0.0


@pytest.mark.parametrize(("patch", "stride", "keep"), [(65, 4, 0.5), (4, 5, 0.5), (4, 0, 0.5), (4, 4, 0.0)])
def test_sizes_that_do_not_fit_are_refused(patch: int, stride: int, keep: float) -> None:
    image, box = _planted(4, 4, 12)
    with pytest.raises(DataError):
        occluded(image, _bright(box), finding="square", patch=patch, stride=stride, keep=keep)


def test_scores_and_fillers_that_do_not_fit_are_refused() -> None:
    image, box = _planted(4, 4, 12)
    with pytest.raises(DataError, match="finite numbers"):
        occluded(image, lambda images: np.full(len(images), np.nan), finding="square", patch=12, stride=4)
    with pytest.raises(DataError, match="filler"):
        occluded(image, _bright(box), finding="square", patch=12, stride=4, filler=np.zeros((8, 8)))


def test_a_classifiers_logit_is_a_score() -> None:
    net = Vit().load(EMBEDDED, outputs={"effusion": "effusion", "oedema": "oedema"}, last_blocks=None).eval()
    images = np.random.default_rng(0).uniform(-1, 1, (2, 1, 128, 128)).astype(np.float32)
    with torch.no_grad():
        logits = net(net.prefix(torch.from_numpy(images)))
    np.testing.assert_allclose(score_of_finding(net, 1)(images), logits[:, 1], rtol=1e-5)
    with pytest.raises(BaseModelError, match="2 outputs"):
        score_of_finding(net, 2)


def test_how_much_likelier_a_sentence_is_than_its_contrary_is_a_score(tmp_path: Path) -> None:
    net = Vlm().load(save("llava", tmp_path), outputs={}, last_blocks=None).eval()
    assert isinstance(net, Writer)
    images = np.random.default_rng(0).uniform(-1, 1, (3, 1, 32, 32)).astype(np.float32)
    score = score_of_sentence(net, "Report:", "Lungs are clear.", "No pleural effusion.", "There is a small left pleural effusion.")
    contrary = score_of_sentence(net, "Report:", "Lungs are clear.", "There is a small left pleural effusion.", "No pleural effusion.")
    np.testing.assert_allclose(score(images), -contrary(images))
    assert len(set(score(images).round(6))) == 3
