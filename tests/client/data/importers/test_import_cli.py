import resource

from click.testing import CliRunner

from client.data._import_cli import import_
from rainhill.errors import ConfigError, DataError
from sites.consortium import read_sites

HEADER = "image,patient,report,date,view,opacity"


def run(*arguments):
    return CliRunner().invoke(import_, [str(one) for one in arguments])


def small(disk):
    disk.table(
        "films.csv",
        HEADER,
        ["1.png", "P1", "FINDINGS: Secret one.", "2024-01-01", "PA", 1],
        ["2.png", "P1", "FINDINGS: Secret two.", "2024-02-01", "PA", 0],
        ["3.png", "P2", "", "", "LL", ""],
    )
    disk.film("1.png", "2.png", "3.png")
    return disk.root


def test_the_command_tells_what_it_found_and_what_comes_next(disk, tmp_path):
    folder, out = small(disk), tmp_path / "sites"
    told = run("csv_reports", folder, "--out", out, "--name", "north", "--set", "labels=opacity")
    assert told.exit_code == 0, told.output
    assert f"a table of reports in {folder}: 2 films of 1 patient" in told.output
    assert "2 films with one, 0 with an indication, 1 with a prior report" in told.output
    assert "left out    LL 1 (--views all takes them)" in told.output
    assert told.output.split("opacity")[1].split()[:4] == ["1", "1", "0", "0"]
    assert "terms: " in told.output
    assert f"next: rainhill simulate RECIPE.toml --sites {out}" in told.output
    assert 'findings = ["opacity"]' in told.output
    assert "Secret" not in told.output


def test_a_simulation_finds_the_sites_of_several_imports_in_one_folder(disk, tmp_path):
    folder, out = small(disk), tmp_path / "sites"
    for name in ("north", "south"):
        assert run("csv_reports", folder, "--out", out, "--name", name, "--views", "all").exit_code == 0
    found = read_sites(out)
    assert list(found) == ["north", "south"]
    assert found["south"].config.data.images == folder
    assert found["south"].config.data.manifest.name == "south.csv"
    assert (out / "south.csv").stat().st_mode & 0o777 == 0o600


def test_what_an_earlier_import_wrote_is_kept_unless_asked(disk, tmp_path):
    folder, out = small(disk), tmp_path / "sites"
    assert run("csv_reports", folder, "--out", out).exit_code == 0
    (out / "csv_reports.toml").write_text("mine")
    again = run("csv_reports", folder, "--out", out)
    assert isinstance(again.exception, ConfigError)
    assert "is there already; --replace" in str(again.exception)
    assert (out / "csv_reports.toml").read_text() == "mine"
    assert run("csv_reports", folder, "--out", out, "--replace").exit_code == 0
    assert (out / "csv_reports.toml").read_text() != "mine"


def test_an_import_that_fails_leaves_nothing(disk, tmp_path):
    folder, out = small(disk), tmp_path / "sites"
    (folder / "1.png").unlink()
    failed = run("csv_reports", folder, "--out", out)
    assert isinstance(failed.exception, DataError)
    assert not out.exists()
    told = run("csv_reports", folder, "--out", out, "--skip-missing")
    assert "note: 1 image not there, left out" in told.output


def test_a_refusal_leaves_folders_that_were_there(disk, tmp_path):
    folder, out = small(disk), tmp_path / "all" / "sites"
    (folder / "1.png").unlink()
    assert run("csv_reports", folder, "--out", out).exit_code != 0
    assert not (tmp_path / "all").exists()
    out.mkdir(parents=True)
    assert run("csv_reports", folder, "--out", out).exit_code != 0
    assert list(out.iterdir()) == []


def full(size):
    """No file may grow beyond it."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))


def test_a_disk_that_is_full_before_the_site_file_is_whole_leaves_no_manifest(disk, tmp_path):
    findings = [f"finding_{number}" for number in range(100)]
    disk.table("films.csv", ",".join(["image", "patient", "report", *findings]), ["1.png", "P1", "Secret.", *["1"] * 100])
    disk.film("1.png")
    out, allowed = tmp_path / "sites", resource.getrlimit(resource.RLIMIT_FSIZE)
    asked = ("csv_reports", disk.root, "--out", out, "--set", f"labels={','.join(findings)}")
    full(2000)
    try:
        first = run(*asked)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert isinstance(first.exception, OSError)
    assert not out.exists()
    assert run(*asked).exit_code == 0
    manifest, site_file = out / "csv_reports.csv", out / "csv_reports.toml"
    before = manifest.read_bytes(), site_file.read_bytes()
    assert len(before[0]) < 2000 < len(before[1])
    full(2000)
    try:
        assert isinstance(run(*asked, "--replace", "--limit", 1).exception, OSError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert (manifest.read_bytes(), site_file.read_bytes()) == before
    assert len(list(out.iterdir())) == 2


def test_the_next_command_can_be_pasted_where_the_folder_has_spaces(disk, tmp_path):
    out = tmp_path / "my sites"
    told = run("csv_reports", small(disk), "--out", out)
    assert f"next: rainhill simulate RECIPE.toml --sites '{out}'\n" in told.output


def test_the_layouts_are_listed_with_their_options():
    told = run("--list")
    assert told.exit_code == 0
    assert "mimic_cxr         MIMIC-CXR; --set reports" in told.output
    assert len(told.output.splitlines()) == 10


def test_an_option_without_a_value_and_a_name_that_is_none_are_refused(disk, tmp_path):
    folder = small(disk)
    assert "expected KEY=VALUE" in run("csv_reports", folder, "--out", tmp_path / "a", "--set", "labels").output
    bad = run("csv_reports", folder, "--out", tmp_path / "a", "--name", "a-b")
    assert isinstance(bad.exception, ConfigError)
    assert "name = 'a-b'" in str(bad.exception)
    assert not (tmp_path / "a").exists()
