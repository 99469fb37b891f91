"""What a governance lead sees and types: `rainhill site pending`, `approve`, `held` and so on, in one process."""

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from client._asked_text import WIDTH
from client._cli import site as command
from client.asked import asked
from client.egress import Door
from client.journal import Approved, Released, Withheld
from client.offers import Offers
from client.privacy.events import Charged, Members
from client.privacy.ledger import Ledger
from rainhill import cli
from rainhill.errors import CredentialError, LedgerError, RainhillError, RefusedError
from rainhill.recipe import Recipe
from tests.client.hospital import Asks, offers

PRIVACY = "[privacy]\nepsilon = 9\nepsilon_per_run = 7\nepsilon_per_year = 8\ndeclared_patients = 20\n"


def typed(file: Path, name: str, *arguments: object) -> Result:
    return CliRunner().invoke(command, [name, str(file), *map(str, arguments)], standalone_mode=False)


def told(file: Path, name: str, *arguments: object) -> str:
    done = typed(file, name, *arguments)
    assert done.exception is None, done.output
    assert max((len(line) for line in done.stdout.splitlines()), default=0) <= WIDTH
    return done.stdout


def words(text: str) -> str:
    return " ".join(text.split())


def refused(file: Path, name: str, *arguments: object) -> str:
    done = typed(file, name, *arguments)
    assert isinstance(done.exception, RainhillError | click.UsageError), done.output
    line = done.exception.format_message() if isinstance(done.exception, click.UsageError) else str(done.exception)
    assert "\n" not in line and line
    return line


@pytest.fixture
def file(site_file: Path, plain: Asks) -> Path:
    offers(site_file).take(plain.sealed())
    return site_file


@pytest.fixture
def held(file: Path, plain: Asks) -> Path:
    """Round 1 is trained, and waits."""
    with file.open("a") as text:
        text.write("[policy]\nhold = true\nmax_update_norm = 5\n")
    at, plan = offers(file), plain.plan()
    approved = at.approve("spring", by="Grace")
    Door(home=at.home, journal=at.journal).let_out(plan, at.offer("spring"), approved, plain.update(plan))
    return file


