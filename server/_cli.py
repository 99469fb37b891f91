"""`rainhill coordinator`: what a consortium's operator does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rainhill.cli import stops_at_once
from rainhill.console._cli import add_account_commands
from rainhill.errors import CredentialError, RefusedError
from server._desk import Desk, File, Folder, echo_json, operator, registry_of
from server._names import known_sites
from server._runs_cli import begin, resume, run, status, stop
from server._watch_cli import watch
from server.console import ROLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rainhill.console.accounts import Accounts
    from rainhill.enrolment import SiteRequest
    from server.home import Home
    from server.registry import Site


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--home",
    type=Folder,
    default=Path("coordinator"),
    show_default=True,
    envvar="RAINHILL_COORDINATOR",
    show_envvar=True,
    help="The coordinator's folder.",
)
@click.pass_context
def coordinator(context: click.Context, home: Path) -> None:
    """A consortium's commands: which hospitals belong to it, and what they are asked."""
    context.obj = Desk(folder=home)


for command in (run, status, watch, begin, stop, resume):
    coordinator.add_command(command)


@coordinator.command()
@click.argument("name")
@click.option("--host", "hosts", multiple=True, required=True, help="Name or IP address that sites dial. May be given more than once.")
@click.option("--port", type=click.IntRange(1, 65535), default=9443, show_default=True, help="Port that sites dial.")
@click.option(
    "--private-port", type=click.IntRange(1, 65535), default=9444, show_default=True, help="On 127.0.0.1, for the coordinator itself."
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    default=9445,
    show_default=True,
    help="On 127.0.0.1, for Prometheus and health checks; 0 for none.",
)
@click.option(
    "--console-port",
    type=click.IntRange(0, 65535),
    default=9446,
    show_default=True,
    help="On 127.0.0.1, for operators' browsers, once `account add` lets somebody sign in; 0 for none.",
)
@click.option("--bind", default="0.0.0.0", show_default=True, help="Address of this machine to listen at.")  # noqa: S104
@click.option("--title", default="", help="The consortium's name as people write it.")
@click.option("--database", default="", metavar="URL", help="SQLAlchemy's URL, for PostgreSQL; a file in the folder where not given.")
@click.option(
    "--tls", type=Folder, metavar="FOLDER", help="Holds ca.crt, server.crt and server.key of the consortium's own, instead of new ones."
)
@click.pass_obj
def init(
    desk: Desk,
    name: str,
    hosts: tuple[str, ...],
    port: int,
    private_port: int,
    metrics_port: int,
    console_port: int,
    bind: str,
    title: str,
    database: str,
    tls: Path | None,
) -> None:
    """Make a coordinator for the consortium NAME: its file, its keys, a certificate authority and a TLS certificate."""
    from datetime import UTC, datetime

    from server.authority import load_server
    from server.home import begin

    own = tls and load_server(tls / "ca.crt", tls / "server.crt", tls / "server.key", hosts=hosts, now=datetime.now(UTC))
    address = {"host": hosts[0], "more_hosts": list(hosts[1:]), "port": port, "bind": bind, "private_port": private_port}
    about = {"name": name, "title": title, "address": address, "database": {"url": database}, "metrics": {"port": metrics_port}}
    about["console"] = {"port": console_port}
    home = begin(desk.folder, about, own or None)
    click.echo(f"{home.folder}: the coordinator of {title or name}, for sites at {hosts[0]}:{port}")
    click.echo(f"Its key is {home.fingerprint}: sites compare this when they join.")
    click.echo("Next: `rainhill coordinator serve`, and `rainhill coordinator enrol` for each site's request.")


@coordinator.command()
@click.option("--json-logs", is_flag=True, help="One JSON object a line, for a log collector.")
@click.pass_obj
def serve(desk: Desk, json_logs: bool) -> None:
    """Run the coordinator, until Ctrl-C or SIGTERM."""
    from rainhill import logs

    home = desk.home()
    with stops_at_once():
        from server.serve import serve as keep_serving

    logs.to_stderr(as_json=json_logs)
    keep_serving(home, json_logs=json_logs)


