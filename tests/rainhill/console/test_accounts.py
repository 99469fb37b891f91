"""Accounts of a console: kept as hashes, changed by the commands, and refused by name."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rainhill.console.accounts import SHORTEST, Accounts
from rainhill.console.sessions import IDLE_S, MOST, UNSIGNED_S, Session, Sessions, Unsigned
from rainhill.console.throttle import LONGEST_S, Throttle
from rainhill.errors import CredentialError, RefusedError

COMMAND = str(Path(sys.executable).parent / "rainhill")
PASSWORD = "correct horse battery"


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    return Accounts(path=tmp_path / "accounts.json", roles=("viewer", "operator"))


def test_a_password_is_kept_as_a_hash_that_only_its_owner_may_read(accounts: Accounts) -> None:
    accounts.add("ada", role="viewer", password=PASSWORD)
    accounts.add("bob", role="viewer", password=PASSWORD)
    text = accounts.path.read_text()
    hashes = [one["hash"] for one in json.loads(text)]
    assert PASSWORD not in text
    assert all(one.startswith("$argon2id$v=19$m=65536,t=3,p=4$") for one in hashes) and hashes[0] != hashes[1]
    assert stat.S_IMODE(accounts.path.stat().st_mode) == 0o600
    found = accounts.verified("ada", PASSWORD)
    assert found is not None and (found.name, found.role) == ("ada", "viewer")
    assert accounts.verified("ada", PASSWORD + " ") is None
    assert accounts.verified("nobody", PASSWORD) is None


@pytest.mark.parametrize(
    ("name", "role", "password", "words"),
    [
        ("Ada", "viewer", PASSWORD, "account 'Ada': a name is"),
        ("../ada", "viewer", PASSWORD, "a name is"),
        ("ada", "operater", PASSWORD, "role 'operater': there is none, did you mean 'operator'"),
        ("ada", "viewer", "x" * (SHORTEST - 1), f"the password has {SHORTEST - 1} characters; {SHORTEST} to 200 are asked"),
        ("ada", "viewer", "abababababababab", "made of 2 different characters"),
        ("margaret", "viewer", "Margaret-2026", "holds the account's name"),
    ],
)
def test_what_cannot_be_an_account_is_refused_by_name(accounts: Accounts, name: str, role: str, password: str, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        accounts.add(name, role=role, password=password)
    assert not accounts.path.exists()


def test_a_name_that_is_taken_or_not_there_is_told(accounts: Accounts) -> None:
    accounts.add("ada", role="viewer", password=PASSWORD)
    with pytest.raises(RefusedError, match="account ada: is there already, with role viewer"):
        accounts.add("ada", role="operator", password=PASSWORD)
    with pytest.raises(RefusedError, match="account adda: there is none, did you mean 'ada'"):
        accounts.change_role("adda", "viewer")
    with pytest.raises(RefusedError, match="account adda: there is none"):
        accounts.remove("adda")
    assert accounts.verified("ada", PASSWORD) is not None


def test_accounts_that_others_may_read_or_that_are_none_are_not_taken(accounts: Accounts) -> None:
    accounts.add("ada", role="viewer", password=PASSWORD)
    accounts.path.chmod(0o644)
    with pytest.raises(CredentialError, match="has mode 644, not 600"):
        accounts.all()
    accounts.path.chmod(0o600)
    accounts.path.write_text("[{}]")
    with pytest.raises(CredentialError, match="is no list of accounts"):
        accounts.all()


def test_the_commands_add_change_list_and_remove(tmp_path: Path) -> None:
    def account(*arguments: str, text: str = "", code: int = 0) -> str:
        command = [COMMAND, "coordinator", "--home", str(tmp_path / "hub"), "account", *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    subprocess.run([COMMAND, "coordinator", "--home", str(tmp_path / "hub"), "init", "test", "--host", "localhost"], check=True)
    assert "nobody may sign in" in account("list")
    assert "a script gives it with --password-stdin" in account("add", "ada", "--role", "viewer", code=2)
    assert "the password has 5 characters" in account("add", "ada", "--role", "viewer", "--password-stdin", text="short\n", code=2)
    account("add", "ada", "--role", "viewer", "--password-stdin", text=PASSWORD + "\n")
    account("role", "ada", "--role", "operator")
    account("password", "ada", "--password-stdin", text="another " + PASSWORD + "\n")
    assert "account eve: there is none" in account("password", "eve", "--password-stdin", text=PASSWORD, code=2)
    assert [(one["name"], one["role"]) for one in json.loads(account("list", "--json"))] == [("ada", "operator")]
    known = Accounts(path=tmp_path / "hub" / "accounts.json", roles=("operator",))
    assert known.verified("ada", "another " + PASSWORD) is not None
    account("remove", "ada")
    assert "nobody may sign in" in account("list")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_of_too_many_sessions_the_one_that_was_idle_longest_gives_way() -> None:
    clock = Clock()
    sessions, tokens = Sessions(clock), []
    for _ in range(MOST + 1):
        clock.now += 0.1
        tokens.append(sessions.begin(Session(name="ada")))
    assert sessions.find(tokens[0]) is None and sessions.find(tokens[1]) is not None
    clock.now += IDLE_S
    assert sessions.find(tokens[1]) is None


def test_a_session_of_nobody_is_the_browsers_to_keep_and_not_to_make_or_to_read() -> None:
    clock = Clock()
    unsigned, before = Unsigned(clock), Session(after="/asked/spring", notes={"state": "4" * 32})
    token = unsigned.sealed(before)
    assert before.csrf not in token and "spring" not in token
    again = unsigned.opened(token)
    assert again is not None and (again.csrf, again.after, again.notes, again.name) == (before.csrf, before.after, before.notes, "")
    changed = token[:40] + ("A" if token[40] != "A" else "B") + token[41:]
    assert [unsigned.opened(one) for one in ("", "x", "é", changed, Unsigned(clock).sealed(before))] == [None] * 5
    clock.now += UNSIGNED_S + 1
    assert unsigned.opened(token) is None
    # A browser takes no cookie of more than 4,096 characters.
    long = unsigned.sealed(Session(after="/" + "x" * 60_000))
    found = unsigned.opened(long)
    assert len(long) < 2000 and found is not None and found.after == "/"


def test_a_wait_doubles_with_each_wrong_password_and_ends() -> None:
    clock = Clock()
    throttle, waits = Throttle(clock), []
    for _ in range(14):
        throttle.failed("ada")
        waits.append(throttle.wait_s("ada"))
        clock.now += waits[-1]
        assert throttle.wait_s("ada") == 0
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, LONGEST_S, LONGEST_S, LONGEST_S, LONGEST_S]
    assert throttle.wait_s("bob") == 0
    throttle.succeeded("ada")
    throttle.failed("ada")
    assert throttle.wait_s("ada") == 0
