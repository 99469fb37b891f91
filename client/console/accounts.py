"""Who may sign in to a site's console."""

from client.console import ROLES
from client.home import SiteHome
from rainhill.console.accounts import Accounts


def accounts_of(home: SiteHome) -> Accounts:
    return Accounts(path=home.state / "accounts.json", roles=ROLES)


def wanted(home: SiteHome) -> bool:
    """Whether there is a console to serve: it has a port, and somebody may sign in."""
    return accounts_of(home).let_anybody_in(home.config.console)
