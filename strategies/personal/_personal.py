"""What a personalisation mode is: what stays at a site while the rounds run, what each site is sent, and what is fitted after them."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from rainhill.adapter import Adapter, Array
from rainhill.messages import LocalRule, SiteId
from rainhill.recipe import RoundsSection
from rainhill.toml import Section
from strategies._rule import Move

After = Literal["dual", "ditto", "nothing"]


class Personal(Section):
    """The default keeps nothing and sends every site the same. Its arrays are kept with the rule's state."""

    source: ClassVar[str]
    summary: ClassVar[str]
    after: ClassVar[After] = "nothing"
    """What a site fits for itself when the rounds are over: a private pair beside the shared one, its own copy held near it, or nothing."""
    linear: ClassVar[bool] = True
    """Whether the weighted sum of what the sites send is enough for it."""
    void: ClassVar[bool] = False
    """Whether parts that never leave the site are trained while the shared one is, which voids a privacy guarantee of the shared one."""
    several: ClassVar[bool] = False
    """Whether the server holds several adapters and mixes factors among them, so that it needs a rule that keeps their basis."""
    chooses: ClassVar[bool] = False
    """Whether a site tells which of several adapters fits its patients best."""
    trains_norms: ClassVar[bool] = False
    """Whether the weights and biases of the norms are trained too."""
    mixed_ranks: ClassVar[bool] = True
    """Whether sites of other ranks can take part."""
    too_few: ClassVar[str] = ""
    """Why it needs so many sites."""

    def min_sites(self) -> int:
        return 1

    def init(self, adapter: Adapter) -> dict[str, Array]:  # noqa: ARG002 - a mode may need the shapes
        return {}

    def check(self, rounds: RoundsSection) -> None:  # noqa: ARG002 - most modes go with any number of steps
        """Raises ConfigError where it cannot go with these rounds."""
        return

    def local(self, rule: LocalRule) -> LocalRule:
        return rule

    def down(self, adapter: Adapter, arrays: Mapping[str, Array], site: SiteId) -> Adapter:  # noqa: ARG002 - the same for all
        """What this site is sent, of the adapter that the rule made."""
        return adapter

    def final(self, adapter: Adapter, arrays: Mapping[str, Array], site: SiteId) -> Adapter:
        """What this site has when the rounds are over."""
        return self.down(adapter, arrays, site)

    def choices(self, adapter: Adapter, arrays: Mapping[str, Array]) -> tuple[Adapter, ...]:  # noqa: ARG002 - none but the adapter
        """Further adapters for the site to choose from, by the loss on its training patients; none where it is to take what it is sent."""
        return ()

    def moved(self, cluster: int, adapter: Adapter) -> dict[str, Array]:
        """What it remembers of the further adapter of that number, which is now `adapter`."""
        raise NotImplementedError

    def step(self, moves: Sequence[Move], arrays: Mapping[str, Array]) -> dict[str, Array]:
        """What it remembers of the round; `moves` are the sites', before any of them was left out or weighed anew."""
        del moves
        return dict(arrays)
