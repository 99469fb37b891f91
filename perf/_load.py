"""What processes take, as Linux tells it in proc(5): seconds of CPU, and the most memory that each has held."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from perf.kills import children

PARTS = (("server.flower.superlink", "SuperLink"), ("server.flower.conduct", "conductor"))
"""Of a coordinator, by what their command lines name."""


@dataclass(frozen=True, kw_only=True)
class Load:
    cpu_s: float
    """User and system."""
    peak_bytes: int
    """VmHWM: pages of files that it has mapped count too."""


def load_of(pid: int) -> Load:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert peak is not None
    return Load(cpu_s=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), peak_bytes=1024 * int(peak[1]))


def coordinator_of(serve: int) -> dict[str, int]:
    """Number of each process of a coordinator; `serve` is its daemon's."""
    found = {"serve": serve}
    for pid, command in children(serve):
        found |= {name: pid for module, name in PARTS if module in command}
    return found


def loads(pids: Mapping[str, int]) -> dict[str, Load]:
    """Of those that are still there."""
    found = {}
    for name, pid in pids.items():
        try:
            found[name] = load_of(pid)
        except OSError:
            continue
    return found
