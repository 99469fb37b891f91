"""The pages of the operator's console."""

from functools import partial
from pathlib import Path

import jinja2

from rainhill.console.frame import Console, Page
from server.console.accounts import accounts_of
from server.console.acts import acts_of, log
from server.console.overview import overview
from server.console.runs import one_round, run, runs
from server.console.sites import site, sites
from server.console.sources import Sources
from server.home import Home

TEMPLATES = Path(__file__).parent / "templates"


def console_of(home: Home) -> Console:
    sources = Sources.of(home)
    pages = [
        ("/", overview, "Overview"),
        ("/sites", sites, "Sites"),
        ("/sites/{site}", site, ""),
        ("/runs", runs, "Runs"),
        ("/runs/{run}", run, ""),
        ("/runs/{run}/rounds/{number}", one_round, ""),
        ("/log", log, "Log"),
    ]
    return Console(
        kind="coordinator",
        name=home.config.name,
        title=home.config.title,
        config=home.config.console,
        folder=home.folder,
        accounts=accounts_of(home),
        templates=jinja2.FileSystemLoader(TEMPLATES),
        pages=[Page(path=path, show=partial(show, sources), menu=menu) for path, show, menu in pages],
        acts=acts_of(sources),
    )
