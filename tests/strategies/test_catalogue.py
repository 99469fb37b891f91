"""The catalogue says what is true, and its page is the one in docs/."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import strategies
from strategies._catalogue import Entry, catalogue

COMMAND = str(Path(sys.executable).parent / "rainhill")
ROOT = Path(strategies.__file__).parent.parent


@pytest.fixture(scope="module")
def entries() -> dict[str, Entry]:
    return {entry.name: entry for entry in catalogue()}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, "strategies", *arguments], capture_output=True, text=True, check=False)


def test_the_library_is_as_large_as_it_says(entries: dict[str, Entry]) -> None:
    kinds = [entry.kind for entry in entries.values()]
    assert kinds.count("rule") >= 12
    assert kinds.count("server_optimizer") >= 4
    assert kinds.count("robust") >= 6
    assert kinds.count("personal") >= 6
    assert all(entry.summary for entry in entries.values())


def test_bytes_are_those_of_the_tensors(entries: dict[str, Entry]) -> None:
    """ViT-S, r = 8, q and v of 12 blocks: 147,456 numbers, 576 KiB; B alone is half; a core is 24 times 8 x 8; the second trip of FedEx

    carries a residual of rank (n - 1) r = 8 more, of FLoRA the stack of rank n r = 16.
    """
    both = 147_456 * 4
    up = {name: entry.uplink_bytes for name, entry in entries.items()}
    assert up["fedavg"] == up["flexlora"] == up["fedex"] == both == entries["fedavg"].downlink_bytes
    assert up["ffa"] == up["alternating"] == up["fedsvd"] == up["fedsa"] == both // 2
    assert up["fedsb"] == 24 * 8 * 8 * 4
    assert up["scaffold"] == 2 * both == entries["scaffold"].downlink_bytes == entries["ifca"].downlink_bytes
    assert entries["fedex"].downlink_bytes == 2 * both
    assert entries["flora"].downlink_bytes == 3 * both
    assert up["double_sketch"] == 24 * 4 * 384 * (32 + 48)


def test_the_catalogue_knows_what_voids_privacy_and_what_secure_aggregation_can_hide(entries: dict[str, Entry]) -> None:
    assert {name for name, entry in entries.items() if entry.void} == {"fedsa", "fedper", "fedrep", "fedbn"}
    linear = {name for name, entry in entries.items() if entry.linear and entry.kind == "rule"}
    assert linear == {"fedavg", "ffa", "alternating", "fedsvd", "fedsa", "fedsb", "fedrot", "double_sketch", "la_lora"}
    assert not any(entry.linear for entry in entries.values() if entry.kind == "robust")
    assert {name for name, entry in entries.items() if not entry.mixed_ranks} == {"fedrot", "fedsb", "scaffold", "fedamp"}
    assert entries["ifca"].min_sites == entries["fedamp"].min_sites == 3
    assert entries["krum"].min_sites == 5
    assert {name for name, entry in entries.items() if entry.kind == "rule" and not entry.keeps_basis} == {
        "double_sketch",
        "fedsvd",
        "flexlora",
        "flora",
    }
    assert entries["krum"].options == {"byzantine": 1}


def test_the_command_prints_a_table_of_80_columns_and_json() -> None:
    table = command()
    assert table.returncode == 0, table.stderr
    assert table.stderr == ""
    assert max(map(len, table.stdout.splitlines())) <= 80
    assert "flexlora" in table.stdout and "Personalisation modes" in table.stdout
    listed = json.loads(command("--json", "--sites", "3").stdout)
    assert {"name", "kind", "uplink_bytes", "downlink_bytes", "exact", "linear", "min_sites"} <= listed[0].keys()
    [fedex] = [one for one in listed if one["name"] == "fedex"]
    assert fedex["downlink_bytes"] == 3 * 147_456 * 4


def test_a_wrong_size_is_one_clear_line() -> None:
    assert "give one of them" in command("--json", "--markdown").stderr
    run = command("--rank", "500")
    assert run.returncode == 2
    assert "--rank 500 is above --width 384" in run.stderr


def test_the_page_in_docs_is_the_one_the_command_makes() -> None:
    made = command("--markdown")
    assert made.returncode == 0, made.stderr
    assert (ROOT / "docs" / "strategies.md").read_text() == made.stdout, "make it anew: rainhill strategies --markdown > docs/strategies.md"
