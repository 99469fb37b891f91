import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from client._cli import site
from client.privacy._plot import draw
from client.privacy.accountant import Phase, epsilon
from client.privacy.events import Joined, Members
from client.privacy.ledger import Ledger
from client.privacy.statement import Snapshot
from rainhill.errors import ConfigError, LedgerError
from rainhill.recipe import read_recipe

RELATION = "per patient (add or remove one patient, delta 1e-05)"
CHEST = Phase(noise_multiplier=1.1, sample_rate=0.032)


@pytest.fixture
def site_file(tmp_path: Path) -> Path:
    path = tmp_path / "aintree.toml"
    path.write_text('name = "aintree"\ntitle = "Aintree General"\n[privacy]\nepsilon = 2\nepsilon_per_cohort = 1.1\n')
    return path


@pytest.fixture
def ledger(site_file, charge, sha) -> Ledger:
    """Thirty patients in three rounds, twenty of them in the fourth."""
    everybody, some = Members.of(f"{one:016x}" for one in range(30)), Members.of(f"{one:016x}" for one in range(20))
    ledger = Ledger.open(site_file.parent / "aintree-state", site="aintree")
    terms = {"run": "chest", "recipe": sha("recipe"), "cohort": "films", "patients": 2000, "epsilon": 3.0, "delta": 1e-5}
    ledger.append(Joined(**terms, noise_multiplier=1.1, sample_rate=0.032, steps=300), everybody)
    ledger.append(*(charge(number, members=everybody.digest, steps=30) for number in (1, 2, 3)))
    ledger.append(some, charge(4, members=some.digest, steps=30))
    return ledger


@pytest.fixture
def recipe_file(tmp_path, recipe_text):
    def written(privacy: str = "[privacy]\nepsilon = 1\n", rounds: int = 3) -> str:
        path = tmp_path / "asked.toml"
        path.write_text(recipe_text(rounds=rounds) + privacy)
        return str(path)

    return written


def told(*arguments, exit_code=0):
    found = CliRunner().invoke(site, ["privacy", *map(str, arguments)], catch_exceptions=False)
    assert found.exit_code == exit_code, found.output
    return found.stdout


def test_a_site_without_a_ledger_has_spent_nothing_and_gets_none_by_asking(site_file):
    assert "none yet: nothing was charged" in told(site_file)
    assert told(site_file, "--verify") == f"there is no ledger yet in {site_file.parent / 'aintree-state'}\n"
    assert [path.name for path in site_file.parent.iterdir()] == ["aintree.toml"]


def test_what_was_spent_is_told_with_what_it_means(site_file, ledger):
    text = told(site_file)
    spent = f"{epsilon({CHEST: 120}, 1e-5):.3f}"
    lines = [line for line in text.splitlines() if spent in line]
    assert f"budget     epsilon 2 {RELATION}, over all runs" in text
    assert any(line.startswith("chest") and "120 of 300" in line and f"{spent} of 3" in line for line in lines)
    assert any(line.startswith("most spent") and "by RDP" in line and "of 2" in line for line in lines)
    assert f"30 patients were charged, by what each has spent; epsilon {RELATION}" in text
    assert "0000000000000001" not in text
    assert "by RDP: a looser bound by another theory, to hold the claim against" in text
    assert all(len(line) <= 140 for line in text.splitlines())


def test_a_script_gets_the_same_as_numbers(site_file, ledger):
    found = json.loads(told(site_file, "--json"))
    assert found["site"] == "aintree" and found["budget"] == 2 and found["patients"] == 30
    assert found["most_spent"] == found["everything"] == found["runs"][0]["claim"]
    assert found["most_spent"]["epsilon"] == epsilon({CHEST: 120}, 1e-5) < found["most_spent"]["rdp"]
    assert found["most_spent"] | {"unit": "patient", "neighbours": "add or remove one patient", "delta": 1e-5} == found["most_spent"]
    assert [one["patients"] for one in found["ranges"]] == [0, 0, 0, 30] and sum(one["patients"] for one in found["ranges"]) == 30
    assert found["at_budget"] == sum(count for steps, count in ((120, 20), (90, 10)) if epsilon({CHEST: steps + 30}, 1e-5) > 2)


