"""Becomes `sitecustomize` of every process of a test: imports nothing beyond what an image has."""

import os
import sys
from importlib.abc import MetaPathFinder


class Only(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names and not top.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {name!r}: it is not in the image", name=name)


ALLOWED = set(os.environ["RAINHILL_ONLY"].split(","))
sys.meta_path.insert(0, Only())
