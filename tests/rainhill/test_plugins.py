import sys
from pathlib import Path
from types import ModuleType

import pytest

import strategies
from rainhill import plugins
from rainhill.errors import PluginError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "two_words.py").write_text("class TwoWords: pass\nclass Other: pass\n")
    (folder / "empty.py").write_text("from pathlib import Path as Empty\n")
    (folder / "_private.py").write_text("class Private: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import shelf

    yield shelf
    for name in [name for name in sys.modules if name.partition(".")[0] == "shelf"]:
        del sys.modules[name]


def test_a_module_is_found_by_its_name(package: ModuleType) -> None:
    assert plugins.names(package) == ["empty", "two_words"]
    assert plugins.load(package, "two_words", kind="thing").__name__ == "TwoWords"


def test_the_nearest_name_is_offered(package: ModuleType) -> None:
    with pytest.raises(PluginError, match="no thing is called 'two_word', did you mean 'two_words'"):
        plugins.load(package, "two_word", kind="thing")


def test_an_imported_class_is_not_a_plugin(package: ModuleType) -> None:
    with pytest.raises(PluginError, match="defines no class of that name"):
        plugins.load(package, "empty", kind="thing")


@pytest.mark.parametrize("name", ["os.path", "..errors", "_private", "__init__", "", "a/b", "flexlora.py"])
def test_nothing_outside_the_shelf_can_be_named(package: ModuleType, name: str) -> None:
    for shelf in (package, strategies):
        with pytest.raises(PluginError, match="is called"):
            plugins.load(shelf, name, kind="thing")
