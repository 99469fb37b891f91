"""Robust rules, one file each: what a few broken or hostile sites send moves the result little."""

from strategies.robust._robust import Robust

__all__ = ["Robust"]
