"""The digest by which base weights are pinned, at every site and in every recipe."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from rainhill.errors import BaseModelError

PINNED = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "*.safetensors")
"""Patterns of the files that count. Others in the folder are never read."""


def digest(folder: Path) -> str:
    """sha256 of the listing that `sha256sum` prints, in the folder of the weights, for config, preprocessing and safetensors files."""
    return listing_digest({file.name: _sha256(file) for file in pinned_files(folder)})


def pinned_files(folder: Path) -> list[Path]:
    """By name. Raises BaseModelError where no weights are among them."""
    files = sorted(file for pattern in PINNED for file in folder.glob(pattern))
    if not any(file.suffix == ".safetensors" for file in files):
        raise BaseModelError(f"base model {folder}: no .safetensors file there")
    return files


def listing_digest(sha256s: Mapping[str, str]) -> str:
    """The same, from each file's sha256 by its name."""
    return hashlib.sha256("".join(f"{sha256s[name]}  {name}\n" for name in sorted(sha256s)).encode()).hexdigest()


def _sha256(file: Path) -> str:
    # In pieces: weights may be larger than memory.
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