def test_what_was_spent_in_the_last_365_days_is_told_beside_what_they_allow(site_file, ledger, recipe_file):
    site_file.write_text('name = "aintree"\n[privacy]\nepsilon = 2\nepsilon_per_year = 1.5\n')
    spent = f"epsilon {epsilon({CHEST: 120}, 1e-5):.3f} per patient"
    (line,) = [line for line in told(site_file).splitlines() if line.startswith("this year")]
    assert line.startswith(f"this year  {spent}") and line.endswith(", of 1.5, in the last 365 days, by who spent most in them")
    assert f"epsilon 1.5 {RELATION}, over any 365 days" in told(site_file)
    cost = json.loads(told(site_file, "--what-if", recipe_file(), "--patients", "100", "--json"))["cost"]["year"]
    assert cost["before"]["epsilon"] == epsilon({CHEST: 120}, 1e-5) < cost["after"]["epsilon"] and cost["budget"] == 1.5
    assert cost["remaining"] == max(1.5 - cost["after"]["epsilon"], 0)


@pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed (Debian: faketime)")
def test_a_year_later_the_year_is_new_and_what_is_spent_for_good_is_not(site_file, ledger):
    site_file.write_text('name = "aintree"\n[privacy]\nepsilon = 2\nepsilon_per_year = 1.5\n')
    now = json.loads(told(site_file, "--json"))
    command = ["faketime", "-f", "+366d", sys.executable, "-m", "rainhill.cli", "site", "privacy", str(site_file), "--json"]
    later = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert now["most_spent_in_year"] == now["most_spent"] == later["most_spent"]
    assert later["most_spent_in_year"]["epsilon"] == 0.0


def test_a_sound_ledger_is_verified_and_a_changed_one_is_not(site_file, ledger):
    assert f"{ledger.path}: 8 entries hold, the newest has hash {ledger.entries()[-1].hash}" in told(site_file, "--verify")
    assert json.loads(told(site_file, "--verify", "--json"))["entries"] == 8
    connection = sqlite3.connect(ledger.path)
    connection.execute("DROP TRIGGER no_update")
    connection.execute("UPDATE entries SET body = replace(body, '1.1', '9.1') WHERE seq = 5")
    connection.commit()
    connection.close()
    for arguments in ([], ["--verify"]):
        with pytest.raises(LedgerError, match="entry 5 was changed"):
            told(site_file, *arguments)


