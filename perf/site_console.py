"""What a site's console shows of a real rehearsal, photographed: docs/img/site-console-*.png.

    python -m perf.site_console [--out runs/perf-site-console] [--images docs/img]

Three phantom hospitals go through one run and begin a second, whose updates Bury holds for release; a third is asked and waits. Then the
console that Bury's daemon serves is looked at with Debian's chromium. With an --out of before, what is there is served again.
"""

import argparse
import json
import shutil
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import tomli_w
from PIL import Image
from playwright.sync_api import sync_playwright

import sites as house
from client.console import GOVERNANCE
from client.console.accounts import accounts_of
from client.home import SiteHome
from rainhill.recipe import read_recipe
from rainhill.supervise import stopped_by_signals
from sites.consortium import find_sites
from sites.processes import Processes
from sites.rehearsal import HUB, RUN, Rehearsal, clear, free_ports

NAMES = ("bury", "manchester", "oldham")
SITE = "bury"
PATIENTS, TEST_PATIENTS = 120, 80
WITHIN_S = 1800.0
GRACE, PASSWORD = "grace.hopper", "one for a rehearsal only"
SECOND, THIRD = "summer", "autumn"
DONE = "rehearsed"
WIDTH = 1280
PAGE_MS = 300_000
"""For a page: the first look at a run works out its noise."""
SHOTS = {"overview": ("/", 740), "asked": (f"/asked/{THIRD}", 1330)}
"""Each one's page, and its height in pixels."""
COLOURS = 128


def prepared(folder: Path, processes: Processes) -> Rehearsal:
    """A rehearsal in this folder, with nothing in it yet but what it is drawn from."""
    files = folder / "files"
    files.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        document = tomllib.loads((Path(house.__file__).parent / f"{name}.toml").read_text(encoding="utf-8"))
        document["phantom"] |= {"patients": PATIENTS, "test_patients": TEST_PATIENTS, "images_per_patient": [1, 1]}
        (files / f"{name}.toml").write_text(tomli_w.dumps(document))
    _recipe(folder, "first", title="Effusion and cardiomegaly, first season", epsilon=4, rounds=6)
    _recipe(folder, SECOND, title="Effusion and cardiomegaly, second season", epsilon=2, rounds=4)
    _recipe(folder, THIRD, title="Effusion and cardiomegaly, third season", epsilon=1, rounds=4)
    recipe = read_recipe(folder / "first.toml")
    return Rehearsal(
        folder=folder,
        recipe=recipe,
        recipe_file=folder / "first.toml",
        sites_folder=files,
        sites=find_sites(recipe, files),
        processes=processes,
        say=lambda words: print(words, file=sys.stderr),
    )


def _recipe(folder: Path, name: str, *, title: str, epsilon: float, rounds: int) -> None:
    document = tomllib.loads(Path(__file__).with_name("kills.toml").read_text(encoding="utf-8"))
    document |= {"name": "chest_findings", "title": title, "sites": list(NAMES)}
    document["privacy"]["epsilon"] = epsilon
    document["rounds"] |= {"count": rounds, "quorum": 2, "deadline_s": 24 * 3600}
    (folder / f"{name}.toml").write_text(tomli_w.dumps(document))


