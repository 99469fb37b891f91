"""`rainhill simulate --compare`, as a person runs it."""

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from rainhill.errors import ConfigError, PluginError
from rainhill.recipe import PartSection, Recipe
from sites.compare import check_comparison_folder, entrants
from sites.tables import print_comparison


def test_strategies_are_compared_on_the_same_sites_and_seeds(simulate, hospitals: Path, recipe_text, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(recipe_text())
    asked = "fedavg,fedavg+int8,alternating+fedprox+ditto"
    arguments = ("r.toml", "--sites", hospitals, "--compare", asked, "--seeds", "0,1", "--out", "cmp")
    run = simulate(*arguments, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "alternating+fedprox" in run.stdout
    assert (tmp_path / "cmp" / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    found = json.loads((tmp_path / "cmp" / "comparison.json").read_text())
    assert found["seeds"] == [0, 1] and found["measure"] == "auroc" and "mean AUROC over" in run.stdout
    assert list(found["strategies"]) == asked.split(",")
    assert found["strategies"]["alternating+fedprox+ditto"]["strategy"]["server_optimizer"]["name"] == "fedprox"
    for entry in (*found["sites"].values(), found["mean"]):
        assert entry["strategies"]["fedavg"]["private_minus_first"] == {"value": 0, "low": 0, "high": 0}
        for one in entry["strategies"].values():
            auroc = one["private"]
            assert 0 <= auroc["low"] <= auroc["value"] <= auroc["high"] <= 1
            gain = one["private_minus_local"]
            assert gain["value"] == pytest.approx(auroc["value"] - entry["local"]["value"], abs=2e-6)
    # One factor a round crosses where the others send both, and a quarter as many bytes a number.
    crossed = {name: about["bytes_per_site_round"] for name, about in found["strategies"].items()}
    assert crossed["alternating+fedprox+ditto"] < crossed["fedavg"]
    assert crossed["fedavg+int8"] < crossed["fedavg"]
    assert found["strategies"]["fedavg+int8"]["compression"]["encoding"] == "int8"
    # The same command again finds every round done, and says the same.
    rounds = sorted((tmp_path / "cmp").rglob("round-*.safetensors"))
    before = [path.stat().st_mtime_ns for path in rounds if "checkpoints" not in str(path) and "memory" not in str(path)]
    again = simulate(*arguments, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert [path.stat().st_mtime_ns for path in rounds if "memory" not in str(path)] == before
    repeated = json.loads((tmp_path / "cmp" / "comparison.json").read_text())
    assert {**repeated, "seconds": 0} == {**found, "seconds": 0}


def test_another_strategy_joins_and_other_films_do_not(simulate, hospitals: Path, recipe_text, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(recipe_text())
    copied = tmp_path / "hospitals"
    shutil.copytree(hospitals, copied)
    arguments = ("r.toml", "--sites", copied, "--out", "cmp", "--compare")
    assert simulate(*arguments, "fedavg,ffa", cwd=tmp_path).returncode == 0
    found = json.loads((tmp_path / "cmp" / "comparison.json").read_text())
    scores = {path: path.stat().st_mtime_ns for path in (tmp_path / "cmp").rglob("scores.npz")}
    assert len(scores) == 3
    assert simulate(*arguments, "fedavg,ffa,alternating", cwd=tmp_path).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in scores} == scores
    joined = json.loads((tmp_path / "cmp" / "comparison.json").read_text())
    assert joined["mean"]["strategies"]["ffa"] == found["mean"]["strategies"]["ffa"]
    manifest = copied / "calder" / "manifest.csv"
    manifest.write_text(manifest.read_text().rpartition("P")[0])
    refused = simulate(*arguments, "fedavg,ffa", cwd=tmp_path)
    assert refused.returncode == 2
    assert "the data of site calder was" in refused.stderr


def test_the_same_seed_gives_what_a_run_of_its_own_gives(simulate, finished: Path, hospitals: Path, recipe_text, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(recipe_text())
    run = simulate("r.toml", "--sites", hospitals, "--compare", "fedavg,ffa", "--out", "cmp", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    compared = json.loads((tmp_path / "cmp" / "comparison.json").read_text())["sites"]
    alone = json.loads((finished / "results.json").read_text())["sites"]
    for site, entry in compared.items():
        for arm in ("base", "local", "pooled"):
            assert entry[arm] == alone[site][arm]["auroc"]
        assert entry["strategies"]["fedavg"]["private"] == alone[site]["private"]["auroc"]
        assert entry["strategies"]["fedavg"]["shared"] == alone[site]["shared"]["auroc"]


def test_a_folder_compares_in_one_recipe(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "cmp"
    check_comparison_folder(folder, recipe)
    folder.mkdir()
    check_comparison_folder(folder, recipe)
    (folder / "recipe.sha256").write_text(recipe.sha256 + "\n")
    check_comparison_folder(folder, recipe)
    other = recipe.model_copy(update={"seed": recipe.seed + 1})
    with pytest.raises(ConfigError, match=f"compares in recipe {recipe.sha256[:12]}, asked is {other.sha256[:12]}"):
        check_comparison_folder(folder, other)


def test_what_could_not_be_measured_is_a_dash_in_the_table() -> None:
    nothing = {"value": None, "low": None, "high": None}
    entry = {"strategies": {"fedavg": dict.fromkeys(("private", "shared", "private_minus_first", "private_minus_local"), nothing)}}
    entry |= dict.fromkeys(("base", "local", "pooled"), nothing)
    console = Console(file=io.StringIO(), width=80)
    strategies = {"fedavg": {"bytes_per_site_round": 1024.0}}
    document = {
        "title": "T",
        "name": "t",
        "measure": "label_f1",
        "seeds": [0],
        "mean": entry,
        "sites": {"a": entry},
        "strategies": strategies,
    }
    print_comparison(console, document)
    assert "mean label F1 over 1 hospitals" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "fedavg" in console.file.getvalue() and " - " in console.file.getvalue()


def test_a_name_leaves_the_rest_to_the_recipe(recipe: Recipe) -> None:
    own = recipe.strategy.model_copy(update={"weights": "patients"})
    [one, other] = entrants("flexlora, fedprox+median", recipe.model_copy(update={"strategy": own}))
    assert (one.recipe.strategy.rule, one.recipe.strategy.weights) == ("flexlora", "patients")
    assert other.recipe.strategy.rule == recipe.strategy.rule
    assert other.recipe.strategy.robust is not None and other.recipe.strategy.robust.name == "median"
    # A part that the recipe has already keeps its keys.
    own = recipe.strategy.model_copy(update={"server_optimizer": PartSection(name="fedprox", mu=0.5)})
    [_, named] = entrants("ffa,fedavg+fedprox", recipe.model_copy(update={"strategy": own}))
    assert named.recipe.strategy.server_optimizer.options == {"mu": 0.5}


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("fedavg,flexlorra", PluginError, "no strategy is called 'flexlorra', did you mean 'flexlora'"),
        ("fedavg", ConfigError, "names 1, comparing takes at least two"),
        ("", ConfigError, "names 0"),
        ("fedavg,fedavg", ConfigError, "'fedavg' and 'fedavg' are the same strategy"),
        ("fedprox+fedavg,flexlora,fedavg + fedprox", ConfigError, r"'fedavg \+ fedprox' and 'fedprox\+fedavg' are the same strategy"),
        ("fedavg,fedavg+float32", ConfigError, "are the same strategy"),
        ("fedavg+,flexlora", PluginError, r"--compare fedavg\+: no strategy is called ''"),
        ("fedavg+ffa,flexlora", ConfigError, "names two of a kind, rule"),
        ("fedavg+int8+bf16,flexlora", ConfigError, "names two of a kind, compression"),
    ],
)
def test_what_cannot_be_compared_is_refused(recipe: Recipe, names: str, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        entrants(names, recipe)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--compare", "fedavg,flexlora+krum"), "--compare flexlora+krum: needs 5 sites, 3 are asked"),
        (("--compare", "fedavg,flexlora+fedadam"), "'fedadam' steps from factors to the next round's"),
        (("--compare", "fedavg,flexlora", "--seeds", "0,x"), "--seeds '0,x': expected numbers"),
        (("--compare", "fedavg,flexlora", "--seeds", "1,1"), "expected different numbers"),
        (("--compare", "fedavg,flexlora", "--seeds", "99999999999999999999"), "expected different numbers from 0 to 2**63 - 1"),
        (("--compare", "fedavg,flexlora", "--seeds", ""), "--seeds '': expected numbers"),
        (("--compare", "fedavg,flexlora", "--out", "r.toml"), "r.toml: is a file, expected a folder"),
        (("--compare", "fedavg,flexlora", "--out", "."), "is not empty and holds no comparison"),
        (("--compare", "fedavg,flexlora+norm_bound+hetlora"), "names two of a kind, rule"),
        (("--compare", "fedavg,fedavg+median+fedadam"), "--compare fedavg+median+fedadam: [strategy] server_optimizer = 'fedadam' steps"),
        (("--compare", "fedavg,flexlora", "--seed", "1"), "--compare takes --seeds"),
        (("--seeds", "1,2"), "--seeds goes with --compare"),
    ],
)
def test_wrong_arguments_are_one_clear_line(simulate, hospitals: Path, recipe_text, tmp_path: Path, arguments: tuple, message: str) -> None:
    (tmp_path / "r.toml").write_text(recipe_text())
    run = simulate("r.toml", "--sites", hospitals, *arguments, cwd=tmp_path)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert message in run.stderr
