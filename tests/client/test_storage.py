from pathlib import Path

import pytest

from client.training.storage import SHARE, available_memory, choose_storage

GB = 10**9


@pytest.mark.parametrize(
    ("images", "bytes_per_image", "available", "storage"),
    [
        # Hidden states of ViT-S/16 at 224 px are 197 x 384 float32.
        (50_000, 197 * 384 * 4, 16 * GB, "disk"),
        (1_000, 197 * 384 * 4, 16 * GB, "memory"),
        (50_000, 197 * 384 * 4, 64 * GB, "memory"),
        (0, 0, 0, "memory"),
        (1, 1, 0, "disk"),
        (100, 10, int(1000 / SHARE), "memory"),
        (101, 10, int(1000 / SHARE), "disk"),
    ],
)
def test_what_takes_little_of_the_free_memory_stays_in_it(images: int, bytes_per_image: int, available: int, storage: str) -> None:
    assert choose_storage(images, bytes_per_image, available) == storage


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """As Linux has it, with 8 GB free and no limits."""
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\nHugePages_Total:       0\n")
    return tmp_path


def limit(folder: Path, names: tuple[str, str], allowed: str, used: int, stat: str = "anon 5\n") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(names, (allowed, str(used)), strict=True):
        (folder / name).write_text(f"{text}\n")
    (folder / "memory.stat").write_text(stat)


V1, V2 = ("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")


def found(machine: Path) -> int:
    return available_memory(machine / "proc", machine / "cgroup")


def test_without_limits_it_is_the_machine_s(machine: Path) -> None:
    assert found(machine) == 8_000_000 * 1024
    (machine / "proc/self/cgroup").write_text("3:cpu,cpuacct:/\n0::/user.slice\n")
    limit(machine / "cgroup/user.slice", V2, "max", GB)
    assert found(machine) == 8_000_000 * 1024


def test_the_tightest_limit_counts_its_parents_too(machine: Path) -> None:
    (machine / "proc/self/cgroup").write_text("0::/system.slice/site.service\n")
    limit(machine / "cgroup/system.slice/site.service", V2, str(6 * GB), GB)
    assert found(machine) == 5 * GB
    limit(machine / "cgroup/system.slice", V2, str(4 * GB), 3 * GB)
    assert found(machine) == GB


def test_pages_of_files_that_nobody_reads_are_given_back(machine: Path) -> None:
    (machine / "proc/self/cgroup").write_text("9:name=systemd:/\n4:memory:/job\n")
    limit(machine / "cgroup/memory/job", V1, str(4 * GB), 3 * GB, f"inactive_file 7\ntotal_inactive_file {2 * GB}\n")
    assert found(machine) == 3 * GB


def test_in_a_container_the_limit_is_at_the_root(machine: Path) -> None:
    (machine / "proc/self/cgroup").write_text("0::/docker/of-the-host\n")
    limit(machine / "cgroup", V2, str(2 * GB), 3 * GB)
    assert found(machine) == 0


def test_elsewhere_it_is_half_of_all_memory(tmp_path: Path) -> None:
    assert found(tmp_path) > 0
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("nothing that Linux would write\n")
    assert found(tmp_path) > 0


def test_this_machine_has_some() -> None:
    assert available_memory() > 0
