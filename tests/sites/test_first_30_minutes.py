"""docs/first-30-minutes.md, followed: its commands, in its order, by an operator and three phantom hospitals."""

import json
import re
import shlex
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perf.new_site import lines_of
from rainhill.config import PolicyConfig, SiteConfig
from rainhill.toml import parse
from tests.server.conftest import free_port
from tests.sites.peers import COMMAND, here, run
from tests.sites.phantoms import small

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "first-30-minutes.md").read_text()
SITES = ("bury", "manchester", "oldham")
FINGERPRINT = re.compile(r"(?:[0-9a-f]{4}-){7}[0-9a-f]{4}")
LONG_S, LOOK_S = 1200.0, 3.0
"""For what takes a minute where the machine has nothing else to do; between two looks, which are commands."""


def commands() -> list[tuple[str, str]]:
    """(who, what is typed), in the order of the document."""
    lines = list(lines_of(TEXT))
    assert TEXT.count("```") == 2 * TEXT.count("```sh ") and len({line.part for line in lines}) == 8
    # The installation is what the test itself runs in; `python -m perf.new_site` follows that too.
    assert [line.who for line in lines[:3]] == ["install"] * 3
    return [(line.who, line.typed) for line in lines[3:]]


def wait_for(condition: Callable[[], bool]) -> bool:
    stop = time.monotonic() + LONG_S
    while not (holds := condition()) and time.monotonic() < stop:
        time.sleep(LOOK_S)
    return holds


class People:
    """Who types what the document says, each at a machine of its own: a folder."""

    def __init__(self, folder: Path) -> None:
        self.at = {name: folder / name for name in ("operator", *SITES)}
        for place in self.at.values():
            place.mkdir()
        (self.at["operator"] / "rainhill").symlink_to(ROOT)
        self.serving: list[subprocess.Popen[bytes]] = []
        self.told: dict[str, str] = {}
        self.printed: dict[str, str] = {}

    def type(self, who: str, line: str) -> None:
        words = shlex.split(line)
        if words[0] == "cd":
            self.at[who] /= words[1]
        elif words[0] == "cp":
            subprocess.run(words, cwd=self.at[who], check=True)
        elif "serve" in words:
            with (self.at[who] / "serve.log").open("w") as log:
                self.serving.append(subprocess.Popen([COMMAND, *words[1:]], cwd=self.at[who], stdout=log, stderr=log))
        else:
            self.before(words)
            here = ["localhost" if word == "rainhill.example.org" else word for word in words[1:]]
            self.printed[f"{who}: {line}"] = said = run(*here, *self.by_telephone(words), cwd=self.at[who]).stdout
            self.after(who, words, said)

    def before(self, words: list[str]) -> None:
        """What the document says to wait for."""
        if words[1:3] == ["coordinator", "run"]:
            assert wait_for(lambda: all(one["contact"] == "connected" for one in self.asked("coordinator", "sites"))), self.logs()
        if words[1:3] == ["site", "check"]:
            place = self.at[words[3].removesuffix(".toml")]
            # A site that was enrolled is known to the coordinator's daemon two seconds later, and nobody types that fast.
            assert wait_for(lambda: here(*words[1:], cwd=place).returncode == 0), self.logs()
        if words[1:3] == ["site", "pending"]:
            place = self.at[words[3].removesuffix(".toml")]
            assert wait_for(lambda: "asked by" in run(*words[1:2], "log", words[3], cwd=place).stdout), self.logs()
        if words[1:3] == ["coordinator", "status"]:
            assert wait_for(lambda: self.asked("coordinator", "status", "spring")["state"] == "finished"), self.logs()

    def by_telephone(self, words: list[str]) -> list[object]:
        """Fingerprints, which people read to each other; and this machine in place of the operator's."""
        match words[1:3]:
            case ["coordinator", "init"]:
                return ["--bind", "127.0.0.1", "--port", free_port(), "--private-port", free_port(), "--metrics-port", "0"]
            case ["coordinator", "enrol"]:
                return ["--fingerprint", self.told[words[3].removesuffix(".request")]]
            case ["site", "join"]:
                return ["--fingerprint", self.told["operator"]]
        return []

    def after(self, who: str, words: list[str], said: str) -> None:
        """What was made goes by mail."""
        if words[2] == "init":
            self.told[who] = FINGERPRINT.findall(said)[-1]
        for name in SITES:
            for file, start, end in ((f"{name}.request", name, "operator"), (f"{name}.bundle", "operator", name)):
                if words[2] in ("init", "bundle") and (self.at[start] / file).exists():
                    (self.at[start] / file).replace(self.at[end] / file)

    def asked(self, *words: str) -> object:
        return json.loads(run(*words, "--json", cwd=self.at["operator"]).stdout)

    def logs(self) -> str:
        return "".join((place / "serve.log").read_text() for place in self.at.values() if (place / "serve.log").exists())


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[People]:
    # The phantoms are drawn with fewer patients, and two cores are shared.
    monkeypatch.setenv("RAINHILL_SITES", str(small(tmp_path / "sites")))
    monkeypatch.setenv("RAINHILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = People(tmp_path)
    yield one
    for process in one.serving:
        process.send_signal(signal.SIGTERM)
    for process in one.serving:
        assert process.wait(60) == 0, one.logs()


def test_who_types_what_the_document_says_has_a_run_in_thirty_minutes(people: People) -> None:
    typed = commands()
    assert len(typed) == 21
    for who, line in typed:
        if who == "hospital":
            for site in SITES:
                people.type(site, line.replace("bury", site))
        elif "bury" in line:
            # The two of the telephone call belong together for each hospital, and either order does.
            for site in SITES:
                people.type("operator", line.replace("bury", site))
        else:
            people.type("operator", line)
    printed = people.printed
    assert "spring: finished" in printed["operator: rainhill coordinator status spring"]
    assert printed["operator: rainhill coordinator sites"].count("enrolled") == 3
    for site in SITES:
        assert "FAILED" not in printed[f"{site}: rainhill site check {site}.toml"]
        asked = printed[f"{site}: rainhill site pending {site}.toml"]
        assert "asked by" in asked and "at most 55296 numbers" in asked and "5 rounds of 2 steps" in asked
        log = printed[f"{site}: rainhill site log {site}.toml"]
        assert "spring: approved by Ada Lovelace" in log
        assert len(re.findall(r"spring round [1-5]: update [0-9a-f]{12} left for north_west", log)) == 5
        assert "5     10 of 10" in printed[f"{site}: rainhill site privacy {site}.toml"]
    status = json.loads(run("coordinator", "status", "spring", "--json", cwd=people.at["operator"]).stdout)
    assert [one["answered"] for one in status["rounds"]] == [list(SITES)] * 5
    assert (people.at["operator"] / "coordinator" / "adapters" / f"{status['result']}.safetensors").exists()
    assert "Traceback" not in people.logs()


def test_the_site_file_that_governance_is_shown_is_one() -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```$", (ROOT / "docs" / "governance.md").read_text(), re.MULTILINE | re.DOTALL)
    config = parse({"name": "bury", **tomllib.loads(block)}, SiteConfig, origin="docs/governance.md")
    # All that a policy can say is shown.
    assert config.policy.model_fields_set == PolicyConfig.model_fields.keys()


def test_every_document_that_is_named_is_there() -> None:
    for name in ("first-30-minutes", "governance", "operators", "hospital-it"):
        text = (ROOT / "docs" / f"{name}.md").read_text()
        for link in re.findall(r"\]\(([^)#:]+\.md)\)", text):
            assert (ROOT / "docs" / link).exists(), f"{name}.md: {link}"
