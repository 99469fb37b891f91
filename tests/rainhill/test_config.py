from pathlib import Path

import pytest

from client.tasks.findings import Findings
from rainhill.config import SiteConfig
from rainhill.errors import ConfigError
from rainhill.recipe import Recipe, read_recipe
from rainhill.toml import parse, read_toml


def refused(path: Path, text: str, model: type = SiteConfig) -> str:
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_toml(path, model)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "a-b"', "name = 'a-b': a name is letters"),
        ('nmae = "a"', "nmae: unknown key, did you mean 'name'?"),
        ("title = 'x'", "name: missing"),
        ('name = "a"\n[data]\nmanifest = "m"\n[data.split]\nval = 2', "data.split.val = 2: expected less than 1"),
        ('name = "a"\n[data]\nmanifest = "m"\n[data.split]\nval = 0.5\ntest = 0.6', "val 0.5 and test 0.6 leave no patient to train on"),
        ('name = "a"\n[data]\nmanifest = "m"\n[data.split]\nfolds = 5\nfold = 5', "fold 5 is not one of 0 to 4"),
        ('name = "a"\n[privacy]\nepsilon = 3\nepsilon_per_run = 8', "epsilon_per_run = 8 is above epsilon = 3"),
        (
            'name = "a"\n[data]\nmanifest = "m"\n[privacy]\nepsilon = 3',
            "data.split.by = 'labels' with [privacy]: with one patient more, others too would be trained on; set by = \"patient\"",
        ),
        ('name = "a"\n[data]\nmanifst = "m"', "data.manifst: unknown key, did you mean 'manifest'?"),
        ('name = "a"\n[data]\nmanifest = "m"\n[data.split]\nseed = -1', "data.split.seed = -1: expected greater"),
        ('name = "a"\n[data]\nmanifest = "~nobody.here/m"', "data.manifest = '~nobody.here/m': there is no such user's home folder"),
        ('name = "a"\n[data]\nmanifest = "a\\u0000b"', "a path holds no NUL"),
        ('name = "a"\n"b\\nc" = 1', "'b\\nc': unknown key"),
        (f'name = "{"x-" * 900}"', "x-x-x...x-x-"),
        ("name = ", "not valid TOML"),
        (f"name = {'[' * 3000}", "not valid TOML: nested too deeply"),
        (f"name = {'1' * 5000}", "not valid TOML: Exceeds the limit"),
    ],
)
def test_a_site_file_names_the_key_and_both_values(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path / "site.toml", text)


def test_a_byte_order_mark_is_not_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('\ufeffname = "a"')
    assert read_toml(tmp_path / "site.toml", SiteConfig).name == "a"


def test_a_wrong_item_of_a_list_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        parse({"findings": [1]}, Findings, origin="[task]")
    assert str(error.value) == "[task]: findings.0 = 1: expected a valid string"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: no such file"):
        read_toml(tmp_path / "gone.toml", SiteConfig)
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path / "latin.toml", SiteConfig)


def test_a_recipe_refuses_what_it_does_not_declare(recipe_file: Path) -> None:
    text = recipe_file.read_text()
    assert "rounds.coumt: unknown key, did you mean 'count'?" in refused(recipe_file, text.replace("count =", "coumt ="), Recipe)
    assert "base.sha256 = 'abc'" in refused(recipe_file, text.replace(text.split('sha256 = "')[1].split('"')[0], "abc"), Recipe)
    assert "rounds.learning_rate = -1.0" in refused(recipe_file, text.replace("learning_rate = 5e-3", "learning_rate = -1.0", 1), Recipe)
    assert "named twice: a" in refused(recipe_file, 'sites = ["a", "a"]\n' + text, Recipe)


def test_the_sha256_of_a_recipe_is_of_what_it_says_not_how(recipe_file: Path, tmp_path: Path) -> None:
    recipe = read_recipe(recipe_file)
    other = tmp_path / "other.toml"
    other.write_text("# a comment\n" + recipe_file.read_text().replace("rank = 2\nalpha = 4", "alpha = 4.0\nrank = 2"))
    assert read_recipe(other).sha256 == recipe.sha256
    assert recipe.model_copy(update={"seed": 1}).sha256 != recipe.sha256
    assert Recipe.model_validate_json(recipe.to_json()) == recipe


@pytest.mark.parametrize("data", ['columns = { split = "part" }', 'split = { by = "patient" }'])
def test_under_privacy_a_site_deals_patients_one_by_one_or_brings_a_split(tmp_path: Path, data: str) -> None:
    (tmp_path / "a.toml").write_text(f'name = "a"\n[privacy]\nepsilon = 3\n[data]\nmanifest = "m"\n{data}\n')
    assert read_toml(tmp_path / "a.toml", SiteConfig).privacy is not None


def test_a_site_tells_no_outcome_where_it_withholds_its_numbers(tmp_path: Path) -> None:
    text = 'name = "a"\n[policy]\ntell_outcome = true\n[privacy]\nepsilon = 3\nrelease = "{}"\n'
    for release in ("withheld", "noised"):
        said = refused(tmp_path / "a.toml", text.format(release), SiteConfig)
        assert f"a.toml: policy.tell_outcome = true with privacy.release = '{release}'" in said
    (tmp_path / "a.toml").write_text(text.format("suppressed"))
    assert read_toml(tmp_path / "a.toml", SiteConfig).policy.tell_outcome


@pytest.mark.parametrize("hours", ["7-19", "19:00", "24:00-07:00", "19:00-07:00 ", "19:00-07:60"])
def test_hours_that_are_none_are_said_to_be_none(tmp_path: Path, hours: str) -> None:
    said = refused(tmp_path / "a.toml", f'name = "a"\n[policy]\nhours = "{hours}"\n', SiteConfig)
    assert said.endswith(f'policy.hours = {hours!r}: is no window of a day such as "19:00-07:00"')
