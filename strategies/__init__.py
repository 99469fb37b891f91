"""How site updates become the next adapter: pure numpy, one file per rule."""

import strategies as _package
from rainhill import config, plugins
from rainhill.recipe import StrategySection
from strategies._rule import Rule, State

__all__ = ["Rule", "State", "from_section"]


def from_section(section: StrategySection) -> Rule:
    """The rule a recipe names, its fields set from the other keys of the table."""
    rule: type[Rule] = plugins.load(_package, section.rule, kind="strategy")
    return config.parse(section.options, rule, origin=f"[strategy] rule = {section.rule!r}")
