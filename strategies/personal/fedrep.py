"""FedRep: the head stays at the site, and is fitted anew to each adapter before that is trained. Collins et al. 2021, arXiv:2102.07078."""

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from rainhill.errors import ConfigError
from rainhill.messages import LocalRule
from rainhill.recipe import RoundsSection
from strategies.personal._personal import Personal


class FedRep(Personal):
    head_steps: Annotated[int, Field(ge=1)] = 5
    """So many of a round's steps move the head alone; the rest the adapter alone."""

    source = "arXiv:2102.07078"
    summary = "the head stays at the site, and is fitted first"
    void = True

    def check(self, rounds: RoundsSection) -> None:
        if self.head_steps >= rounds.steps:
            raise ConfigError(
                f"[strategy] personal: head_steps = {self.head_steps} leaves none of a round's {rounds.steps} steps to the adapter"
            )

    def local(self, rule: LocalRule) -> LocalRule:
        return replace(rule, keep=(*rule.keep, "head.*"), kept_first=self.head_steps)
