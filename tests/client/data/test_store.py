from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from client.data import store
from client.data.store import Entry

COHORT, OTHER = "a" * 64, "b" * 64
VALUES = np.arange(200 * 3, dtype=np.float32).reshape(200, 3)


@pytest.fixture
def entry(tmp_path):
    return Entry(
        folder=tmp_path / "kept",
        made_from={"seed": (1, 2)},
        shape=VALUES.shape,
        dtype=VALUES.dtype,
        what="numbers",
        redone="counting",
    )


def in_order(write):
    write(0, VALUES)


def backwards(write):
    for place in reversed(range(len(VALUES))):
        write(place, VALUES[place][None])


@pytest.mark.parametrize("fill", [in_order, backwards])
def test_what_was_saved_is_read_again_in_whatever_order_it_was_written(entry, fill):
    assert store.load(entry) is None
    np.testing.assert_array_equal(store.save(entry, fill), VALUES)
    loaded = store.load(entry)
    assert isinstance(loaded, np.memmap)
    assert not loaded.flags.writeable
    np.testing.assert_array_equal(loaded, VALUES)
    np.testing.assert_array_equal(np.load(entry.file), VALUES)


def test_only_the_owner_can_read_any_of_it(entry):
    store.save(entry, in_order)
    store.mark(entry.file, COHORT)
    assert sorted(file.suffix for file in entry.folder.iterdir()) == [".cohort", ".json", ".npy"]
    assert all(file.stat().st_mode & 0o077 == 0 for file in entry.folder.iterdir())


def swapped(content):
    """Two rows in each other's place, which a sum of what is in them would not tell."""
    return content[:-24] + content[-12:] + content[-24:-12]


@pytest.mark.parametrize("damage", [swapped, lambda content: content[:-1], lambda content: b"", lambda content: b"\0" + content[1:]])
def test_damage_is_found_and_told(entry, damage, caplog):
    store.save(entry, in_order)
    entry.file.write_bytes(damage(entry.file.read_bytes()))
    assert store.load(entry) is None
    assert f"numbers {entry.file.name} is damaged" in caplog.text
    assert "counting again" in caplog.text
    np.testing.assert_array_equal(store.save(entry, in_order), VALUES)
    np.testing.assert_array_equal(store.load(entry), VALUES)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"checksum": 0, "made_from": {}}'])
def test_a_description_that_is_no_such_thing_is_told(entry, text, caplog):
    store.save(entry, in_order)
    entry.file.with_suffix(".json").write_text(text)
    assert store.load(entry) is None
    assert "counting again" in caplog.text


def test_an_array_of_another_shape_or_type_is_told(entry, caplog):
    store.save(entry, in_order)
    assert store.load(replace(entry, shape=(100, 6))) is None
    assert store.load(replace(entry, dtype=np.dtype(np.int32))) is None
    assert caplog.text.count("holds something else") == 2


def test_what_was_made_from_something_else_is_another_file(entry):
    store.save(entry, in_order)
    assert store.load(replace(entry, made_from={"seed": (1, 3)})) is None


def test_nothing_is_left_of_a_write_that_fails(entry):
    def stops(write):
        write(0, VALUES[:5])
        raise KeyError("stop")

    with pytest.raises(KeyError):
        store.save(entry, stops)
    assert list(entry.folder.iterdir()) == []
    with pytest.raises(ValueError, match=r"row 7: \(2,\) float32 is not \(3,\) float32"):
        store.save(entry, lambda write: write(7, VALUES[:, :2]))


def test_a_folder_that_cannot_be_made_is_told(entry, caplog):
    entry.folder.write_text("a file")
    assert store.save(entry, in_order) is None
    assert f"numbers not written: File exists ({entry.folder}: 0.0 MB needed, " in caplog.text


def test_several_may_write_the_same_at_once(entry):
    with ThreadPoolExecutor(4) as pool:
        for array in pool.map(lambda _: store.save(entry, backwards), range(8)):
            np.testing.assert_array_equal(array, VALUES)
    np.testing.assert_array_equal(store.load(entry), VALUES)
    assert len(list(entry.folder.iterdir())) == 2


def test_a_cohort_s_arrays_go_with_it_and_no_others(entry):
    other = replace(entry, made_from={"seed": 2}, folder=entry.folder / "below")
    for one, cohort in ((entry, COHORT), (other, OTHER)):
        store.save(one, in_order)
        store.mark(one.file, cohort)
    assert store.wipe(entry.folder, COHORT) == [entry.file]
    assert [file for file in entry.folder.iterdir() if file.is_file()] == []
    assert store.load(other) is not None
    assert store.wipe(entry.folder, COHORT) == []


def test_an_array_of_several_cohorts_goes_with_the_first(entry):
    store.save(entry, in_order)
    store.mark(entry.file, COHORT)
    store.mark(entry.file, OTHER)
    store.wipe(entry.folder, OTHER)
    assert list(entry.folder.iterdir()) == []


def test_pieces_of_a_write_that_was_killed_go_with_any_wipe(entry):
    store.save(entry, in_order)
    piece = entry.folder / f"{entry.key}.k3j_9x.part"
    piece.write_bytes(b"half a film")
    stranger = entry.folder / "thesis.part"
    stranger.write_text("of somebody else")
    store.wipe(entry.folder, COHORT)
    assert not piece.exists()
    assert stranger.exists()


@pytest.mark.parametrize("cohort", ["*", "", "A" * 64, "a" * 63])
def test_only_a_fingerprint_is_wiped(tmp_path, cohort):
    with pytest.raises(ValueError, match="is no fingerprint of a cohort"):
        store.wipe(tmp_path, cohort)


def test_a_file_that_cannot_be_marked_is_told(tmp_path, caplog):
    store.mark(tmp_path / "gone" / "rows.npy", COHORT)
    assert "will not be wiped with its cohort: No such file or directory" in caplog.text
