"""What both sides of the federation agree on: adapters, messages, recipes, errors."""

__version__ = "0.1.0"
