"""`rainhill phantom` and `rainhill adapter`, in one process."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from client.checks import checks
from client.home import SiteHome
from rainhill.adapter import Adapter
from rainhill.config import SiteConfig
from rainhill.errors import ConfigError, RainhillError
from rainhill.toml import read_toml
from sites import hospital
from sites._phantom_cli import adapter, phantom
from sites.consortium import read_sites

SMALL = """
name = "bury"
title = "Bury General"
[phantom]
patients = 10
test_patients = 2
images_per_patient = [1, 1]
size = 64
[phantom.population]
ages = { old = 1.0 }
prevalence = { cardiomegaly = 0.5, effusion = 0.5, pneumothorax = 0.5, consolidation = 0.5, atelectasis = 0.5, nodule = 0.5, oedema = 0.5, device = 0.5 }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a file of one small hospital, and one whose films are its own."""
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "bury.toml").write_text(SMALL)
    (tmp_path / "sites" / "oldham.toml").write_text('name = "oldham"\n[data]\nmanifest = "films.csv"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(command: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], standalone_mode=False)


def told(command: click.Command, *arguments: object) -> str:
    done = typed(command, *arguments)
    assert done.exception is None, (done.output, done.exception)
    return done.stdout


def refused(command: click.Command, *arguments: object) -> str:
    """What `rainhill` says in one line, with exit code 2."""
    error = typed(command, *arguments).exception
    assert isinstance(error, RainhillError | OSError | click.UsageError), error
    return error.format_message() if isinstance(error, click.UsageError) else str(error)


def test_a_phantom_hospital_is_drawn_with_a_file_that_a_site_can_be_rehearsed_with(folder: Path) -> None:
    assert told(phantom, "bury", "--sites", "sites") == "bury/bury.toml: next, `rainhill site init bury/bury.toml`\n"
    home = SiteHome.open(folder / "bury" / "bury.toml")
    assert home.config.privacy is not None and home.config.privacy.noise == "simulated"
    drawn = read_sites(folder / "sites")["bury"].config
    assert home.config.privacy.declared_patients == hospital.training_patients(drawn, seed=0) == 8
    found = {one.name: one for one in checks(home)}
    assert found["data"].ok, found["data"]


def test_a_hospital_that_is_there_keeps_its_file_and_its_films(folder: Path) -> None:
    told(phantom, "bury", "--sites", "sites")
    path = folder / "bury" / "bury.toml"
    path.write_text(path.read_text().replace("Bury General", "Fairfield General"))
    films = {film: film.stat().st_mtime_ns for film in (folder / "bury" / "films").iterdir()}
    assert told(phantom, "bury", "--sites", "sites") == "bury/bury.toml: is there already, and stays as it is\n"
    assert read_toml(path, SiteConfig).title == "Fairfield General"
    assert {film: film.stat().st_mtime_ns for film in (folder / "bury" / "films").iterdir()} == films


def test_another_seed_does_not_draw_over_the_films_that_a_file_is_about(folder: Path) -> None:
    told(phantom, "bury", "--sites", "sites")
    before = (folder / "bury" / "manifest.csv").read_bytes()
    assert "bury: holds other films than bury with seed" in refused(phantom, "bury", "--sites", "sites", "--seed", 1)
    assert (folder / "bury" / "manifest.csv").read_bytes() == before
    told(phantom, "bury", "--sites", "sites", "--seed", 1, "--out", "other")
    assert (folder / "other" / "manifest.csv").read_bytes() != before


def test_a_folder_that_holds_something_else_is_not_drawn_into(folder: Path) -> None:
    """Films of a hospital's own would be gone: those that are drawn replace the folder `films`."""
    (folder / "bury" / "films").mkdir(parents=True)
    (folder / "bury" / "films" / "real.dcm").write_bytes(b"patients")
    assert "bury: holds other films than bury with seed" in refused(phantom, "bury", "--sites", "sites")
    assert (folder / "bury" / "films" / "real.dcm").read_bytes() == b"patients"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("burry",), "no hospital is called 'burry', did you mean 'bury'? (there are: bury, oldham)"),
        (("oldham",), "oldham: is no phantom: its file names films of its own"),
        (("../bury",), "no hospital is called '../bury'"),
        (("bury", "--seed", -1), "-1 is not in the range"),
        (("bury", "--out", "sites/bury.toml"), "is a file"),
        (("bury", "--out", "/proc/nowhere"), "/proc/nowhere"),
    ],
)
def test_what_is_wrong_with_a_phantom_is_one_clear_line(folder: Path, arguments: tuple[object, ...], said: str) -> None:
    assert said in refused(phantom, *arguments, "--sites", "sites")
    assert sorted(path.name for path in folder.iterdir()) == ["sites"]


def test_a_folder_without_hospitals_is_said_to_be_so(folder: Path) -> None:
    (folder / "empty").mkdir()
    assert "empty" in refused(phantom, "bury", "--sites", "empty")
    assert "nowhere" in refused(phantom, "bury", "--sites", "nowhere")


def test_the_first_adapter_of_a_recipe_is_made_the_same_each_time(folder: Path, recipe_file: Path) -> None:
    said = told(adapter, recipe_file)
    first = Adapter.from_bytes((folder / "tiny.safetensors").read_bytes())
    assert said.splitlines() == [
        f"tiny.safetensors: {len(first)} tensors, fingerprint {first.fingerprint()}",
        f"Next: `rainhill coordinator run {recipe_file} --adapter tiny.safetensors`",
    ]
    told(adapter, recipe_file, "--out", "again.safetensors")
    assert Adapter.from_bytes((folder / "again.safetensors").read_bytes()) == first


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("privat",), "no file and no recipe is called 'privat', did you mean 'private'?"),
        (("nowhere.toml",), "nowhere.toml: no such file"),
        (("tiny.toml", "--out", "sites"), "'sites' is a directory"),
        (("tiny.toml", "--out", "/proc/nowhere/a.safetensors"), "/proc/nowhere"),
    ],
)
def test_what_is_wrong_with_an_adapter_is_one_clear_line(
    folder: Path, recipe_text: Callable[..., str], arguments: tuple[object, ...], said: str
) -> None:
    (folder / "tiny.toml").write_text(recipe_text())
    assert said in refused(adapter, *arguments)
    assert not list(folder.glob("*.safetensors"))


def test_a_recipe_that_needs_a_public_hospital_is_refused_where_there_is_none(folder: Path, recipe_text: Callable[..., str]) -> None:
    (folder / "tiny.toml").write_text(recipe_text().replace("alpha = 4\n", 'alpha = 4\ninit = "gradient"\n', 1))
    with pytest.raises(ConfigError, match="source"):
        raise typed(adapter, "tiny.toml", "--sites", "sites").exception or AssertionError


def test_a_site_file_is_written_as_a_site_reads_it(folder: Path) -> None:
    told(phantom, "bury", "--sites", "sites", "--out", "elsewhere")
    text = (folder / "elsewhere" / "bury.toml").read_text()
    assert "phantom" not in tomllib.loads(text) and str(folder) not in text
