from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest

from tests.client.hospital import Asks, asks, join

Asked = Callable[..., Asks]


@pytest.fixture(scope="session")
def _joined(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_digest: str) -> Path:
    return join(tmp_path_factory.mktemp("joined"), tiny_base, tiny_digest)


@pytest.fixture
def site_file(_joined: Path, tmp_path: Path) -> Path:
    """Of bury, which has joined and was asked for nothing yet."""
    copytree(_joined.parent, tmp_path / "site")
    return tmp_path / "site" / "bury.toml"


@pytest.fixture(scope="session")
def plain(recipe_text: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Asks:
    """Two rounds without privacy."""
    return asks(recipe_text(), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def private(recipe_text: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Asks:
    """Two rounds under epsilon 6."""
    return asks(recipe_text(rule="alternating") + "[privacy]\nepsilon = 6\n", tmp_path_factory.mktemp("private"))