def test_a_plot_is_drawn(site_file, ledger, tmp_path):
    told(site_file, "--plot", tmp_path / "spent.png")
    assert (tmp_path / "spent.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_of_nothing_is_drawn():
    assert draw("aintree", Snapshot(), limit=None, delta=1e-5).startswith(b"\x89PNG")


def test_a_run_is_priced_before_it_is_accepted(site_file, ledger, recipe_file):
    text = told(site_file, "--what-if", recipe_file(), "--patients", "100")
    assert "with 100 training patients" in text and "sample rate 0.08, 12 steps in 3 rounds" in text
    assert "of 2: 0.000 remain" in text
    assert "20 patients charged before cannot afford all of it, and would be left out before its end" in text
    assert "note       refused before its end if it is for data set films: 12 steps more" in text
    assert "in its first round" not in text
    found = json.loads(told(site_file, "--what-if", recipe_file(), "--patients", "5", "--json"))
    cost = found["cost"]
    assert cost["sample_rate"] == 1.0 and found["refused"] == "" and cost["unable"] == 30
    assert cost["before"]["epsilon"] < cost["after"]["epsilon"]
    assert 0.99 < cost["run"]["epsilon"] <= 1.0


def test_a_run_for_patients_who_have_nothing_left_is_told_to_end_before_it_begins(site_file, ledger, recipe_file):
    site_file.write_text('name = "aintree"\n[privacy]\nepsilon = 1.02\n')
    text = told(site_file, "--what-if", recipe_file(), "--patients", "20")
    assert "note       refused in its first round if it is for the patients charged before: 30 of them have no budget left" in text


def test_a_run_of_the_same_recipe_that_was_joined_before_is_told_of(site_file, ledger, recipe_file, charge):
    sha256 = read_recipe(Path(recipe_file())).sha256
    terms = {
        "recipe": sha256,
        "cohort": "films",
        "patients": 100,
        "epsilon": 1.0,
        "delta": 1e-5,
        "noise_multiplier": 2.0,
        "sample_rate": 0.08,
    }
    ledger.append(Joined(run="spring", **terms, steps=12))
    members = Members.of(f"{one:016x}" for one in range(30)).digest
    for what, steps in (("update", 4), ("numbers", 1)):
        ledger.append(charge(1, run="spring", recipe=sha256, members=members, steps=steps, what=what))
    text = told(site_file, "--what-if", recipe_file(), "--patients", "100")
    assert "note       run spring of this very recipe is charged with 4 of 12 steps; going on with it costs the rest" in text
    assert "run chest" not in text


def test_a_ledger_that_was_put_back_is_found_by_a_hash_that_was_kept_elsewhere(site_file, ledger, charge):
    older = {path: path.read_bytes() for path in (ledger.path, ledger.head)}
    kept = json.loads(told(site_file, "--verify", "--json"))["newest"]
    ledger.append(charge(5))
    newest = json.loads(told(site_file, "--verify", "--json"))["newest"]
    assert "9 entries hold" in told(site_file, "--verify", "--expect", kept)
    for path, data in older.items():
        path.write_bytes(data)
    assert "8 entries hold" in told(site_file, "--verify")
    with pytest.raises(LedgerError, match=f"none of 8 entries has hash {newest}: the ledger was put back, or is another"):
        told(site_file, "--verify", "--expect", newest)


def test_a_run_is_priced_for_the_number_of_patients_that_the_site_declares(site_file, recipe_file):
    site_file.write_text('name = "aintree"\n[privacy]\nepsilon = 2\ndeclared_patients = 80\n')
    text = told(site_file, "--what-if", recipe_file(), "--patients", "100")
    assert "with 100 training patients" in text and "sample rate 0.1, 12 steps in 3 rounds" in text
    assert "note       lots are drawn as for the declared_patients of the site's file: 80" in text


@pytest.mark.parametrize(
    ("privacy", "said"),
    [
        ("", "asks for no privacy, the site trains only under epsilon 2"),
        ("[privacy]\nepsilon = 5\n", "asks for epsilon 5 in one run, the site allows 2"),
        ("[privacy]\nepsilon = 1\ndelta = 1e-4\n", "asks for delta 0.0001, the site allows 1e-05"),
    ],
)
def test_a_run_that_would_be_refused_says_why(site_file, recipe_file, privacy, said):
    text = told(site_file, "--what-if", recipe_file(privacy), "--patients", "100", exit_code=1)
    assert "refused" in text and said in text


def test_where_nobody_asks_for_privacy_it_is_said_that_nothing_is_protected(site_file, recipe_file):
    site_file.write_text('name = "aintree"\n')
    text = told(site_file, "--what-if", recipe_file(""), "--patients", "100")
    assert "nothing would be protected, and nothing accounted for" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing argument 'SITE.toml'"),
        (("a.toml", "--what-if", "r.toml"), "--what-if RECIPE.toml and --patients N go together"),
        (("a.toml", "--patients", "5"), "--what-if RECIPE.toml and --patients N go together"),
        (("a.toml", "--what-if", "r.toml", "--patients", "0"), "0 is not in the range x>=1"),
        (("a.toml", "--verify", "--plot", "x.png"), "ask one of them"),
        (("a.toml", "--epsilon"), "No such option"),
        (("a.toml", "--expect", "0" * 64), "--expect HASH goes with --verify"),
    ],
)
def test_wrong_arguments_are_told(arguments, said):
    found = CliRunner().invoke(site, ["privacy", *arguments])
    assert found.exit_code == 2 and said in found.stderr


def test_files_that_are_not_there_are_named(site_file, tmp_path):
    with pytest.raises(ConfigError, match="nowhere.toml: no such file"):
        told(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="nowhere.toml: no such file"):
        told(site_file, "--what-if", tmp_path / "nowhere.toml", "--patients", "5")


def test_the_state_folder_is_where_the_sites_file_says(site_file, ledger):
    (site_file.parent / "aintree-state").rename(site_file.parent / "kept")
    site_file.write_text('name = "aintree"\nstate = "kept"\n')
    assert "8 entries hold" in told(site_file, "--verify")
