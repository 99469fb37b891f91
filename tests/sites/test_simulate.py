"""`rainhill simulate` as a person runs it: a process with arguments, an exit code, and what it leaves behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rainhill.adapter import Adapter

COMMAND = str(Path(sys.executable).parent / "rainhill")


def refused(run: subprocess.CompletedProcess[str]) -> str:
    """One clear line, exit code 2, no traceback."""
    assert run.returncode == 2, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    [line] = [line for line in run.stderr.splitlines() if line.startswith("rainhill: ")]
    return line


def results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


def test_the_results_hold_every_site_and_arm_with_intervals(finished: Path) -> None:
    found = results(finished)
    assert list(found["sites"]) == ["aintree", "broadgreen", "calder"]
    for site in found["sites"].values():
        for arm in ("base", "local", "shared", "private", "pooled"):
            auroc = site[arm]["auroc"]
            assert 0 <= auroc["low"] <= auroc["value"] <= auroc["high"] <= 1
            assert set(site[arm]["findings"]) == {"square", "stripe"}
        assert site["verdict"] in {"better", "no different", "worse"}
        assert site["patients"]["train"] > 10
        assert [point["round"] for point in site["curve"]["shared"]] == [1, 2, 3]
    assert found["recipe_sha256"] == json.loads((finished / "run.json").read_text())["recipe_sha256"]
    assert found["bytes_per_site_round"] < found["bytes_full_model"] * 2
    assert {"seconds", "peak_rss_mb", "seed", "bytes_full_model"} <= found.keys()
    assert found["cross_site"]["rows"] == ["base", "aintree", "broadgreen", "calder", "shared", "pooled"]
    assert [record["answered"] for record in found["rounds"]] == [["aintree", "broadgreen", "calder"]] * 2


def test_the_adapters_on_disk_are_the_ones_in_the_results(finished: Path) -> None:
    prints = results(finished)["adapters"]
    assert len(prints) == 2 + 2 * 3
    for name, fingerprint in prints.items():
        assert Adapter.from_bytes((finished / "adapters" / f"{name}.safetensors").read_bytes()).fingerprint() == fingerprint


def test_the_report_is_one_file_with_every_site(finished: Path) -> None:
    html = (finished / "report.html").read_text()
    assert "Broadgreen General" in html
    assert "<script" not in html
    assert "not differentially private" in html or "no differential privacy" in html.casefold()


def test_the_same_recipe_and_seed_give_the_same_run(simulate, finished: Path, hospitals: Path, tmp_path: Path) -> None:
    again = simulate(finished.parent / "tiny.toml", "--sites", hospitals, "--out", "again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert results(tmp_path / "again")["adapters"] == results(finished)["adapters"]
    other = simulate(finished.parent / "tiny.toml", "--sites", hospitals, "--seed", 7, cwd=tmp_path)
    assert other.returncode == 0, other.stderr
    # Without --out: runs/NAME-SEED.
    assert results(tmp_path / "runs" / "tiny-7")["seed"] == 7
    assert results(tmp_path / "runs" / "tiny-7")["adapters"]["shared"] != results(finished)["adapters"]["shared"]


def test_a_site_of_lower_rank_has_an_adapter_of_its_own_and_the_page_says_so(
    simulate, hospitals: Path, recipe_text, tmp_path: Path
) -> None:
    (tmp_path / "r.toml").write_text(recipe_text(rounds=1) + "[lora.ranks]\naintree = 1\n")
    run = simulate("r.toml", "--sites", hospitals, "--out", "run", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    found = results(tmp_path / "run")
    assert found["lora"]["ranks"] == {"aintree": 1}
    assert {name for name in found["adapters"] if name.startswith("shared")} == {"shared", "shared/aintree"}
    own = Adapter.from_bytes((tmp_path / "run" / "adapters" / "shared" / "aintree.safetensors").read_bytes())
    assert {pair.rank for pair in own.pairs().values()} == {1}
    assert "The rank is 2, but 1 at Aintree General." in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("[lora.ranks]\naintre = 1\n", "lora.ranks names 'aintre', which is not asked, did you mean 'aintree'?"),
        ('[strategy.server_optimizer]\nname = "median"\n', "that is a robust rule, for the key robust"),
        ('[strategy.robust]\nname = "norm_bound"\n', "recipe tiny: [strategy] robust = 'norm_bound' holds products down"),
    ],
)
def test_a_strategy_that_makes_no_sense_is_one_clear_line(
    simulate, hospitals: Path, recipe_text, tmp_path: Path, extra: str, message: str
) -> None:
    (tmp_path / "r.toml").write_text(recipe_text() + extra)
    assert message in refused(simulate("r.toml", "--sites", hospitals, cwd=tmp_path))


def test_a_gradient_needs_a_public_hospital_and_says_so_at_once(simulate, hospitals: Path, recipe_text, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(recipe_text().replace("[lora]", '[lora]\ninit = "gradient"'))
    assert "lora.init = 'gradient' needs a public hospital in" in refused(simulate("r.toml", "--sites", hospitals, cwd=tmp_path))


def test_a_run_goes_on_from_its_last_round_to_the_same_end(simulate, finished: Path, hospitals: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(finished, cut)
    (cut / "checkpoints" / "shared" / "round-000002.safetensors").unlink()
    shutil.rmtree(cut / "checkpoints" / "pooled")
    (cut / "results.json").unlink()
    run = simulate("--resume", cut, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert results(cut)["adapters"] == results(finished)["adapters"]
    assert {site: entry["private"]["auroc"] for site, entry in results(cut)["sites"].items()} == {
        site: entry["private"]["auroc"] for site, entry in results(finished)["sites"].items()
    }


def test_a_resumed_run_keeps_the_precision_it_began_with(simulate, finished: Path, hospitals: Path, tmp_path: Path) -> None:
    assert results(finished)["compute"] == {"device": "cpu", "precision": "float32"}
    run = simulate(finished.parent / "tiny.toml", "--sites", hospitals, "--out", "run", "--precision", "bfloat16", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    whole = results(tmp_path / "run")
    assert whole["compute"] == {"device": "cpu", "precision": "bfloat16"}
    assert whole["adapters"]["shared"] != results(finished)["adapters"]["shared"]
    (tmp_path / "run" / "checkpoints" / "shared" / "round-000002.safetensors").unlink()
    (tmp_path / "run" / "results.json").unlink()
    assert simulate("--resume", "run", cwd=tmp_path).returncode == 0
    assert results(tmp_path / "run")["adapters"] == whole["adapters"]
    assert results(tmp_path / "run")["compute"] == whole["compute"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU here")
def test_a_gpu_that_is_not_there_is_refused_by_name(simulate, finished: Path, hospitals: Path, tmp_path: Path) -> None:
    run = simulate(finished.parent / "tiny.toml", "--sites", hospitals, "--device", "cuda", cwd=tmp_path)
    assert "device = 'cuda': torch" in refused(run)


def test_ctrl_c_in_a_round_says_how_to_go_on_and_going_on_works(
    simulate, finished: Path, hospitals: Path, recipe_text, tmp_path: Path
) -> None:
    (tmp_path / "long.toml").write_text(recipe_text(rounds=15))
    environment = {**os.environ, "RAINHILL_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(
        [COMMAND, "simulate", "long.toml", "--sites", str(hospitals), "--out", "run"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        checkpoints = tmp_path / "run" / "checkpoints" / "shared"
        stop = time.monotonic() + 120
        while not list(checkpoints.glob("round-000003.safetensors")) and time.monotonic() < stop:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert errors.strip().splitlines()[-1] == "rainhill: stopped; go on with: rainhill simulate --resume run"
    assert "Traceback" not in errors
    done = len(list(checkpoints.glob("round-*.safetensors")))
    assert 3 <= done < 15
    run = simulate("--resume", "run", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    undisturbed = simulate("long.toml", "--sites", hospitals, "--out", "whole", cwd=tmp_path)
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert results(tmp_path / "run")["adapters"] == results(tmp_path / "whole")["adapters"]


def test_augmentation_changes_what_is_learned_and_not_what_is_measured(
    simulate, finished: Path, hospitals: Path, recipe_text, tmp_path: Path
) -> None:
    (tmp_path / "r.toml").write_text(recipe_text() + "[augmentation]\nviews = 2\n")
    run = simulate("r.toml", "--sites", hospitals, "--out", "run", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    seen, plain = results(tmp_path / "run"), results(finished)
    assert seen["adapters"]["shared"] != plain["adapters"]["shared"]
    for site, entry in seen["sites"].items():
        assert entry["patients"] == plain["sites"][site]["patients"]
        assert entry["base"] == plain["sites"][site]["base"]


def test_data_that_changed_since_the_run_began_is_noticed(simulate, finished: Path, hospitals: Path, recipe_text, tmp_path: Path) -> None:
    shutil.copytree(hospitals, tmp_path / "sites")
    (tmp_path / "r.toml").write_text(recipe_text())
    run = simulate("r.toml", "--sites", "sites", "--out", "run", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    manifest = tmp_path / "sites" / "calder" / "manifest.csv"
    text = manifest.read_text()
    manifest.write_text(text.rstrip("01\n") + ("0\n" if text.endswith("1\n") else "1\n"))
    assert "run: the data of site calder was" in refused(simulate("--resume", "run", cwd=tmp_path))
    manifest.write_text(text)
    # One site's checkpoint put in another's place.
    other = tmp_path / "run" / "checkpoints" / "local"
    shutil.copy(other / "calder" / "round-000002.safetensors", other / "aintree" / "round-000002.safetensors")
    line = refused(simulate("--resume", "run", cwd=tmp_path))
    assert "belongs to run 'tiny/local/calder', asked to go on with 'tiny/local/aintree'" in line


@pytest.mark.parametrize("library", ["_multiarray_umath", "libtorch_cpu", "libtorch_python"])
def test_ctrl_c_while_libraries_load_stops_at_once(tmp_path: Path, library: str) -> None:
    with subprocess.Popen([COMMAND, "simulate", "demo"], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while library not in maps.read_text():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert errors.splitlines()[-1].startswith("rainhill: stopped")
    assert "Traceback" not in errors


def test_a_damaged_run_is_one_clear_line(simulate, finished: Path, tmp_path: Path) -> None:
    for text, message in (("{}", "recipe_sha256: missing"), ("[]", "run.json"), ("{", "holds no run that can be resumed")):
        broken = tmp_path / f"broken-{len(message)}"
        shutil.copytree(finished, broken)
        (broken / "run.json").write_text(text)
        assert message in refused(simulate("--resume", broken, cwd=tmp_path))


def test_a_site_without_test_patients_is_refused_and_leaves_no_run_behind(simulate, hospitals: Path, recipe_text, tmp_path: Path) -> None:
    shutil.copytree(hospitals, tmp_path / "sites")
    site = tmp_path / "sites" / "calder.toml"
    site.write_text(site.read_text().replace("test = 0.3", "test = 0.0").replace("Calder General", "[/bold] Calder"))
    (tmp_path / "r.toml").write_text(recipe_text())
    assert "calder: has no test patient" in refused(simulate("r.toml", "--sites", "sites", "--out", "run", cwd=tmp_path))
    assert not (tmp_path / "run").exists()
    site.write_text(site.read_text().replace("test = 0.0", "test = 0.3"))
    run = simulate("r.toml", "--sites", "sites", "--out", "run", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "[/bold] Calder" in run.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps = 4", "stepps = 4"), "rounds.stepps: unknown key, did you mean 'steps'?"),
        (('rule = "fedavg"', 'rule = "flexlorra"'), "no rule is called 'flexlorra', did you mean 'flexlora'?"),
        (('model = "vit"', 'model = "vitt"'), "no model is called 'vitt', did you mean 'vit'?"),
        (('name = "findings"', 'name = "finding"'), "no task is called 'finding', did you mean 'findings'?"),
        (('rule = "fedavg"', 'rule = "os.path"'), "rule = 'os.path': a name is letters"),
        (('name = "tiny"', 'name = "tiny"\nsites = ["aintre"]'), "sites names 'aintre'"),
        (("count = 2", "count = 2\nquorum = 4"), "rounds.quorum = 4 is more than the 3 sites"),
        (('"stripe"]', '"strip"]'), "no site has a training label for 'strip'"),
        (("alpha = 4", "alpha = 4\nmodules = 'query'"), "matches no layer of the base model, which has: fc1, fc2"),
    ],
)
def test_a_recipe_with_a_mistake_is_one_clear_line(
    simulate, hospitals: Path, recipe_text, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    (tmp_path / "r.toml").write_text(recipe_text().replace(*change))
    assert message in refused(simulate("r.toml", "--sites", hospitals, "--out", "run", cwd=tmp_path))
    assert not (tmp_path / "run").exists()


def test_a_base_that_is_not_the_pinned_one_is_refused(simulate, hospitals: Path, recipe_text, tiny_digest: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(recipe_text(sha256="0" * 64))
    line = refused(simulate("r.toml", "--sites", hospitals, cwd=tmp_path))
    assert f"sha256 is {tiny_digest}, the recipe pins {'0' * 64}" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.toml"], "gone.toml: no such file"),
        (["dmeo"], "no file and no recipe is called 'dmeo', did you mean 'demo'?"),
        (["--resume", "."], "holds no run that can be resumed"),
        (["demo", "--resume", "x"], "--resume goes on with a run as it began"),
        (["--resume", "x", "--precision", "nf4"], "--resume goes on with a run as it began"),
        (["demo", "--compare", "ffa,fedavg", "--device", "auto"], "--compare computes on the CPU, in float32"),
        (["demo", "--sites", "empty"], "empty: no site file (*.toml) there"),
        (["demo", "--sites", "gone"], "gone: no such folder of site files"),
        (["demo", "--out", "taken"], "taken: is not empty"),
        (["demo", "--out", "taken/file"], "taken/file: is a file, expected a folder"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(simulate, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    assert message in refused(simulate(*arguments, cwd=tmp_path))


def test_an_unknown_engine_or_command_is_a_usage_error(simulate, tmp_path: Path) -> None:
    run = simulate("demo", "--engine", "warp", cwd=tmp_path)
    assert run.returncode == 2
    assert "'warp' is not one of 'inline', 'flower'" in run.stderr
    run = subprocess.run([COMMAND, "simulat"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "did you mean 'simulate'" in run.stderr


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("patient,image,square,stripe\n", "aintree"),
        ("patient,image,square,stripe\n" + "".join(f"P{n},{n}-0.png,1,1\n" for n in range(30)), "one class"),
        ("patient,image,square,stripe\nP0,missing.png,1,0\n", "missing.png"),
    ],
)
def test_a_site_that_cannot_take_part_is_named_before_anything_runs(
    simulate, hospitals: Path, recipe_text, tmp_path: Path, manifest: str, message: str
) -> None:
    shutil.copytree(hospitals, tmp_path / "sites")
    (tmp_path / "sites" / "aintree" / "manifest.csv").write_text(manifest)
    (tmp_path / "r.toml").write_text(recipe_text())
    run = simulate("r.toml", "--sites", "sites", cwd=tmp_path)
    refused(run)
    assert message in run.stderr