@coordinator.command()
@click.argument("request_file", metavar="REQUEST", type=File)
@click.option("--fingerprint", help="What the hospital reads from its own screen; asked for where not given.")
@click.pass_obj
def enrol(desk: Desk, request_file: Path, fingerprint: str | None) -> None:
    """Take a site into the consortium, by the request that it made with `rainhill site init`."""
    registry, request = registry_of(desk.home()), _compared(request_file, fingerprint)
    site = registry.enrol(request, by=operator())
    click.echo(f"{site.name} is enrolled. Next: `rainhill coordinator bundle {site.name}`, for the hospital to join with.")


@coordinator.command()
@click.argument("request_file", metavar="REQUEST", type=File)
@click.option("--fingerprint", help="What the hospital reads from its own screen; asked for where not given.")
@click.pass_obj
def rotate(desk: Desk, request_file: Path, fingerprint: str | None) -> None:
    """Give a site new keys, by a new request of its own. The old ones are valid no more; nobody else's change."""
    registry, request = registry_of(desk.home()), _compared(request_file, fingerprint)
    site = registry.rotate(request, by=operator())
    click.echo(f"{site.name} has new keys. Next: `rainhill coordinator bundle {site.name}`, for the hospital to join with.")


@coordinator.command()
@click.argument("site", shell_complete=known_sites)
@click.option("--reason", required=True, help="Kept, and shown where the site is listed.")
@click.pass_obj
def revoke(desk: Desk, site: str, reason: str) -> None:
    """Take a site out of the consortium: from now on nothing of it is taken."""
    registry_of(desk.home()).revoke(site, reason=reason, by=operator())
    click.echo(f"{site} is revoked")


@coordinator.command()
@click.option("--ask", is_flag=True, help="Have each site in contact say what it runs and what its clock shows.")
@click.option("--json", "as_json", is_flag=True, help="For a script: a list of objects.")
@click.pass_obj
def sites(desk: Desk, ask: bool, as_json: bool) -> None:
    """List the sites, their keys, and who is in contact."""
    home = desk.home()
    known = registry_of(home).sites()
    contact = _contact(home, known)
    said = _greeted(home, known) if ask and contact else {}
    if as_json:
        echo_json([_described(site, contact) | ({"said": said.get(site.name)} if ask else {}) for site in known])
        return
    for site in known:
        about = _described(site, contact)
        click.echo(f"{site.name:20} {about['state']:10} {about['contact'] or '':10} {site.fingerprint}  {site.title}")
        if site.name in said:
            click.echo(f"{'':20} {' '.join(f'{name} {value}' for name, value in said[site.name].items())}")
    if not known:
        click.echo("no site is enrolled", err=True)


