"""Who may sign in to the operator's console."""

from rainhill.console.accounts import Accounts
from server.console import ROLES
from server.home import Home


def accounts_of(home: Home) -> Accounts:
    return Accounts(path=home.folder / "accounts.json", roles=ROLES)


def wanted(home: Home) -> bool:
    """Whether there is a console to serve: it has a port, and somebody may sign in."""
    return accounts_of(home).let_anybody_in(home.config.console)
