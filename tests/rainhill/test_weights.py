import subprocess
from pathlib import Path

import pytest

from rainhill.errors import BaseModelError
from rainhill.weights import digest


def weights(folder: Path) -> Path:
    for name in ("config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "preprocessor_config.json"):
        (folder / name).write_bytes(name.encode() * 1000)
    return folder


def test_the_digest_is_what_sha256sum_gives(tmp_path: Path) -> None:
    listing = subprocess.run(
        "sha256sum config.json *.safetensors preprocessor_config.json | sha256sum",
        shell=True,
        cwd=weights(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert listing.stdout.split()[0] == digest(tmp_path)


def test_only_the_pinned_files_count_and_each_of_them_does(tmp_path: Path) -> None:
    before = digest(weights(tmp_path))
    (tmp_path / "README.md").write_text("what it is")
    assert digest(tmp_path) == before
    (tmp_path / "preprocessor_config.json").unlink()
    assert digest(tmp_path) != before


def test_a_folder_without_weights_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BaseModelError, match=f"base model {tmp_path}: no .safetensors file there"):
        digest(tmp_path)
