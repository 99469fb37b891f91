"""Who may sign in to the site's console, for the role admin. A password is never shown, and not written into any log."""

from collections.abc import Mapping
from threading import Lock

from client.console import ADMIN, GOVERNANCE, VIEWER
from client.console.site import Site
from rainhill.console.accounts import Accounts
from rainhill.console.frame import Act, Done, Page, Shown, Visitor
from rainhill.errors import RefusedError
from rainhill.listening import OidcConfig

WORDS = {
    VIEWER: "looks, and decides nothing",
    GOVERNANCE: "decides what the site takes part in and what leaves it",
    ADMIN: "looks after the daemon and these accounts, and does not decide",
}


def pages(site: Site) -> list[Page]:
    def all_accounts(visitor: Visitor, asked: Mapping[str, str]) -> Shown:  # noqa: ARG001 - as all pages are called
        about = {"accounts": list(site.accounts.all().values()), "roles": WORDS, "oidc": site.home.config.console.oidc}
        return site.page("accounts.html.j2", "Accounts", about)

    def one(visitor: Visitor, asked: Mapping[str, str]) -> Shown:  # noqa: ARG001
        site.accounts.role_of(asked["name"])
        return site.page("account.html.j2", f"Account {asked['name']}", {"account": site.accounts.all()[asked["name"]], "roles": WORDS})

    return [
        Page(path="/accounts", show=all_accounts, menu="Accounts", roles=(ADMIN,)),
        Page(path="/accounts/{name}", show=one, roles=(ADMIN,)),
    ]


def acts(site: Site) -> list[Act]:
    people = People(site.accounts, site.home.config.console.oidc, site.one_at_a_time)
    return [
        Act(path="/accounts", do=people.add, roles=(ADMIN,), back="/accounts"),
        Act(path="/accounts/{name}/role", do=people.change_role, roles=(ADMIN,), back="/accounts/{name}"),
        Act(path="/accounts/{name}/password", do=people.change_password, roles=(ADMIN,), back="/accounts/{name}"),
        Act(path="/accounts/{name}/remove", do=people.remove, roles=(ADMIN,), back="/accounts/{name}"),
    ]


class People:
    def __init__(self, accounts: Accounts, oidc: OidcConfig | None, one_at_a_time: Lock) -> None:
        self._accounts, self._one_at_a_time = accounts, one_at_a_time
        self._others = oidc is not None and ADMIN in oidc.roles.values()
        """Whether somebody without an account here may be admin."""

    def add(self, visitor: Visitor, form: Mapping[str, str]) -> Done:  # noqa: ARG002 - as all acts are called
        name, role = form.get("name", "").strip(), form.get("role", "")
        self._accounts.add(name, role=role, password=_password(form))
        return Done(to="/accounts", words=f"{name} may sign in, as {role}")

    def change_role(self, visitor: Visitor, form: Mapping[str, str]) -> Done:  # noqa: ARG002
        name, role = form["name"], form.get("role", "")
        with self._one_at_a_time:
            if role != ADMIN:
                self._keep_an_admin(name)
            self._accounts.change_role(name, role)
        return Done(to="/accounts", words=f"{name} is {role}, and has to sign in again")

    def change_password(self, visitor: Visitor, form: Mapping[str, str]) -> Done:  # noqa: ARG002
        name = form["name"]
        self._accounts.change_password(name, _password(form))
        return Done(to="/accounts", words=f"{name} has another password, and has to sign in again")

    def remove(self, visitor: Visitor, form: Mapping[str, str]) -> Done:  # noqa: ARG002
        name = form["name"]
        with self._one_at_a_time:
            self._keep_an_admin(name)
            self._accounts.remove(name)
        return Done(to="/accounts", words=f"{name} may sign in no more")

    def _keep_an_admin(self, name: str) -> None:
        """RefusedError where nobody would be left who looks after the accounts."""
        admins = {one.name for one in self._accounts.all().values() if one.role == ADMIN}
        if admins == {name} and not self._others:
            raise RefusedError(f"account {name}: is the only one with role {ADMIN}; give somebody else that role first")


def _password(form: Mapping[str, str]) -> str:
    password = form.get("password", "")
    if password != form.get("again", ""):
        raise RefusedError("the two passwords are not the same")
    return password