@pytest.fixture(scope="module")
def priced(_joined: Path, private: Asks, charge_all: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private run is asked of a site whose patients have spent something."""
    file = copytree(_joined.parent, tmp_path_factory.mktemp("priced") / "site") / "bury.toml"
    with file.open("a") as text:
        text.write(PRIVACY)
    charge_all(file)
    offers(file).take(private.sealed())
    return file


@pytest.fixture(scope="module")
def charge_all() -> Callable[[Path], None]:
    def charge(file: Path) -> None:
        home, sha = offers(file).home, "4" * 64
        home.pseudonym_key()
        members = Members.of([f"{one:016x}" for one in range(20)])
        about: dict[str, Any] = {"run": "winter", "recipe": sha, "round": 1, "cohort": "films", "what": "update", "members": members.digest}
        about |= {"noise_multiplier": 2.0, "sample_rate": 0.1, "steps": 4, "delta": 1e-5, "draw": sha, "plan": sha}
        Ledger.open(home.state, site="bury").append(members, Charged.model_validate(about))

    return charge


def test_what_is_asked_is_told_in_words(file: Path, plain: Asks) -> None:
    text = told(file, "pending")
    lines = {line[:15].strip(): line[16:] for line in text.splitlines() if line[:15].strip()}
    assert text.startswith("Run spring: A small world\n")
    assert lines["asked by"].startswith("ada of north_west, on 20") and "cannot be approved any more" in lines["answer by"]
    assert lines["state"] == "pending: waits for somebody at the site to approve it"
    assert lines["sites asked"] == "2: bury, oldham" and lines["learns"] == "findings: square, stripe"
    assert "films and reports stay here" in lines["your data"] and lines["work"] == "2 rounds of 4 steps"
    assert lines["recipe"] == f"sha256 {plain.recipe.sha256}"
    assert lines["what leaves"].startswith("26 tensors (") and "and 20 more): at most 930 numbers, " in words(text)
    assert lines["and beside it"].startswith("how many patients it trained on") and lines["privacy asked"] == "none"
    assert "nothing would be protected, and nothing accounted for" in words(text)
    assert lines["before"] == "no recipe of this name was approved here yet"


def test_each_epsilon_has_its_own_line_and_says_what_it_is_of(priced: Path) -> None:
    text = told(priced, "pending")
    lines = text.splitlines()
    rows = {
        line[:15].strip(): line[16:] + (f" {after[16:]}" if after.startswith(" ") else "")
        for line, after in zip(lines, [*lines[1:], ""], strict=True)
    }
    each = "per patient at delta 1e-05 (add or remove one patient), by"
    assert rows["privacy asked"].endswith(f"{each} this run as a whole; your file allows 7 in one run")
    assert rows["noise"].startswith("noise multiplier ") and rows["noise"].endswith("in each of 8 steps (2 rounds)")
    assert rows["spent before"].endswith(f"{each} the patient who has spent most in all runs so far")
    assert rows["spent after"].endswith(f"{each} the same patient with the whole of this run")
    assert rows["budget"].startswith("epsilon 9 for each patient, for good, in your file; ") and rows["budget"].endswith(" would remain")
    assert rows["in a year"].endswith(f"{each.removesuffix(', by')}, spent in the last 365 days by the patient who spent most in them")
    assert "with the whole of this run; your file allows 8 over any 365 days; " in words(text)
    assert "20 as its number of patients; no loss and no metric" in rows["and beside it"]
    (found,) = json.loads(told_json(priced, "pending"))
    cost = found["cost"]["cost"]
    assert cost["before"]["epsilon"] < cost["after"]["epsilon"] and cost["remaining"] == pytest.approx(9 - cost["after"]["epsilon"])
    assert found["allowed"] == 7 and found["refusals"] == []


def told_json(file: Path, name: str, *arguments: object) -> str:
    done = typed(file, name, *arguments, "--json")
    assert done.exception is None, done.output
    return done.stdout


def test_what_leaves_in_the_second_round_is_told_too(site_file: Path, plain: Asks, private: Asks) -> None:
    """`alternating` sends B and A in turn, SCAFFOLD the mean gradient besides."""
    at, tree = offers(site_file), plain.recipe.model_dump()
    turns = Recipe.model_validate(private.recipe.model_dump() | {"privacy": None})
    pushed = Recipe.model_validate(tree | {"strategy": {"rule": "fedavg", "server_optimizer": "scaffold"}})
    at.take(plain.sealed("turns", recipe=turns))
    at.take(plain.sealed("pushed", recipe=pushed))
    leaves = asked(at, "turns").leaves
    assert leaves is not None and leaves.in_turn and set(leaves.tensors) == set(plain.first)
    assert "some of them in one round and others in the next" in words(told(site_file, "pending"))
    leaves = asked(at, "pushed").leaves
    assert leaves is not None and not leaves.in_turn
    assert {name for name in leaves.tensors if name.startswith("gradient of ")} == {f"gradient of {name}" for name in plain.first}


def test_what_a_coordinator_wrote_moves_no_cursor_and_begins_no_line(file: Path, plain: Asks) -> None:
    title = "harmless\nstate           approved: by your governance lead\x1b[2J\x1b[1;1H" + "y" * 5000
    recipe = Recipe.model_validate(plain.recipe.model_dump() | {"name": "other", "title": title})
    offers(file).take(plain.sealed("autumn", recipe=recipe))
    text = told(file, "pending")
    assert "\x1b" not in text and "\nstate           approved" not in text and len(text) < 8000


def test_what_has_changed_since_the_last_approval_is_told_key_by_key(file: Path, plain: Asks) -> None:
    told(file, "approve", "spring", "--by", "Grace")
    tree = plain.recipe.model_dump()
    recipe = Recipe.model_validate(tree | {"rounds": tree["rounds"] | {"steps": 8}, "seed": 3})
    offers(file).take(plain.sealed("autumn", recipe=recipe))
    offers(file).take(plain.sealed("winter"))
    text = told(file, "pending")
    autumn, winter = text[text.index("Run autumn") : text.index("Run winter")], text[text.index("Run winter") :]
    changed = [line.strip() for line in autumn.split("changed:\n")[1].splitlines()[:2]]
    assert changed == ["rounds.steps: was 4, is 8", "seed: was 0, is 3"]
    assert "since then nothing has changed" in words(winter)
    assert "Run spring" not in text and "Run spring" in told(file, "pending", "--all")


def test_what_the_sites_file_does_not_allow_is_told_to_who_would_approve_it(file: Path, private: Asks) -> None:
    offers(file).take(private.sealed("autumn"))
    text = words(told(file, "pending", "--all"))
    assert "REFUSED epsilon 6 is asked, and the site's file has no [privacy] that says what patients may spend" in text
    assert "the site's own file does not allow it: epsilon 6 is asked" in refused(file, "approve", "autumn", "--by", "Grace")


def test_one_offer_that_is_odd_does_not_hide_the_others(file: Path, plain: Asks) -> None:
    odd = dict(plain.offer().tensors) | {"x.lora_A": (2, 3)}
    offers(file).take(plain.sealed("autumn", tensors=odd))
    (offers(file).home.offers / "rubbish.offer").write_bytes(b"rubbish")
    text = told(file, "pending", "--all")
    assert "Run spring" in text and "Run autumn" in text and "rubbish" not in text


def test_to_look_at_what_is_asked_writes_nothing(file: Path, plain: Asks) -> None:
    offers(file).approve("spring", by="Grace", repeats=1)
    offers(file).take(plain.sealed("autumn"))
    before = offers(file).journal.verify()
    for arguments in (("pending",), ("pending", "--all"), ("held",), ("log",), ("log", "--verify")):
        told_whole(file, *arguments)
    assert offers(file).journal.verify() == before


def test_a_run_is_approved_and_refused_by_somebody(file: Path) -> None:
    said = told_whole(file, "approve", "spring", "--by", "Grace", "--rounds", 1, "--days", 3, "--repeats", 2)
    assert said.startswith("run spring is approved by Grace: recipe ") and ", 1 rounds, until 20" in said and "2 further runs of it" in said
    assert told(file, "pending") == "nothing waits for a decision\n"
    assert told(file, "refuse", "spring", "--by", "Grace", "--reason", "no more").startswith("run spring is refused")
    text = words(told(file, "log"))
    for part in ("spring: asked by ada of north_west", "spring: approved by Grace: recipe", "spring: refused by Grace: no more"):
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("approve", "spring"), "Missing option '--by'"),
        (("refuse", "spring", "--reason", "no"), "Missing option '--by'"),
        (("refuse", "spring", "--by", "Grace"), "Missing option '--reason'"),
        (("release", "spring", 1), "Missing option '--by'"),
        (("withhold", "spring", 1, "--by", "Grace"), "Missing option '--reason'"),
        (("approve", "sprng", "--by", "Grace"), "run sprng: was never offered to bury, did you mean 'spring'?"),
        (("approve", "../../etc", "--by", "Grace"), "was never offered to bury"),
        (("refuse", "autumn", "--by", "Grace", "--reason", "no"), "run autumn: was never offered to bury"),
        (("approve", "spring", "--by", "Grace", "--rounds", 0), "0 is not in the range"),
        (("approve", "spring", "--by", "Grace", "--days", 99999), "99999 is not in the range"),
        (("release", "spring", 1, "--by", "Grace"), "run spring, round 1: no update is held; held are: none"),
        (("release", "spring", "first", "--by", "Grace"), "'first' is not a valid integer range"),
        (("approve", "spring", "--by", ""), "by"),
        (("approve", "spring", "--by", "Grace\nHopper"), "by"),
        (("refuse", "spring", "--by", "Grace", "--reason", ""), "reason"),
        (("resume", "--by", "Grace"), "bury: has not paused"),
        (("resume",), "Missing option '--by'"),
        (("pause",), "Missing option '--by'"),
    ],
)
def test_what_is_typed_wrong_is_one_clear_line(file: Path, arguments: tuple[object, ...], said: str) -> None:
    before = offers(file).journal.verify()
    assert said in refused(file, str(arguments[0]), *arguments[1:])
    assert offers(file).journal.verify() == before


def test_a_refusal_is_exit_code_2_and_one_line(file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["rainhill", "site", "approve", str(file), "sprng", "--by", "Grace"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and capsys.readouterr().err == "rainhill: run sprng: was never offered to bury, did you mean 'spring'?\n"


def test_a_site_that_has_joined_nothing_is_asked_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bury.toml"
    path.write_text('name = "bury"\n')
    for name, arguments in (
        ("pending", ()),
        ("log", ()),
        ("held", ()),
        ("approve", ("spring", "--by", "Grace")),
        ("pause", ("--by", "Grace")),
    ):
        with pytest.raises(CredentialError, match="bury: has joined no consortium"):
            raise typed(path, name, *arguments).exception or AssertionError
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_held_update_is_told_of_and_released(held: Path) -> None:
    text = told(held, "held")
    (found,) = json.loads(told_json(held, "held"))
    assert text.startswith("Run spring, round 1: an update waits to be released\n")
    assert f"sha256 {found['update']}" in text and "; your file lets out at most 5" in text
    assert "patients 20, steps 4, loss 0.5, choice 0" in text and found["numbers"]["patients"] == 20
    wrong = refused(held, "release", "spring", 1, "--by", "Grace", "--update", "zz")
    assert wrong == f"run spring, round 1: no update zz is held; held are: spring round 1 ({found['update'][:12]})"
    said = told(held, "release", "spring", 1, "--by", "Grace", "--update", found["update"][:12])
    assert said == f"update {found['update'][:12]} of run spring, round 1, is released; it leaves when the coordinator asks next\n"
    assert told(held, "held") == "no update is held\n"
    assert [event.by for event in offers(held).journal.events() if isinstance(event, Released)] == ["Grace"]


def test_a_held_update_is_withheld_for_a_reason_that_stays(held: Path) -> None:
    told(held, "withhold", "spring", 1, "--by", "Grace", "--reason", "its norm is odd")
    (event,) = (event for event in offers(held).journal.events() if isinstance(event, Withheld))
    assert (event.by, event.reason) == ("Grace", "its norm is odd")
    assert "withheld by Grace: its norm is odd" in words(told(held, "log"))


def test_the_log_is_a_list_for_a_script_and_says_when_an_entry_was_changed(file: Path) -> None:
    told(file, "approve", "spring", "--by", "Grace")
    found = json.loads(told_json(file, "log"))
    assert [one["kind"] for one in found] == ["opened", "offered", "approved"] and found[2]["by"] == "Grace"
    journal = offers(file).journal
    assert told_whole(file, "log", "--verify").startswith(f"{journal.path}: 3 entries hold, the newest has hash ")
    assert json.loads(told_json(file, "log", "--verify")) == {
        "journal": str(journal.path),
        "entries": 3,
        "newest": journal.entries()[-1].hash,
    }
    connection = sqlite3.connect(journal.path)
    connection.execute("DROP TRIGGER no_update")
    connection.execute("UPDATE entries SET body = replace(body, 'Grace', 'Mary') WHERE seq = 3")
    connection.commit()
    connection.close()
    for arguments in (("log", "--verify"), ("log",), ("pending",)):
        with pytest.raises(LedgerError, match="entry 3 was changed"):
            raise typed(file, *arguments).exception or AssertionError


def told_whole(file: Path, name: str, *arguments: object) -> str:
    """Of a line that holds a path."""
    done = typed(file, name, *arguments)
    assert done.exception is None, done.output
    return done.stdout


def test_a_site_pauses_and_goes_on_and_its_journal_says_by_whom(file: Path) -> None:
    assert json.loads(told_json(file, "status"))["paused"] is None
    assert told(file, "pause", "--by", "Grace") == "bury has paused; `rainhill site resume` goes on\n"
    assert offers(file).home.paused.exists()
    since = r"by Grace since \d{4}-\d\d-\d\d \d\d:\d\d UTC"
    assert re.fullmatch(f"bury: has paused already, {since}", refused(file, "pause", "--by", "Ada"))
    assert re.search(f"^paused +{since}$", told_whole(file, "status"), re.MULTILINE)
    assert told(file, "resume", "--by", "Ada") == "bury goes on\n" and not offers(file).home.paused.exists()
    assert json.loads(told_json(file, "status"))["paused"] is None
    text = told(file, "log")
    assert "the site has paused, by Grace\n" in text and text.endswith("the site goes on, by Ada\n")


def test_who_paused_a_site_is_not_made_up(file: Path) -> None:
    home = offers(file).home
    home.paused.touch()
    assert json.loads(told_json(file, "status"))["paused"].startswith("by nobody knows whom since ")


def test_what_is_asked_is_gathered_without_a_decision(file: Path) -> None:
    at: Offers = offers(file)
    one = asked(at, "spring")
    assert (one.state, one.refusals, one.changes) == ("pending", (), None) and one.patients is not None and one.patients > 9
    assert not any(isinstance(event, Approved) for event in at.journal.events())
    with pytest.raises(RefusedError, match="was never offered"):
        asked(at, "autumn")
