"""The page a run leaves behind, in a real browser: no wider than a telephone, and readable by everybody, by day and by night."""

from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page

from sites.report import write_report
from tests.browser import PHONE, axe, browser, overflow, page  # noqa: F401
from tests.sites.test_report import fake_films, fake_results

DRAFTED = {
    "film": 0,
    "indication": "Cough.",
    "prior": "",
    "reference": "No effusion.\nIMPRESSION: Clear.",
    "base": "Left effusion. Clear.",
    "private": "No effusion.\nIMPRESSION: Clear.",
}
ABSTAINED = {
    "named": {"support_devices": {"there": 9, "named": 1}},
    "blind": ["support_devices"],
    "validation": {"drafts": 30, "kept": 24, "wrong": 2, "most_wrong": 0.24},
    "test": {"drafts": 50, "wrong": 9, "wrong_but_for_blind": 7, "cut": 1, "kept": 40, "kept_wrong": 4, "kept_wrong_but_for_blind": 2},
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    results = fake_results()
    for site in results["sites"].values():
        site |= {"drafts": [DRAFTED], "abstention": ABSTAINED}
    folder: Path = tmp_path_factory.mktemp("run")
    return write_report(results, fake_films(results["sites"]), folder).as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_breaks_no_rule_of_what_everybody_can_read(page: Page, address: str, scheme: Literal["light", "dark"]) -> None:  # noqa: F811
    page.emulate_media(color_scheme=scheme)
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert axe(page) == []


def test_the_page_is_no_wider_than_its_window(page: Page, address: str) -> None:  # noqa: F811
    for size in (PHONE, {"width": 1280, "height": 900}):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.goto(address)
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert overflow(page) == 0
    # A draft's lines are lines.
    said = page.locator("td.words", has_text="IMPRESSION").first
    assert said.inner_text().splitlines() == ["No effusion.", "IMPRESSION: Clear."]