@coordinator.command()
@click.argument("site", shell_complete=known_sites)
@click.option("--out", type=File, metavar="FILE", help="SITE.bundle where not given.")
@click.option("--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="For so long it can be joined with.")
@click.option("--wheels", type=Folder, metavar="FOLDER", help="Wheels for a hospital without internet, packed along.")
@click.pass_obj
def bundle(desk: Desk, site: str, out: Path | None, days: int, wheels: Path | None) -> None:
    """Pack one file for a site: addresses, certificates, keys, base models."""
    from server.pack import pack

    home = desk.home()
    path = pack(home, registry_of(home), site, out=out or Path(f"{site}.bundle"), days=days, by=operator(), wheels=wheels)
    click.echo(f"{path}: {path.stat().st_size / 2**20:.1f} MiB. The hospital joins with `rainhill site join SITE.toml {path.name}`")
    click.echo(f"and compares the consortium's key: {home.fingerprint}")


@coordinator.command()
@click.pass_obj
def renew(desk: Desk) -> None:
    """Make a new TLS certificate by the same authority. Sites notice nothing; `serve` takes it when it is started again."""
    from datetime import UTC, datetime

    from server.chain import days_left
    from server.home import renew as renewed

    home = desk.home()
    server = renewed(home)
    registry_of(home).note("renew", home.config.name, by=operator())
    click.echo(f"{home.certificate}: valid for {days_left(server.certificate, datetime.now(UTC))} days")


@coordinator.command()
@click.option("--json", "as_json", is_flag=True, help="For a script: a list of objects.")
@click.pass_obj
def log(desk: Desk, as_json: bool) -> None:
    """Tell what operators did, and when."""
    events = registry_of(desk.home()).events()
    if as_json:
        echo_json(
            [
                {"time": event.time.isoformat(), "by": event.by, "what": event.what, "subject": event.subject, **event.detail}
                for event in events
            ]
        )
        return
    for event in events:
        click.echo(f"{event.time:%Y-%m-%d %H:%M:%S} UTC  {event.by}: {event.what} {event.subject}  {' '.join(event.detail.values())}")


@coordinator.group()
def account() -> None:
    """Who may sign in to the console, which `serve` serves once there is an account."""


def _accounts(context: click.Context) -> Accounts:
    with stops_at_once():
        from server.console.accounts import accounts_of

    desk = context.find_object(Desk)
    assert desk is not None
    return accounts_of(desk.home())


add_account_commands(account, ROLES, _accounts)


def _compared(request_file: Path, fingerprint: str | None) -> SiteRequest:
    """The request, once somebody has compared its key by another way than it came."""
    from rainhill import signed
    from rainhill.enrolment import opened_request

    try:
        request = opened_request(request_file.read_bytes())
    except CredentialError as error:
        # Not which key it bears: that is for the telephone.
        raise CredentialError(f"{request_file}: is no request of a site, or was changed on its way") from error
    own = signed.fingerprint(bytes.fromhex(request.signing_key))
    click.echo(f"{request.name} ({request.title}), made {request.made:%Y-%m-%d %H:%M} UTC with {request.software}")
    if fingerprint is None:
        if not sys.stdin.isatty():
            raise RefusedError(f"{request.name}: give --fingerprint, as the hospital reads it to you")
        fingerprint = click.prompt("Have the hospital read its fingerprint to you, and type it here")
    if fingerprint.strip().lower() != own:
        # Its own is not said: it would be typed from the screen.
        raise RefusedError(f"{request.name}: {fingerprint.strip()} is not the fingerprint of this request: it was changed, or is another's")
    return request


def _contact(home: Home, known: Sequence[Site]) -> dict[str, bool] | None:
    """Whether each site is connected; None, and why, where the SuperLink does not answer."""
    import httpx

    from server.flower.link import connected
    from server.serve import link_of

    try:
        return connected(link_of(home), {site.name: site.node_key.encode() for site in known if site.revoked is None})
    except (httpx.HTTPError, OSError) as error:
        click.echo(f"who is in contact is not known: the SuperLink at {link_of(home).address} does not answer ({error})", err=True)
        return None


def _greeted(home: Home, known: Sequence[Site]) -> dict[str, dict[str, object]]:
    from server.flower.greet import Greeted, greet
    from server.serve import link_of

    found = greet(link_of(home), {site.name: site for site in known if site.revoked is None})
    return {
        name: {"software": said.software, "protocols": list(said.protocols), "clock_ahead_s": round(said.ahead_s, 1)}
        if isinstance(said, Greeted)
        else {"problem": said}
        for name, said in found.items()
    }


def _described(site: Site, contact: dict[str, bool] | None) -> dict[str, object]:
    state = "revoked" if site.revoked else "enrolled"
    return {
        "name": site.name,
        "title": site.title,
        "state": state,
        "contact": None if contact is None or site.revoked else "connected" if contact.get(site.name) else "away",
        "fingerprint": site.fingerprint,
        "software": site.software,
        "protocols": list(site.protocols),
        "enrolled": site.enrolled.isoformat(),
        "keys_since": site.since.isoformat(),
        "revoked": site.revoked.isoformat() if site.revoked else None,
        "reason": site.reason,
    }
