"""What a server optimiser is: it sees the adapter that a rule proposes, and decides how far to go there; or it changes how sites train."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rainhill.adapter import Adapter, Array
from rainhill.messages import LocalRule, SiteId, Update
from rainhill.toml import Section
from strategies._rule import Move


def stepped(before: Adapter, moves: Sequence[Move]) -> list[str]:
    """The tensors that some site trained this round: one that none did stays, whatever its momentum."""
    return sorted({name for move in moves for name in move.delta if name in before})


class Optimizer(Section):
    """The default changes nothing. Its arrays are kept with the rule's state."""

    source: ClassVar[str]
    summary: ClassVar[str]
    linear: ClassVar[bool] = True
    """Whether the weighted sum of what the sites send is enough for it."""
    variates: ClassVar[bool] = False
    """Whether each site sends a tensor of its own beside its update, which is averaged as it comes."""
    needs_factors: ClassVar[bool] = True
    """Whether it works entry by entry on A and B, and so needs a rule that keeps their basis from round to round."""

    def init(self, adapter: Adapter) -> dict[str, Array]:  # noqa: ARG002 - an optimiser may need the shapes
        return {}

    def local(self, rule: LocalRule, arrays: Mapping[str, Array], site: SiteId, adapter: Adapter) -> LocalRule:  # noqa: ARG002 - see above
        return rule

    def step(
        self, before: Adapter, proposed: Adapter, moves: Sequence[Move], updates: Sequence[Update], arrays: Mapping[str, Array]
    ) -> tuple[Adapter, dict[str, Array]]:
        """The adapter of the next round, of the dtype and names of `proposed`."""
        del before, moves, updates
        return proposed, dict(arrays)
