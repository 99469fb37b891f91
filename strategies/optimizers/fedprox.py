"""FedProx: each local step is pulled back to the adapter that was sent. Li et al. 2020, arXiv:1812.06127."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from rainhill.adapter import Adapter, Array
from rainhill.messages import LocalRule, SiteId
from strategies.optimizers._optimizer import Optimizer


class FedProx(Optimizer):
    mu: Annotated[float, Field(gt=0, le=1e3)] = 0.01

    source = "arXiv:1812.06127"
    summary = "local steps pulled back to the sent adapter"
    needs_factors = False

    def local(self, rule: LocalRule, arrays: Mapping[str, Array], site: SiteId, adapter: Adapter) -> LocalRule:  # noqa: ARG002 - alike everywhere
        return replace(rule, mu=self.mu)
