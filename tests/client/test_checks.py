"""What `rainhill site check` finds of a site's own, before the coordinator is asked: whatever would stop the daemon has to be in it."""

import os
from pathlib import Path

import pytest

from client.checks import Check, checks
from client.home import SiteHome
from tests.client.hospital import Asks, offers


def found(site_file: Path) -> dict[str, Check]:
    return {one.name: one for one in checks(SiteHome.open(site_file))}


def test_a_whole_journal_counts_its_entries_and_a_damaged_one_is_named(site_file: Path, plain: Asks) -> None:
    assert found(site_file)["journal"].found == "none yet; the daemon begins it"
    at = offers(site_file)
    at.take(plain.sealed())
    assert found(site_file)["journal"].found == "2 entries hold"
    with at.journal.path.open("r+b") as file:
        file.truncate(5000)
    damaged = found(site_file)["journal"]
    assert not damaged.ok and "journal.sqlite: " in damaged.found


def test_a_folder_that_takes_nothing_is_named(site_file: Path) -> None:
    state = SiteHome.open(site_file).state
    assert found(site_file)["disk"].ok
    if os.system(f"mount --bind {state} {state} 2>/dev/null") != 0:
        pytest.skip("needs the right to mount")
    try:
        assert os.system(f"mount -o remount,bind,ro {state}") == 0
        disk = found(site_file)["disk"]
    finally:
        os.system(f"umount {state}")
    assert not disk.ok and "Read-only file system" in disk.found and str(state) in disk.found
