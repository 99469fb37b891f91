"""A federated run under differential privacy: what it leaves, what its ledgers say, and what killing it costs."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from client.privacy import accountant, budget
from client.privacy.events import Charged, Joined, Sent
from client.privacy.ledger import Ledger
from client.workbench import first_adapter, open_bench
from rainhill.adapter import Adapter
from rainhill.recipe import read_recipe
from server.rounds import run_rounds
from sites.bench import open_site
from sites.consortium import read_sites
from sites.guards import guard_of
from sites.inline import collect_inline
from tests.client.privacy.spending import spend

SITES = ("aintree", "broadgreen", "calder")
PRIVACY = "[privacy]\nepsilon = 6\nmax_grad_norm = 0.1\n"


def private_recipe(recipe_text, *, rounds: int = 3) -> str:
    return recipe_text(rule="alternating", rounds=rounds) + PRIVACY


@pytest.fixture(scope="module")
def private_run(simulate, hospitals: Path, recipe_text, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private")
    (folder / "tiny.toml").write_text(private_recipe(recipe_text))
    run = simulate("tiny.toml", "--sites", hospitals, "--out", "run", cwd=folder)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "epsilon 6 at delta 1e-05 for each patient (add or remove one patient)" in " ".join(run.stdout.split())
    return folder / "run"


def ledger(run: Path, site: str) -> Ledger:
    return Ledger.open(run / "checkpoints" / "memory" / "shared" / site, site=site)


def test_every_site_spent_what_its_ledger_says_and_no_more_than_was_promised(private_run: Path) -> None:
    told = json.loads((private_run / "results.json").read_text())["privacy"]
    assert (told["epsilon"], told["delta"], told["unit"], told["neighbours"]) == (6.0, 1e-5, "patient", "add or remove one patient")
    assert told["noise"].startswith("simulated noise")
    for site in SITES:
        history = budget.run_history(ledger(private_run, site), "tiny")
        assert sum(history.values()) == told["sites"][site]["steps"] == 12
        assert told["sites"][site]["epsilon"] == pytest.approx(accountant.epsilon(history, 1e-5), abs=1e-6)
        assert 5.5 < told["sites"][site]["epsilon"] <= 6.0 <= told["sites"][site]["epsilon_rdp"] + 1


def test_the_report_tells_a_reader_what_was_promised(private_run: Path) -> None:
    page = " ".join((private_run / "report.html").read_text().split())
    assert "every patient had differential privacy of ε = 6 at δ = 1e-05" in page
    assert "neighbouring data sets: add or remove one patient" in page
    assert "Simulated noise: drawn from the seed, so that it protects nobody." in page
    assert "not differentially private" not in page


def test_validation_numbers_are_the_simulators_own_and_never_crossed(private_run: Path) -> None:
    found = json.loads((private_run / "results.json").read_text())
    for site in SITES:
        assert [point["round"] for point in found["sites"][site]["curve"]["shared"]] == [1, 2, 3, 4]
    from server import checkpoint

    history = checkpoint.load(checkpoint.path_of(private_run / "checkpoints" / "shared", 3)).history
    assert all(dict(record.evaluations) == {} and dict(record.losses) == {} for record in history)


def test_only_the_federated_part_is_private_and_the_same_seed_gives_the_same(
    private_run: Path, simulate, hospitals: Path, recipe_text, tmp_path: Path
) -> None:
    (tmp_path / "plain.toml").write_text(recipe_text(rule="alternating", rounds=3))
    (tmp_path / "tiny.toml").write_text(private_recipe(recipe_text))
    for name in ("plain", "tiny"):
        run = simulate(f"{name}.toml", "--sites", hospitals, "--out", name, cwd=tmp_path)
        assert run.returncode == 0, run.stderr[-3000:]

    def adapter(run: Path, name: str) -> Adapter:
        return Adapter.from_bytes((run / "adapters" / f"{name}.safetensors").read_bytes())

    assert adapter(private_run, "shared") == adapter(tmp_path / "tiny", "shared")
    assert adapter(private_run, "shared") != adapter(tmp_path / "plain", "shared")
    assert adapter(private_run, "pooled") == adapter(tmp_path / "plain", "pooled")
    assert adapter(private_run, "local/aintree") == adapter(tmp_path / "plain", "local/aintree")


def test_a_site_that_allows_less_is_left_out_by_name_and_nothing_of_it_leaves(
    simulate, hospitals: Path, recipe_text, tmp_path: Path
) -> None:
    for site in SITES:
        text = (hospitals / f"{site}.toml").read_text().replace(f'"{site}/', f'"{hospitals}/{site}/')
        (tmp_path / "sites").mkdir(exist_ok=True)
        # A site that sets a budget deals its patients by lot, each for itself.
        own = 'by = "patient"\n[privacy]\nepsilon = 2\n' if site == "calder" else ""
        (tmp_path / "sites" / f"{site}.toml").write_text(text + own)
    (tmp_path / "tiny.toml").write_text(private_recipe(recipe_text, rounds=1))
    run = simulate("tiny.toml", "--sites", "sites", "--out", "run", cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    (record,) = json.loads((tmp_path / "run" / "results.json").read_text())["rounds"]
    assert record["answered"] == ["aintree", "broadgreen"]
    assert record["refused"] == {"calder": "recipe tiny asks for epsilon 6 in one run, the site allows 2"}
    assert "asks for epsilon 6 in one run, the site allows 2" in (tmp_path / "run" / "report.html").read_text()
    assert [event.kind for event in ledger(tmp_path / "run", "calder").events()] == ["opened"]


def test_a_run_goes_on_without_a_site_whose_budget_is_spent_in_the_middle_of_it(hospitals: Path, recipe_text, tmp_path: Path) -> None:
    (tmp_path / "private.toml").write_text(private_recipe(recipe_text, rounds=4))
    recipe = read_recipe(tmp_path / "private.toml")
    bench = open_bench(recipe, tmp_path)
    data = {name: open_site(bench, site, tmp_path / "cache") for name, site in read_sites(hospitals).items()}
    memory = tmp_path / "memory"
    guard = guard_of(bench, "calder", data["calder"], memory / "calder")
    assert guard is not None
    spend(guard.ledger, guard.train, 4.0)
    collect, first = collect_inline(bench, data, memory), bench.strategy.first(first_adapter(bench))
    done = run_rounds(recipe, bench.strategy, first, run="spring", sites=SITES, collect=collect, folder=tmp_path / "run")
    answered = [record.answered for record in done.history]
    whole = answered.count(SITES)
    assert 1 <= whole < 4 and answered == [SITES] * whole + [SITES[:2]] * (4 - whole)
    for record in done.history[whole:]:
        reason = record.refused["calder"]
        assert reason.startswith(f"round {record.round}: no patient is left whose epsilon of 6 allows another round"), reason
    events = guard.ledger.events()
    charged = [event.round for event in events if isinstance(event, Charged) and event.run == "spring"]
    assert charged == [event.round for event in events if isinstance(event, Sent)] == list(range(1, whole + 1))


def test_killing_a_run_at_any_moment_never_makes_its_ledger_say_less_than_was_taken(hospitals: Path, recipe_text, tmp_path: Path) -> None:
    (tmp_path / "private.toml").write_text(private_recipe(recipe_text, rounds=6))
    (tmp_path / "hospitals").symlink_to(hospitals)
    script = Path(__file__).with_name("killed_run.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=500, cwd=script.parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["30"]
    # Of one draw, an attempt that was broken off and the one after it took the same steps.
    taken: dict[str, int] = {}
    for (draw, _), steps in Counter(tuple(line.split()) for line in (tmp_path / "taken").read_text().splitlines()).items():
        taken[draw] = max(taken.get(draw, 0), steps)
    charged = 0
    for site in SITES:
        own = Ledger.open(tmp_path / "state" / site, site=site)
        events = own.events()
        (joined,) = [event for event in events if isinstance(event, Joined)]
        charges = {event.draw: event for event in events if isinstance(event, Charged)}
        mine = {draw: steps for draw, steps in taken.items() if draw in charges}
        assert all(steps <= charges[draw].steps for draw, steps in mine.items())
        phase = next(iter(charges.values())).phase
        spent = accountant.epsilon(budget.run_history(own, "tiny"), 1e-5)
        assert spent == accountant.epsilon({phase: sum(event.steps for event in charges.values())}, 1e-5)
        assert accountant.epsilon({phase: sum(mine.values())}, 1e-5) <= spent <= joined.epsilon
        charged += len(mine)
    assert charged == len(taken), "every step that was taken belongs to a charge"
    assert len(taken) == 6 * len(SITES)