def rehearse(rehearsal: Rehearsal) -> None:
    """As `rainhill rehearse`, and then what a second season brings."""
    at, run = rehearsal.folder / SITE, rehearsal.processes.run
    clear(rehearsal.folder, rehearsal.sites)
    rehearsal.prepare()
    _until(rehearsal, "the first run", lambda: _state(rehearsal) == "finished")
    _until(rehearsal, "its outcome", lambda: bool(_told(rehearsal, "outcome")))
    with (at / f"{SITE}.toml").open("a") as file:
        file.write("\n[policy]\nhold = true\nmax_update_norm = 10\n")
    for name in (SECOND, THIRD):
        shutil.copyfile(rehearsal.folder / f"{name}.toml", rehearsal.hub / f"{name}.toml")
        run("coordinator", "run", f"{name}.toml", "--adapter", "first.safetensors", "--name", name, cwd=rehearsal.hub)
        for site in rehearsal.names:
            _until(rehearsal, f"the offer at {site}", partial(_offered, rehearsal, site, name))
            if name == SECOND:
                run("site", "approve", f"{site}.toml", name, "--by", "Grace Hopper", cwd=rehearsal.folder / site)
    for number in (1, 2):
        _until(rehearsal, f"round {number} held", lambda: bool(_told(rehearsal, "held")))
        if number == 1:
            run("site", "release", f"{SITE}.toml", SECOND, "1", "--by", "Grace Hopper", cwd=at)
    (rehearsal.folder / DONE).touch()


def _state(rehearsal: Rehearsal) -> str:
    return str(json.loads(rehearsal.processes.run("coordinator", "status", RUN, "--json", cwd=rehearsal.hub))["state"])


def _until(rehearsal: Rehearsal, what: str, holds: Callable[[], bool]) -> None:
    rehearsal.processes.until(holds, what=what, within_s=WITHIN_S)


def _offered(rehearsal: Rehearsal, site: str, name: str) -> bool:
    printed = rehearsal.processes.run("site", "log", f"{site}.toml", "--json", cwd=rehearsal.folder / site)
    return any(one["kind"] == "offered" and one["run"] == name for one in json.loads(printed))


def with_console(rehearsal: Rehearsal) -> str:
    """Where the site's console will be, with an account that decides."""
    file = rehearsal.folder / SITE / f"{SITE}.toml"
    document = tomllib.loads(file.read_text())
    document["console"] = {"port": free_ports(1)[0]}
    file.write_text(tomli_w.dumps(document))
    accounts = accounts_of(SiteHome.open(file))
    if GRACE not in accounts.all():
        accounts.add(GRACE, role=GOVERNANCE, password=PASSWORD)
    return f"http://127.0.0.1:{document['console']['port']}"


def photograph(origin: str, images: Path) -> None:
    with sync_playwright() as play:
        # --no-sandbox: it may be worked by root.
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": WIDTH, "height": 900}).new_page()
        page.set_default_timeout(PAGE_MS)
        page.goto(f"{origin}/login")
        page.get_by_label("Account").fill(GRACE)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("button", name="Sign out").wait_for()
        for name, (path, height) in SHOTS.items():
            page.set_viewport_size({"width": WIDTH, "height": height})
            page.goto(f"{origin}{path}")
            file = images / f"site-console-{name}.png"
            Image.open(BytesIO(page.screenshot())).quantize(COLOURS).save(file, optimize=True)
            print(file)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/perf-site-console"))
    parser.add_argument("--images", type=Path, default=Path("docs/img"))
    options = parser.parse_args()
    folder, stop, threads = options.out.absolute(), stopped_by_signals(), {"OMP_NUM_THREADS": "1"}
    if not (folder / DONE).exists():
        with Processes(stop=stop, environment=threads) as processes:
            rehearse(prepared(folder, processes))
    with Processes(stop=stop, environment=threads) as processes:
        rehearsal = prepared(folder, processes)
        origin = with_console(rehearsal)
        for name in (HUB, *NAMES):
            rehearsal.serve(name)
        _until(rehearsal, "contact", lambda: bool(_told(rehearsal, "status")["connected"]))
        _until(rehearsal, "the console", lambda: _answers(origin))
        photograph(origin, options.images)


def _told(rehearsal: Rehearsal, command: str) -> Any:
    return json.loads(rehearsal.processes.run("site", command, f"{SITE}.toml", "--json", cwd=rehearsal.folder / SITE))


def _answers(origin: str) -> bool:
    try:
        return httpx.get(f"{origin}/login").is_success
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    main()
