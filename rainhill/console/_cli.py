"""`account`: who may sign in to a console. The same commands for the coordinator's and for a site's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from rainhill.errors import RefusedError

if TYPE_CHECKING:
    from rainhill.console.accounts import Accounts


def add_account_commands(group: click.Group, roles: Sequence[str], accounts: Callable[[click.Context], Accounts]) -> None:
    """`accounts` gives those of the console that the command line names."""
    role = click.option("--role", type=click.Choice(list(roles)), required=True, help="What the account may do.")
    stdin = click.option("--password-stdin", is_flag=True, help="Read the password from the first line of stdin, for a script.")

    @group.command()
    @click.argument("name")
    @role
    @stdin
    @click.pass_context
    def add(context: click.Context, name: str, role: str, password_stdin: bool) -> None:
        """Let somebody sign in: an account NAME with a password, which is asked for."""
        known = accounts(context)
        if name in known.all():
            raise RefusedError(f"account {name}: is there already, with role {known.all()[name].role}")
        known.add(name, role=role, password=_password(password_stdin))
        click.echo(f"{name} may sign in, as {role}")

    @group.command()
    @click.argument("name")
    @stdin
    @click.pass_context
    def password(context: click.Context, name: str, password_stdin: bool) -> None:
        """Give NAME another password. Whoever is signed in as NAME has to sign in again."""
        known = accounts(context)
        known.role_of(name)
        known.change_password(name, _password(password_stdin))
        click.echo(f"{name} has another password")

    @group.command("role")
    @click.argument("name")
    @role
    @click.pass_context
    def change_role(context: click.Context, name: str, role: str) -> None:
        """Let NAME do other things. Whoever is signed in as NAME has to sign in again."""
        accounts(context).change_role(name, role)
        click.echo(f"{name} is {role}")

    @group.command()
    @click.argument("name")
    @click.pass_context
    def remove(context: click.Context, name: str) -> None:
        """Let NAME sign in no more; whoever is signed in as NAME is so no more."""
        accounts(context).remove(name)
        click.echo(f"{name} may sign in no more")

    @group.command("list")
    @click.option("--json", "as_json", is_flag=True, help="For a script: a list of objects.")
    @click.pass_context
    def list_(context: click.Context, as_json: bool) -> None:
        """List who may sign in."""
        import json

        known = accounts(context).all().values()
        if as_json:
            click.echo(json.dumps([{"name": one.name, "role": one.role, "changed": one.changed} for one in known], indent=1))
            return
        for one in known:
            click.echo(f"{one.name:30} {one.role:12} since {one.changed[:10]}")
        if not known:
            click.echo("nobody may sign in", err=True)


def _password(from_stdin: bool) -> str:
    """Never from the command line, which others on the machine may read."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise RefusedError("a password is typed at a terminal; a script gives it with --password-stdin")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
