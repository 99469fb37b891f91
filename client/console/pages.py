"""The pages of a site's console, each from the module of its subject."""

from pathlib import Path

import jinja2

from client.console import asked, brought, held, left, overview, people, spent
from client.console.accounts import accounts_of
from client.console.runs import Runs
from client.console.site import Site
from client.console.spent import Spending
from client.home import SiteHome
from rainhill.console.frame import Console

TEMPLATES = Path(__file__).parent / "templates"


def console_of(home: SiteHome) -> Console:
    accounts = accounts_of(home)
    site = Site(home, accounts)
    runs, spending = Runs(site), Spending(site)
    return Console(
        kind="site",
        name=home.config.name,
        title=home.config.title,
        config=home.config.console,
        folder=home.file.parent,
        accounts=accounts,
        templates=jinja2.FileSystemLoader(TEMPLATES),
        pages=[
            *overview.pages(site, runs, spending),
            *asked.pages(site, runs),
            *held.pages(site),
            *left.pages(site),
            *spent.pages(site, spending),
            *brought.pages(site),
            *people.pages(site),
        ],
        acts=[*overview.acts(site), *asked.acts(site), *held.acts(site), *people.acts(site)],
    )
