"""Where hidden states are kept: in memory where they take little of what is free, else on the site's disk."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Storage = Literal["memory", "disk"]
SHARE = 0.25
"""Of the free memory that one cohort's hidden states may take: training, and the other parts and sites, need some as well."""

_LIMITS = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}


def choose_storage(n_images: int, bytes_per_image: int, available_memory: int) -> Storage:
    return "memory" if n_images * bytes_per_image <= SHARE * available_memory else "disk"


def available_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take: of the machine's, and under the limits of its control groups. Linux proc(5), cgroups(7)."""
    return max(0, min([_machine(proc), *_control_groups(proc, groups)]))


def _machine(proc: Path) -> int:
    try:
        fields = dict(line.split(":") for line in (proc / "meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        # Not Linux: half of all memory.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _control_groups(proc: Path, groups: Path) -> Iterator[int]:
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        controller = "memory" if "memory" in controllers.split(",") else controllers
        if controller in _LIMITS:
            root = groups / controller
            own = root / path.lstrip("/")
            # A limit may be any parent's. In a container the path is the host's, and the root is what is there.
            for group in {root, own, *(parent for parent in own.parents if parent.is_relative_to(root))}:
                yield from _room(group, *_LIMITS[controller])


def _room(group: Path, limit: str, usage: str) -> Iterator[int]:
    try:
        allowed, used = int((group / limit).read_text()), int((group / usage).read_text())
        counted = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such file, or `max`
        return
    # Pages of files that nobody has read for a while count as used, and are given back on demand.
    yield allowed - used + int(counted.get("total_inactive_file", counted.get("inactive_file", 0)))
