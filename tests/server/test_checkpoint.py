import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainhill.adapter import Adapter
from rainhill.errors import CheckpointError
from rainhill.files import write_whole
from rainhill.messages import RoundRecord
from server import checkpoint
from server.checkpoint import Checkpoint
from strategies import State

ADAPTER = Adapter({"m.lora_A": np.ones((2, 3), np.float32), "m.lora_B": np.zeros((4, 2), np.float32)})
RECORD = RoundRecord(
    round=1,
    asked=("a", "b"),
    answered=("a",),
    refused={"b": "no answer"},
    down_bytes={"a": 10, "b": 10},
    up_bytes={"a": 5},
    losses={"a": 0.5},
    evaluations={"a": {"auroc": 0.75}},
    seconds=1.5,
    log={"energy_kept": 0.97},
)


def after(number: int) -> Checkpoint:
    state = State(round=number, arrays={"m": np.arange(3.0)}, log={"energy_kept": 0.97})
    return Checkpoint(recipe="f" * 64, run="r", adapter=ADAPTER * float(number), state=state, history=(RECORD,) * number)


@given(st.integers(1, 5))
def test_a_checkpoint_comes_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    saved = after(number)
    found = checkpoint.load(checkpoint.save(tmp_path_factory.mktemp("run"), saved))
    assert found.adapter == saved.adapter
    assert replace(found, state=saved.state) == saved
    assert found.state.round == number
    assert found.state.log == saved.state.log
    np.testing.assert_array_equal(found.state.arrays["m"], saved.state.arrays["m"])


def test_arrays_in_any_memory_order_come_back(tmp_path: Path) -> None:
    rows = np.arange(6.0).reshape(2, 3)
    columns = np.asfortranarray(rows)
    saved = replace(after(1), adapter=Adapter({"a": columns, "t": rows.T}), state=State(round=1, arrays={"m": columns, "t": rows.T}))
    found = checkpoint.load(checkpoint.save(tmp_path, saved))
    for arrays in (found.adapter, found.state.arrays):
        np.testing.assert_array_equal(arrays["t"], rows.T)
    np.testing.assert_array_equal(found.adapter["a"], rows)
    np.testing.assert_array_equal(found.state.arrays["m"], rows)
    assert Adapter.from_bytes(saved.adapter.to_bytes()) == saved.adapter


def test_the_latest_round_is_found(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "nothing", recipe="f" * 64, run="r") is None
    for number in (1, 2, 10):
        checkpoint.save(tmp_path, after(number))
    found = checkpoint.latest(tmp_path, recipe="f" * 64, run="r")
    assert found is not None
    assert found.state.round == 10


def test_a_checkpoint_of_another_recipe_is_refused_with_both(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, after(1))
    with pytest.raises(CheckpointError, match=f"belongs to recipe {'f' * 12}, asked to go on with {'0' * 12}"):
        checkpoint.latest(tmp_path, recipe="0" * 64, run="r")


def test_a_checkpoint_of_another_run_or_round_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, after(2))
    with pytest.raises(CheckpointError, match="belongs to run 'r', asked to go on with 'r/local/b'"):
        checkpoint.latest(tmp_path, recipe="f" * 64, run="r/local/b")
    path.rename(tmp_path / "round-000009.safetensors")
    with pytest.raises(CheckpointError, match=r"round-000009.safetensors: holds round 2, expected the one of its name"):
        checkpoint.latest(tmp_path, recipe="f" * 64, run="r")


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, after(1))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=r"round-000001.safetensors: is not a checkpoint"):
        checkpoint.load(path)


def test_a_single_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, after(1))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"round-000001.safetensors: is damaged: its tensors have sha256"):
        checkpoint.load(path)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))


def test_a_full_disk_leaves_the_previous_round_as_it_was(tmp_path: Path) -> None:
    """A real full disk: a file system of its own, filled to the last byte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        kept = checkpoint.save(disk, after(1))
        before = kept.read_bytes()
        with pytest.raises(OSError, match="No space left"):
            fill(disk / "filler")
        with pytest.raises(CheckpointError, match=r"cannot be written \(No space left on device\); round 1 is intact"):
            checkpoint.save(disk, after(2))
        # Whatever else is written whole names its file, which a full disk by itself does not.
        with pytest.raises(OSError, match="No space left") as refused:
            write_whole(disk / "report.html", bytes(4096))
        assert refused.value.filename == str(disk / "report.html")
        assert kept.read_bytes() == before
        assert sorted(path.name for path in disk.iterdir()) == ["filler", "round-000001.safetensors"]
        (disk / "filler").unlink()
        checkpoint.save(disk, after(2))
        assert checkpoint.latest(disk, recipe="f" * 64, run="r").state.round == 2
    finally:
        os.system(f"umount {disk}")


def test_a_crash_before_the_rename_leaves_the_previous_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, after(1))

    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, after(2))
    assert checkpoint.latest(tmp_path, recipe="f" * 64, run="r").state.round == 1
