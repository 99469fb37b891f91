"""docker-compose.yml, the images and the script that its demo begins with, looked at without a Docker engine."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from rainhill import cli
from tests.sites.peers import COMMAND, run
from tests.sites.phantoms import PATIENTS, small

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
PUBLISHED = {"coordinator": ["9443:9443", "127.0.0.1:9090:9090"], "grafana": ["127.0.0.1:3000:3000"], "site": ["127.0.0.1:9447:9447"]}
"""All that is opened; docs/operators.md has the same table, and docs/hospital-it.md what is a site's."""
DOCKERFILES = ("deploy/Dockerfile.coordinator", "deploy/Dockerfile.site")


def known(command: list[str]) -> None:
    """Help is given only where every word and every option before it is known."""
    done = CliRunner().invoke(cli.rainhill, [*command[1:], "--help"])
    assert command[0] == "rainhill" and done.exit_code == 0, f"{command}: {done.output}"


def test_the_help_of_a_command_that_there_is_not_is_refused() -> None:
    for wrong in (["rainhill", "coordinator", "sreve"], ["rainhill", "site", "serve", "x.toml", "--jsonlogs"]):
        with pytest.raises(AssertionError):
            known(wrong)


def test_there_are_three_profiles_and_nothing_outside_them() -> None:
    assert {profile for service in SERVICES.values() for profile in service["profiles"]} == {"coordinator", "site", "demo"}
    demo = {name for name, service in SERVICES.items() if "demo" in service["profiles"]}
    assert {"coordinator", "database", "prometheus", "grafana", "bury", "manchester", "oldham"} <= demo
    for name, service in SERVICES.items():
        needed = service.get("depends_on", {})
        for other in needed:
            required = not isinstance(needed, dict) or needed[other].get("required", True)
            assert not required or set(service["profiles"]) <= set(SERVICES[other]["profiles"]), f"{name} needs {other}"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_rights_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    user, group = service["user"].split(":")
    assert int(user) > 0 and int(group) > 0
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & service.keys()
    assert service.get("network_mode") == ("service:coordinator" if name == "prometheus" else None)
    assert service.get("ports", []) == PUBLISHED.get(name, [])
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))


def test_what_is_published_is_what_the_guides_say() -> None:
    for name, ports in PUBLISHED.items():
        text = (ROOT / "docs" / ("hospital-it.md" if name == "site" else "operators.md")).read_text()
        for port in ports:
            assert f"`{port}`" in text, port


@pytest.mark.parametrize("name", SERVICES)
def test_networks_volumes_and_files_of_a_service_are_there(name: str) -> None:
    service = SERVICES[name]
    assert ("networks" in service) != ("network_mode" in service)
    assert set(service.get("networks", [])) <= COMPOSE["networks"].keys()
    for volume in service.get("volumes", []):
        source = volume.rsplit("}", 1)[0] if volume.startswith("$") else volume.split(":")[0]
        if source.startswith("./"):
            assert (ROOT / source).exists(), source
        elif not source.startswith("$"):
            assert source in COMPOSE["volumes"], source


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "rainhill" in service["image"]])
def test_a_service_runs_commands_that_rainhill_knows(name: str) -> None:
    service = SERVICES[name]
    if service["command"][0] == "sh":
        assert (name, service["command"]) == ("demo", ["sh", "/demo.sh"])
        return
    known(service["command"])
    test = service["healthcheck"]["test"]
    assert test[0] == "CMD"
    if test[1] == "rainhill":
        known(test[1:])
    else:
        # A coordinator's metrics are at port 9445 unless its file says otherwise.
        assert re.findall(r"http://\S+?(?=')", test[-1]) == ["http://127.0.0.1:9445/healthz"]
        compile(test[-1], "healthcheck", "exec")


@pytest.mark.parametrize("path", DOCKERFILES)
def test_an_image_runs_a_command_that_rainhill_knows_as_nobody_in_particular(path: str) -> None:
    lines = (ROOT / path).read_text().splitlines()
    (user,) = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert user == "10001:10001" and {service["user"] for service in SERVICES.values() if "rainhill" in service["image"]} == {user}
    (command,) = [line.removeprefix("CMD ") for line in lines if line.startswith("CMD ")]
    known(yaml.safe_load(command))
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for copied in (word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]):
        assert copied == "." or (copied in allowed and (ROOT / copied).exists()), copied


def test_what_a_coordinator_needs_is_asked_for_as_the_project_does() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["postgresql"]]
    wanted = [line for line in (ROOT / "deploy" / "coordinator.txt").read_text().splitlines() if not line.startswith("#")]
    assert set(wanted) <= {one.replace("[simulation]", "") for one in asked}
    assert not any(name in line for line in wanted for name in ("torch", "pydicom", "simulation"))


def test_the_demo_is_set_up_by_its_script_up_to_a_run_that_waits_to_be_approved(tmp_path: Path) -> None:
    hub, demo = tmp_path / "hub", tmp_path / "demo"
    hub.mkdir()
    demo.mkdir()
    places = {
        "RAINHILL_HUB": str(hub),
        "RAINHILL_DEMO": str(demo),
        "RAINHILL_RECIPE": str(ROOT / "sites/recipes/rehearsal.toml"),
        "RAINHILL_SITES": str(small(tmp_path / "sites")),
        "RAINHILL_CACHE": str(tmp_path / "cache"),
        "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}",
    }
    command = ["sh", str(ROOT / "deploy" / "demo.sh")]
    done = subprocess.run(command, env={**os.environ, **places}, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rehearsal: recipe rehearsal, " in done.stdout and "is offered to 3 sites: bury, manchester, oldham" in done.stdout
    for name in (site for site in PATIENTS if "/" not in site):
        assert "Demo" in run("site", "status", f"{name}.toml", cwd=demo / name).stdout
        assert SERVICES[name]["working_dir"] == f"/demo/{name}" and SERVICES[name]["command"][-1] == f"{name}.toml"
    again = subprocess.run(command, env={**os.environ, **places}, capture_output=True, text=True, timeout=60, check=False)
    assert (again.returncode, again.stdout) == (0, "the demo is set up already\n")
    (demo / "ready").unlink()
    cut = subprocess.run(command, env={**os.environ, **places}, capture_output=True, text=True, timeout=60, check=False)
    assert cut.returncode == 2 and "begin again" in cut.stderr


@pytest.mark.parametrize("unit", ["rainhill-coordinator.service", "rainhill-site@.service"])
def test_a_unit_is_one_that_systemd_takes_and_calls_safe(unit: str, tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "systemd" / unit).read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    program, *arguments = shlex.split(command)
    known([Path(program).name, *arguments])
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes", "CapabilityBoundingSet=", "StateDirectoryMode=0700"):
        assert line in text.splitlines(), line
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    path = tmp_path / unit.replace("@.", "@bury.")
    # It looks whether the program is there.
    path.write_text(text.replace(program, COMMAND))
    done = subprocess.run([analyze, "verify", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and str(path) not in done.stderr, done.stderr
    exposure = [analyze, "security", "--offline=true", "--threshold=20", "--no-pager", str(path)]
    done = subprocess.run(exposure, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_python_of_the_images_is_the_one_of_the_tests() -> None:
    for path in DOCKERFILES:
        assert f"FROM python:{sys.version_info.major}.{sys.version_info.minor}-slim-bookworm" in (ROOT / path).read_text()
