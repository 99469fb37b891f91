"""Plug-ins by module name: a strategy, task or model is one file, and its class is the module's name in CamelCase."""

import importlib
import pkgutil
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from rainhill.errors import PluginError
from rainhill.text import did_you_mean, shown


def names(package: ModuleType) -> list[str]:
    """Every plug-in of the package: its modules that define a class of their own name."""
    return sorted(info.name for info in pkgutil.iter_modules(package.__path__) if not info.ispkg and not info.name.startswith("_"))


def load(package: ModuleType, name: str, *, kind: str) -> type[Any]:
    """The class that the module `name` of the package is there for; PluginError offers the nearest name."""
    # Only a plain module of this one package can be named: a recipe never reaches `os.path` or a private module.
    if not name.isidentifier() or name not in names(package):
        raise PluginError(unknown(names(package), name, kind))
    module = importlib.import_module(f"{package.__name__}.{name}")
    wanted = name.replace("_", "").casefold()
    for attribute, value in vars(module).items():
        if attribute.casefold() == wanted and isinstance(value, type) and value.__module__ == module.__name__:
            return value
    raise PluginError(f"{kind} {name!r}: {module.__file__} defines no class of that name")


def unknown(known: Sequence[str], name: str, kind: str) -> str:
    """The sentence that refuses a name, with the nearest that there is."""
    return f"no {kind} is called {shown(name)!r}{did_you_mean(name, known, cutoff=0.4)} (there are: {', '.join(known)})"
