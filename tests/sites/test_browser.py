"""The report in a real browser."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")
@pytest.mark.parametrize(("width", "dark"), [(1100, False), (400, True)])
def test_the_report_shows_in_a_browser(finished: Path, tmp_path: Path, width: int, dark: bool) -> None:
    picture = tmp_path / "page.png"
    theme = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []
    subprocess.run(
        [
            str(CHROMIUM),
            *FLAGS.split(),
            *theme,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},3000",
            f"--screenshot={picture}",
            (finished / "report.html").as_uri(),
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )
    page = np.asarray(Image.open(picture).convert("L"), dtype=float)
    assert page.shape[1] == width
    # Text and figures from top to bottom, on a background that follows the theme.
    assert all(band.std() > 5 for band in np.array_split(page, 6))
    background = np.median(page)
    assert background < 80 if dark else background > 200
