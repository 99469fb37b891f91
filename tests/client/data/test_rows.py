import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.data.rows import CHUNK, Rows


def numbered(*lengths):
    """(n, 2) arrays whose rows are all different."""
    starts = np.cumsum([0, *lengths])
    return [np.arange(2 * start, 2 * stop, dtype=np.float32).reshape(-1, 2) for start, stop in pairwise(starts)]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.data())
def test_rows_are_what_one_array_would_give(lengths, data):
    arrays = numbered(*lengths)
    whole = np.concatenate(arrays)
    places = np.array(
        data.draw(st.lists(st.integers(0, max(0, len(whole) - 1)), max_size=8) if len(whole) else st.just([])), dtype=np.int64
    )
    rows, expected = Rows(*arrays, places=places), whole[places]
    assert (rows.shape, len(rows), rows.dtype) == (expected.shape, len(expected), expected.dtype)
    np.testing.assert_array_equal(rows, expected)
    index = data.draw(st.slices(len(expected)))
    np.testing.assert_array_equal(rows[index], expected[index])
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(expected), max_size=len(expected))), dtype=bool)
    np.testing.assert_array_equal(rows[mask], expected[mask])
    np.testing.assert_array_equal(rows.only(mask), expected[mask])
    np.testing.assert_array_equal(Rows.join([rows, rows.only(mask)]), np.concatenate([expected, expected[mask]]))


def test_one_row_comes_without_its_axis_and_no_row_is_beyond_the_end():
    rows = Rows(*numbered(2, 3))
    assert rows[3].tolist() == rows[-2].tolist() == [6, 7]
    with pytest.raises(IndexError):
        rows[5]
    with pytest.raises(IndexError):
        rows.only(np.array([5]))


def test_rows_come_one_by_one_and_in_chunks():
    (array,) = numbered(CHUNK + 3)
    assert [len(chunk) for chunk in Rows(array).chunks()] == [CHUNK, 3]
    np.testing.assert_array_equal(np.stack(list(Rows(array))), array)


def test_what_is_read_is_a_copy_that_may_be_written_to(tmp_path):
    (array,) = numbered(4)
    np.save(tmp_path / "rows.npy", array)
    rows = Rows(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    rows[1:3][:] = 0
    np.testing.assert_array_equal(rows, array)
    assert rows.only(np.array([2])).files == (tmp_path / "rows.npy",)
    with pytest.raises(ValueError, match="copy=False"):
        np.asarray(rows, copy=False)


def test_a_digest_is_that_of_the_whole_array():
    (array,) = numbered(2 * CHUNK + 1)
    fed, whole = hashlib.sha256(), hashlib.sha256(f"{array.dtype.str} {array.shape}".encode() + array.tobytes())
    Rows(array).feed(fed)
    assert fed.hexdigest() == whole.hexdigest()


def test_arrays_that_differ_in_shape_or_type_are_not_laid_end_to_end():
    with pytest.raises(ValueError, match=r"\(3,\) float32 is not \(2,\) float32"):
        Rows(np.zeros((1, 2), np.float32), np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match=r"\(2,\) int16 is not \(2,\) float32"):
        Rows.join([Rows(np.zeros((1, 2), np.float32)), Rows(np.zeros((1, 2), np.int16))])
