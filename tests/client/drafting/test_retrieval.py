"""An index of a site's reports: what is near comes first, a patient's own stays away, and what is saved is of one cohort and private."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from client.drafting.retrieval import REPORTS, VECTORS, Index
from client.drafting.text_vectors import read_snippets, text_vectors, text_weights
from rainhill.errors import CredentialError, DataError

COHORT = "a" * 64
VECTORS_OF = arrays.arrays(np.float32, (6, 3), elements=st.floats(-1e3, 1e3, width=32))


def small() -> Index:
    vectors = np.array([[1, 0], [1, 1], [0, 1], [-1, 0]])
    return Index.of(vectors, ["one", "two", "three", "four"], ["r1", "r2", "r3", "r4"], patients=["p", "p", "q", "q"], cohort=COHORT)


def test_the_nearest_by_cosine_come_first() -> None:
    near = small().nearest(np.array([2.0, 0.1]), 3)
    assert [(one.report, one.name) for one in near] == [("one", "r1"), ("two", "r2"), ("three", "r3")]
    assert near[1].similarity == pytest.approx(2.1 / (np.sqrt(2) * np.sqrt(4.01)))
    assert small().nearest(np.array([2.0, 0.1]), 0) == ()


@given(VECTORS_OF, st.integers(0, 5), st.integers(1, 6))
def test_a_patients_own_reports_never_come_back_for_that_patient(vectors: np.ndarray, place: int, k: int) -> None:
    owners = ["p", "p", "q", "q", "r", "r"]
    reports = [f"report {number}" for number in range(6)]
    near = Index.of(vectors, reports, reports, patients=owners, cohort=COHORT).nearest(vectors[place], k, without=owners[place])
    assert len(near) == min(k, 4)
    assert all(owners[reports.index(one.report)] != owners[place] for one in near)
    similarities = [one.similarity for one in near]
    assert similarities == sorted(similarities, reverse=True) and all(-1 <= one <= 1 for one in similarities)


@given(VECTORS_OF, st.floats(0.01, 100))
def test_length_is_no_matter(vectors: np.ndarray, scale: float) -> None:
    names = list("abcdef")
    one, other = (Index.of(values, names, names, cohort=COHORT) for values in (vectors, vectors.astype(np.float64) * scale))
    np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-6)


def test_without_patients_of_their_own_names_are_the_patients() -> None:
    index = Index.of(np.eye(2), ["one", "two"], ["p", "q"], cohort=COHORT)
    assert [one.name for one in index.nearest(np.array([1.0, 0.0]), 2, without="p")] == ["q"]


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.eye(3), r"vectors \(3, 3\) are not of 2 reports"),
        (np.array([[1, np.nan], [0, 1]]), "1 of 2 vectors hold what is no finite number"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(vectors: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Index.of(vectors, ["a", "b"], ["a", "b"], cohort=COHORT)


def test_a_question_of_another_length_is_refused() -> None:
    with pytest.raises(DataError, match=r"a vector \(3,\) and k = 1: expected \(2,\)"):
        small().nearest(np.ones(3), 1)


def test_what_is_saved_is_read_again_and_nobody_elses_to_read(tmp_path: Path) -> None:
    index = small()
    index.save(tmp_path / "index")
    again = Index.load(tmp_path / "index", cohort=COHORT)
    np.testing.assert_array_equal(again.vectors, index.vectors)
    assert (again.reports, again.names, again.patients) == (index.reports, index.names, index.patients)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "index").iterdir()} == {0o600}
    (tmp_path / "index" / REPORTS).chmod(0o644)
    with pytest.raises(CredentialError, match="has mode 644, not 600"):
        Index.load(tmp_path / "index", cohort=COHORT)


def test_an_index_of_another_cohort_is_refused(tmp_path: Path) -> None:
    small().save(tmp_path)
    with pytest.raises(DataError, match="is an index of cohort aaaaaaaaaaaa, not of bbbbbbbbbbbb"):
        Index.load(tmp_path, cohort="b" * 64)


def test_files_of_two_indexes_or_damaged_ones_are_refused(tmp_path: Path) -> None:
    small().save(tmp_path)
    Index.of(np.eye(2), ["one", "two"], ["r1", "r2"], cohort=COHORT).save(tmp_path / "other")
    (tmp_path / "other" / VECTORS).replace(tmp_path / VECTORS)
    with pytest.raises(DataError, match="sha256"):
        Index.load(tmp_path, cohort=COHORT)
    for text in ("{", "[]", json.dumps({"version": 1})):
        (tmp_path / REPORTS).write_text(text)
        with pytest.raises(DataError, match=r"reports\.json"):
            Index.load(tmp_path, cohort=COHORT)


def test_texts_that_share_rare_words_are_near() -> None:
    texts = ["There is a left pleural effusion.", "There is a right pneumothorax.", "There is cardiomegaly."]
    weights = text_weights(texts)
    index = Index.of(text_vectors(texts, weights), texts, ["a", "b", "c"], cohort=COHORT)
    near = index.nearest(text_vectors(["small pneumothorax on the right"], weights)[0], 3)
    assert near[0].name == "b" and near[0].similarity > 2 * near[1].similarity


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_any_text_is_a_vector_of_length_one_or_none_and_always_the_same(texts: list[str]) -> None:
    vectors = text_vectors(texts, text_weights(texts, width=64))
    assert vectors.shape == (len(texts), 64) and vectors.dtype == np.float32
    lengths = np.linalg.norm(vectors, axis=1)
    assert all(length == pytest.approx(1, abs=1e-5) or length == 0 for length in lengths)
    np.testing.assert_array_equal(vectors, text_vectors(texts, text_weights(texts, width=64)))


def test_guidelines_are_cited_by_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "effusion.md").write_text("# Effusion\n\nTap an effusion\nthat is large.\n\n\nRepeat the film.\n")
    (tmp_path / "tubes.txt").write_text("An endotracheal tube ends 5 cm above the carina.")
    (tmp_path / "scan.pdf").write_bytes(b"\xff")
    snippets = read_snippets(tmp_path)
    assert [(one.name, one.text) for one in snippets] == [
        ("local/effusion.md:3", "Effusion. Tap an effusion that is large."),
        ("local/effusion.md:7", "Effusion. Repeat the film."),
        ("tubes.txt:1", "An endotracheal tube ends 5 cm above the carina."),
    ]
    texts = [one.text for one in snippets]
    index = Index.of(text_vectors(texts, text_weights(texts)), texts, [one.name for one in snippets], cohort=COHORT)
    assert index.nearest(text_vectors(["large effusion"], text_weights(texts))[0], 1)[0].name == "local/effusion.md:3"


def test_guidelines_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_snippets(tmp_path / "none")
    (tmp_path / "bad.md").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"bad\.md: cannot be read as UTF-8"):
        read_snippets(tmp_path)
