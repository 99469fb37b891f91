"""Measurements, each printed by one command, with its seeds and intervals."""
