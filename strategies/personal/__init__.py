"""Personalisation modes, one file each: how a site ends with a model of its own."""

from strategies.personal._personal import Personal

__all__ = ["Personal"]
