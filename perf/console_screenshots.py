"""The operator's console, shot in a browser while three phantom hospitals run.

    python -m perf.console_screenshots [--out docs/img] [--work runs/console]

A real consortium of processes, as `rainhill rehearse` has it, with smaller hospitals: a first run goes to its end, a second is offered,
approved by two of the three, and begun on the console by an operator. Two sites release losses and metrics, the third withholds them.
Written are `console-overview.png` and `console-run.png`. Needs Chromium (Debian: apt-get install chromium).
"""

import argparse
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from perf.kills import HOSPITAL
from rainhill.console.accounts import Accounts
from rainhill.console.app import app_of
from rainhill.console.frame import Console
from rainhill.console.serve import config_of
from rainhill.recipe import read_recipe
from server.console import OPERATOR, ROLES
from server.console.pages import console_of
from server.home import CoordinatorConsoleConfig, Home
from sites.consortium import find_sites
from sites.processes import Processes
from sites.rehearsal import OFFER_S, RUN, WHO, Rehearsal, clear

NAMES, TELLING, LATE = ("bury", "oldham", "wirral"), ("bury", "oldham"), "wirral"
ACCOUNT, PASSWORD = "grace", "a long password for one picture"
SECOND = "spring-2"
WIDTH, HEIGHT = 1280, 1000
COLOURS = 64
"""Of a picture: pages have few, and it is a third of the size."""
ROUNDS_S = 1800.0


@dataclass(kw_only=True)
class Shown(Rehearsal):
    """One in which two hospitals release what they may."""

    def _serve(self) -> None:
        for name in TELLING:
            file = self.folder / name / f"{name}.toml"
            # Both runs ask for epsilon 8, of the same patients.
            text = file.read_text(encoding="utf-8").replace("epsilon = 8.0\n", "epsilon = 16.0\n")
            file.write_text(text.replace("[privacy]\n", '[privacy]\nrelease = "suppressed"\nmin_patients = 5\n'), encoding="utf-8")
        super()._serve()


def shoot(out: Path, work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    (work / "files").mkdir(parents=True)
    out.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES):
        text = HOSPITAL.format(name=name, title=f"{name.capitalize()} General", seed=number + 1)
        (work / "files" / f"{name}.toml").write_text(text, encoding="utf-8")
    recipe_file = _recipe(work / "spring.toml", rounds=12, steps=2)
    with Processes(stop=threading.Event(), environment={"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}) as processes:
        recipe = read_recipe(recipe_file)
        sites = find_sites(recipe, work / "files")
        clear(work, sites)
        rehearsal = Shown(
            folder=work,
            recipe=recipe,
            recipe_file=recipe_file,
            sites_folder=work / "files",
            sites=sites,
            processes=processes,
            say=print,
        )
        rehearsal.prepare()
        _until(rehearsal, lambda: _finished(rehearsal), "the first run")
        _second(rehearsal)
        with _signed_in(rehearsal, work) as page:
            _pictures(rehearsal, page, out)


def _recipe(path: Path, *, rounds: int, steps: int) -> Path:
    text = Path(__file__).with_name("kills.toml").read_text(encoding="utf-8")
    for before, now in (
        ('name = "kills"', 'name = "spring"'),
        ("A run whose processes are killed", "Effusion and cardiomegaly, spring"),
        ("count = 20\nsteps = 2", f"count = {rounds}\nsteps = {steps}"),
        ("quorum = 3", "quorum = 2"),
    ):
        text = text.replace(before, now)
    path.write_text(text, encoding="utf-8")
    return path


def _second(rehearsal: Rehearsal) -> None:
    """Another run of a recipe of this name, which two hospitals approve."""
    file = _recipe(rehearsal.hub / "spring.toml", rounds=200, steps=1)
    rehearsal.processes.run("coordinator", "run", file.name, "--adapter", "first.safetensors", "--name", SECOND, cwd=rehearsal.hub)
    for name in TELLING:
        at, approve = rehearsal.folder / name, ("site", "approve", f"{name}.toml", SECOND, "--by", WHO)
        rehearsal.processes.until(partial(_offered, rehearsal, name), what=f"the offer at {name}", within_s=OFFER_S)
        rehearsal.processes.run(*approve, cwd=at)
    _until(rehearsal, lambda: '"state": "pending"' in _status(rehearsal, SECOND), f"{LATE} to have been asked")


def _pictures(rehearsal: Rehearsal, page: Page, out: Path) -> None:
    origin = page.url.rstrip("/")
    page.goto(f"{origin}/runs/{SECOND}")
    page.get_by_role("button", name=f"Begin {SECOND}").click()
    page.get_by_role("status").wait_for()
    _until(rehearsal, lambda: _status(rehearsal, SECOND).count('"round":') >= 3, "three rounds of the second run")
    page.goto(origin)
    _shot(page, out / "console-overview.png")
    page.goto(f"{origin}/runs/{RUN}")
    page.set_viewport_size({"width": WIDTH, "height": 1500})
    page.get_by_role("heading", name="Last round").evaluate("heading => scrollTo(0, heading.getBoundingClientRect().top - 16)")
    _shot(page, out / "console-run.png")


def _shot(page: Page, path: Path) -> None:
    page.screenshot(path=path)
    with Image.open(path) as taken:
        picture = taken.convert("RGB").quantize(COLOURS)
    picture.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


@contextmanager
def _signed_in(rehearsal: Rehearsal, work: Path) -> Iterator[Page]:
    """A browser before the console, which is served beside the daemons, at a port of its own and with an account for this alone."""
    accounts = Accounts(path=work / "accounts.json", roles=ROLES)
    accounts.add(ACCOUNT, role=OPERATOR, password=PASSWORD)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        config = CoordinatorConsoleConfig(port=probe.getsockname()[1])
    console = replace(console_of(Home.open(rehearsal.hub / "coordinator")), accounts=accounts, config=config)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with _served(console) as origin, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(f"{origin}/login")
        page.get_by_label("Account").fill(ACCOUNT)
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{origin}/")
        yield page
        browser.close()


@contextmanager
def _served(console: Console) -> Iterator[str]:
    server = uvicorn.Server(config_of(console, app_of(console)))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield console.config.origin
    finally:
        server.should_exit = True
        thread.join(10)


def _until(rehearsal: Rehearsal, condition: Callable[[], bool], what: str) -> None:
    rehearsal.processes.until(condition, what=what, within_s=ROUNDS_S)


def _status(rehearsal: Rehearsal, run: str) -> str:
    return rehearsal.processes.run("coordinator", "status", run, "--json", cwd=rehearsal.hub)


def _finished(rehearsal: Rehearsal) -> bool:
    return '"state": "finished"' in _status(rehearsal, RUN)


def _offered(rehearsal: Rehearsal, name: str) -> bool:
    printed = rehearsal.processes.run("site", "log", f"{name}.toml", "--json", cwd=rehearsal.folder / name)
    return SECOND in printed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/img"))
    parser.add_argument("--work", type=Path, default=Path("runs/console"))
    options = parser.parse_args()
    shoot(options.out.absolute(), options.work.absolute())


if __name__ == "__main__":
    main()
