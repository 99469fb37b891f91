"""`rainhill site`: what a hospital does on its own machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client._asked_cli import COMMANDS
from client.console import ROLES
from client.privacy._cli import privacy
from rainhill.cli import stops_at_once
from rainhill.console._cli import add_account_commands
from rainhill.errors import RefusedError

if TYPE_CHECKING:
    from client.home import SiteHome
    from rainhill.console.accounts import Accounts

FAILED = 1
File = click.Path(path_type=Path, dir_okay=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def site() -> None:
    """A hospital's own commands. SITE.toml is its own file."""


for command in (privacy, *COMMANDS):
    site.add_command(command)
Site = click.argument("site_file", metavar="SITE.toml", type=File)


@site.command()
@Site
@click.option("--out", type=File, metavar="FILE", help="The request; NAME.request where not given.")
@click.option("--rotate", is_flag=True, help="Make new keys in place of those that there are, which are kept beside.")
@click.option("--again", is_flag=True, help="Only write the request again, with the keys that there are.")
def init(site_file: Path, out: Path | None, rotate: bool, again: bool) -> None:
    """Make the site's keys, which never leave, and a request for the coordinator, which may be sent by mail."""
    from client.home import begin, request_of
    from rainhill import signed
    from rainhill.files import write_whole

    if rotate and again:
        raise click.UsageError("--rotate and --again exclude one another")
    home = _home(site_file)
    request = request_of(home) if again else begin(home, rotate=rotate)
    path = out or Path(f"{home.config.name}.request")
    try:
        write_whole(path, request)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; the keys are made: --again writes the request again", str(path)) from error
    click.echo(f"{path}: send this to the coordinator's operator, who will ask you for this site's fingerprint by telephone:")
    click.echo(signed.fingerprint(home.identity().signing_public))


@site.command()
@Site
@click.argument("bundle_file", metavar="BUNDLE", type=File)
@click.option("--fingerprint", help="The consortium's key, as the operator reads it to you; asked for where not given.")
def join(site_file: Path, bundle_file: Path, fingerprint: str | None) -> None:
    """Join a consortium by the bundle that its operator made for this site."""
    from client.home import join as joined
    from client.status import is_running

    home = _home(site_file)
    if fingerprint is None:
        if not sys.stdin.isatty():
            raise RefusedError(f"{bundle_file}: give --fingerprint, as the consortium's operator reads it to you")
        fingerprint = click.prompt("Have the operator read the consortium's fingerprint to you, and type it here")
    bundle = joined(home, bundle_file, expect=fingerprint.strip().lower())
    click.echo(f"{home.config.name} belongs to {bundle.title or bundle.consortium}, at {bundle.coordinator.host}:{bundle.coordinator.port}")
    if is_running(home):
        click.echo("The daemon that is running has what was before: start it again.")
    else:
        click.echo("Next: `rainhill site check`, then `rainhill site serve`.")


@site.command()
@Site
@click.option("--json", "as_json", is_flag=True, help="For a script: a list of {name, ok, found, remedy}.")
def check(site_file: Path, as_json: bool) -> None:
    """Look whether all is ready: keys, data, ledger, disk, bundle, the way to the coordinator, the clock. Exit code 1 where not."""
    from dataclasses import asdict

    from client.checks import checks

    found = checks(_home(site_file))
    if as_json:
        _echo_json([asdict(one) for one in found])
    else:
        for one in found:
            click.echo(f"{'ok    ' if one.ok else 'FAILED'} {one.name}: {one.found}")
            if one.remedy:
                click.echo(f"       {one.remedy}")
    if not all(one.ok for one in found):
        sys.exit(FAILED)


@site.command()
@Site
@click.option("--json-logs", is_flag=True, help="One JSON object a line, for a log collector.")
def serve(site_file: Path, json_logs: bool) -> None:
    """Run the site's daemon, until Ctrl-C or SIGTERM. It dials out; but for a console and metrics nothing listens."""
    from rainhill import logs

    home = _home(site_file)
    with stops_at_once():
        from client.serve import serve as run

    logs.to_stderr(as_json=json_logs)
    run(home, json_logs=json_logs)


@site.command()
@Site
@click.option("--json", "as_json", is_flag=True, help="For a script: one object.")
def status(site_file: Path, as_json: bool) -> None:
    """Tell what this site belongs to, and whether its daemon is in contact."""
    from client.status import status_of

    found = status_of(_home(site_file))
    if as_json:
        _echo_json(found)
        return
    for name, value in found.items():
        click.echo(f"{name.replace('_', ' '):14} {'-' if value is None else value}")


@site.command()
@Site
@click.confirmation_option(prompt="Forget the consortium? Keys and ledger stay.")
def leave(site_file: Path) -> None:
    """Leave the consortium: forget its bundle. Its operator revokes the site besides."""
    from client.home import leave as left
    from rainhill.files import held

    home = _home(site_file)
    home.bundle()
    with held(home.lock, f"the daemon of {home.config.name}"):
        bundle = left(home)
    click.echo(f"{home.config.name} belongs to {bundle.title or bundle.consortium} no more; have its operator revoke the site")


@site.group()
@Site
@click.pass_context
def account(context: click.Context, site_file: Path) -> None:
    """Who may sign in to the site's console, which `serve` serves once there is an account."""
    context.obj = site_file


def _accounts(context: click.Context) -> Accounts:
    with stops_at_once():
        from client.console.accounts import accounts_of

    return accounts_of(_home(context.obj))


add_account_commands(account, ROLES, _accounts)


def _home(site_file: Path) -> SiteHome:
    with stops_at_once():
        from client.home import SiteHome

    return SiteHome.open(site_file)


def _echo_json(document: object) -> None:
    import json

    click.echo(json.dumps(document, indent=1))
