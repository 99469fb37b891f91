"""The consoles of running daemons: there once somebody may sign in, gone with the daemon, over https where they are told to."""

import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest

from rainhill.files import write_whole
from server.authority import new_authority, server_certificate
from tests.rainhill.console.test_pages import token
from tests.server.conftest import free_port
from tests.sites.peers import Consortium, until

PASSWORD = "correct horse battery\n"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Consortium]:
    made = Consortium(tmp_path, ["bury"])
    made.folders["bury"].mkdir()
    made.begin()
    try:
        yield made
    finally:
        made.end()


def set_console(file: Path, about: str) -> None:
    text = file.read_text().partition("[console]")[0]
    rest = file.read_text().partition("[bases]")
    file.write_text(f"{text}[console]\n{about}\n{rest[1]}{rest[2]}")


def console_of(daemon: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    return [
        one for one in psutil.Process(daemon.pid).children(recursive=True) if runs(one) and "console.process" in " ".join(one.cmdline())
    ]


def runs(process: psutil.Process) -> bool:
    """One that ended and was not yet waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def answers(url: str, **how: object) -> bool:
    try:
        return httpx.get(f"{url}/login", **how).is_success  # type: ignore[arg-type]
    except httpx.HTTPError:
        return False


def test_a_console_comes_with_the_first_account_and_goes_with_its_daemon(world: Consortium) -> None:
    hub, bury = free_port(), free_port()
    set_console(world.hub / "coordinator" / "coordinator.toml", f"port = {hub}")
    (world.folders["bury"] / "bury.toml").write_text(f'name = "bury"\ntitle = "Bury General"\n[console]\nport = {bury}\n')
    world.join("bury")
    world.serve("hub", "bury")
    address = {"hub": f"http://127.0.0.1:{hub}", "bury": f"http://127.0.0.1:{bury}"}
    assert until(lambda: world.coordinator("sites", "--json").stdout.count('"connected"') == 1), world.log()
    assert not console_of(world.running["hub"]) and not console_of(world.running["bury"])
    world.coordinator("account", "add", "ada", "--role", "operator", "--password-stdin", text=PASSWORD)
    world.site("bury", "account", "add", "gail", "--role", "governance", "--password-stdin", text=PASSWORD)
    assert until(lambda: all(answers(one) for one in address.values())), world.log()
    for name, who in (("hub", "ada"), ("bury", "gail")):
        with httpx.Client(base_url=address[name], headers={"Origin": address[name]}) as client:
            form = {"csrf": token(client.get("/login").text), "name": who, "password": PASSWORD.strip()}
            assert client.post("/login", data=form).headers["location"] == "/"
            assert who in client.get("/").text
    # One that is ended is started again; a daemon that is ended however leaves none behind.
    [first] = console_of(world.running["hub"])
    first.kill()
    assert until(lambda: bool(console_of(world.running["hub"])) and answers(address["hub"])), world.log()
    [second], [theirs] = console_of(world.running["hub"]), console_of(world.running["bury"])
    world.running["hub"].kill()
    world.stop("bury")
    assert until(lambda: not runs(second) and not runs(theirs), 20)


def test_beyond_its_own_machine_a_console_speaks_https_and_its_cookie_is_bound_to_it(world: Consortium) -> None:
    port, folder = free_port(), world.hub / "coordinator"
    authority = new_authority("north_west", days=2, now=datetime.now(UTC))
    made = server_certificate(authority, ["localhost"], days=1, now=datetime.now(UTC))
    write_whole(folder / "console.crt", made.certificate)
    write_whole(folder / "console.key", made.key, private=True)
    about = f'port = {port}\nbind = "0.0.0.0"\ncertificate = "console.crt"\nkey = "console.key"\nurl = "https://localhost:{port}"'
    set_console(folder / "coordinator.toml", about)
    world.coordinator("account", "add", "ada", "--role", "operator", "--password-stdin", text=PASSWORD)
    world.serve("hub")
    trust = ssl.create_default_context(cadata=authority.certificate.decode())
    assert until(lambda: answers(f"https://localhost:{port}", verify=trust)), world.log()
    with httpx.Client(base_url=f"https://localhost:{port}", verify=trust) as client:
        answer = client.get("/login")
    assert answer.headers["set-cookie"].startswith("__Host-rainhill-coordinator-north_west=") and "Secure" in answer.headers["set-cookie"]
    assert "max-age=31536000" in answer.headers["strict-transport-security"]
    assert not answers(f"http://localhost:{port}")
