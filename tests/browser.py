"""A browser for the tests of pages that people use: Debian's chromium, worked by Playwright, and axe-core for what a page owes to everybody."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from rainhill.console.app import app_of
from rainhill.console.door import Door
from rainhill.console.frame import Console
from rainhill.console.serve import config_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT_MS = 30_000
PHONE = {"width": 375, "height": 812}
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one file of tests: while it is open, its thread runs an event loop, which others may want to run themselves."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    with sync_playwright() as play:
        # --no-sandbox: tests may run as root.
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new visitor's, who sees no error in the browser's console unless the test takes it out of `page.errors`."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(WAIT_MS)
    errors: list[str] = []
    opened.errors = errors  # type: ignore[attr-defined]
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda said: errors.append(said.text) if said.type in ("error", "warning") else None)
    yield opened
    context.close()
    assert errors == []


def sign_in(page: Page, origin: str, name: str, password: str = PASSWORD) -> None:
    page.goto(f"{origin}/login")
    page.get_by_label("Account").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()


def axe(page: Page) -> list[str]:
    """What breaks WCAG 2.1 A or AA, or axe-core's own best practice, on the page as it is now: a line each, with the elements."""
    found = find_spec("axe_core_python")
    assert found is not None and found.origin is not None
    # By the debugger, which no content security policy stands in the way of.
    page.evaluate((Path(found.origin).parent / "axe.min.js").read_text())
    result: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']]}" for one in result["violations"]]


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@contextmanager
def served(console: Console, door: Door | None = None) -> Iterator[str]:
    """The console at its own port, as `keep_serving` serves it, in a thread; gives its origin."""
    server = uvicorn.Server(config_of(console, app_of(console, door)))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    stop = time.monotonic() + 30
    while not server.started and thread.is_alive() and time.monotonic() < stop:
        time.sleep(0.02)
    assert server.started
    try:
        yield console.config.origin
    finally:
        server.should_exit = True
        thread.join(10)
