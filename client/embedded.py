"""The base models that ship with Rainhill."""

from pathlib import Path

EMBEDDED = Path(__file__).parent / "models" / "weights"
"""A folder for each."""
