"""A recipe's whole strategy: a rule, and around it what weighs the sites, distrusts them, steps at the server, and is theirs alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rainhill.adapter import Adapter, Array
from rainhill.errors import RefusedError
from rainhill.messages import LocalRule, SiteId, Update
from rainhill.recipe import Weights
from strategies._factors import narrow, widen
from strategies._rule import Move, Rule, Shape, State
from strategies.optimizers import Optimizer
from strategies.personal import Personal
from strategies.personal.dual import Dual
from strategies.robust import Robust

_RULE, _OPTIMIZER, _PERSONAL = "rule/", "optimizer/", "personal/"


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """Made by `strategies.from_section`, which refuses what cannot be combined. Mutates nothing that it is given."""

    rule: Rule
    weights: Weights = "equal"
    cap: float = 1.0
    optimizer: Optimizer | None = None
    robust: Robust | None = None
    personal: Personal = field(default_factory=Dual)
    ranks: Mapping[SiteId, int] = field(default_factory=dict)

    def first(self, adapter: Adapter) -> Adapter:
        """What round 1 starts from."""
        return self.rule.first(adapter)

    def init(self, adapter: Adapter) -> State:
        own = self.rule.init(adapter)
        return replace(own, arrays=_joined(own.arrays, self.optimizer.init(adapter) if self.optimizer else {}, self.personal.init(adapter)))

    def down(self, adapter: Adapter, state: State, site: SiteId) -> Adapter:
        """What the site is sent: the adapter, or one of its own, at the rank that the site takes."""
        return self._at_rank(self.personal.down(adapter, _only(state.arrays, _PERSONAL), site), site)

    def choices(self, adapter: Adapter, state: State, site: SiteId) -> tuple[Adapter, ...]:
        """Further adapters that the site may begin from in place of that."""
        return tuple(self._at_rank(one, site) for one in self.personal.choices(adapter, _only(state.arrays, _PERSONAL)))

    def final(self, adapter: Adapter, state: State, site: SiteId) -> Adapter:
        """What the site has of the federation when the rounds are over, but for what it kept itself."""
        return self._at_rank(self.personal.final(adapter, _only(state.arrays, _PERSONAL), site), site)

    def _at_rank(self, adapter: Adapter, site: SiteId) -> Adapter:
        return narrow(adapter, self.ranks[site]) if site in self.ranks else adapter

    def local(self, adapter: Adapter, state: State, site: SiteId) -> LocalRule:
        """How the site trains `adapter`, which is what it is sent."""
        rule = self.personal.local(self.rule.local(self._of_rule(state), site))
        return self.optimizer.local(rule, _only(state.arrays, _OPTIMIZER), site, adapter) if self.optimizer else rule

    def encode(self, sent: Adapter, trained: Adapter, rule: LocalRule, number: int) -> Adapter:
        return self.rule.encode(sent, trained, rule, number)

    def uplink(self, sent: Adapter, rule: LocalRule) -> dict[str, Shape]:
        return self.rule.uplink(sent, rule)

    def step(self, adapter: Adapter, updates: Sequence[Update], state: State) -> tuple[Adapter, State]:
        """The adapter of the next round. `updates` is never fewer than `min_sites`."""
        own = _only(state.arrays, _PERSONAL)
        moves = [self._move(adapter, update, state, weight) for update, weight in zip(updates, self.shares(updates), strict=True)]
        personal = self.personal.step(moves, own)
        clusters = (adapter, *self.personal.choices(adapter, own))
        merged, following, kept = self._merged(adapter, [move for move in moves if move.choice == 0], updates, state)
        for number, cluster in enumerate(clusters[1:], start=1):
            # A cluster is merged as the adapter itself is, by the sites that chose it.
            other, _, _ = self._merged(cluster, [move for move in moves if move.choice == number], updates, state)
            personal |= self.personal.moved(number, other)
        return merged, replace(following, arrays=_joined(following.arrays, kept, personal))

    def _merged(
        self, adapter: Adapter, moves: Sequence[Move], updates: Sequence[Update], state: State
    ) -> tuple[Adapter, State, Mapping[str, Array]]:
        """Where these moves take the adapter, the rule's state and the optimiser's arrays."""
        if not moves:
            return adapter, replace(self._of_rule(state), round=state.round + 1), _only(state.arrays, _OPTIMIZER)
        total = sum(move.weight for move in moves)
        weighed: Sequence[Move] = [replace(move, weight=move.weight / total) for move in moves]
        if self.robust is not None:
            weighed = self.robust.combine(adapter, weighed)
        proposed, following = self.rule.step(adapter, weighed, self._of_rule(state))
        if self.optimizer is None:
            return proposed, following, {}
        after, kept = self.optimizer.step(adapter, proposed, weighed, updates, _only(state.arrays, _OPTIMIZER))
        return after, following, kept

    def min_sites(self) -> int:
        """Fewer valid updates in a round than this, and what was composed means nothing."""
        return max(self.rule.traits.min_sites, self.robust.min_sites() if self.robust else 1, self.personal.min_sites())

    def why_so_many(self) -> str:
        """What `min_sites` rests on, for the one who has fewer."""
        if self.robust is not None and self.robust.min_sites() == self.min_sites():
            return f"{type(self.robust).__name__} can tell the odd one out only among so many"
        return self.personal.too_few or "fewer give nothing to merge"

    def shares(self, updates: Sequence[Update]) -> list[float]:
        """The weights w_i of the updates; they sum to 1. Raises RefusedError where they go by patients, and a site says no number."""
        if self.weights == "equal":
            return [1 / len(updates)] * len(updates)
        sizes = [_size(update) for update in updates]
        # Where so many sites stayed away that the cap cannot hold, the others count alike.
        return [size / sum(sizes) for size in sizes] if self.weights == "patients" else capped(sizes, max(self.cap, 1 / len(sizes)))

    @property
    def one_factor(self) -> bool:
        """Whether a site sends one factor a round, or a core, so that products are as linear as the factor is."""
        return len(self.rule.local(State(), "").send) == 1

    @property
    def linear(self) -> bool:
        """Whether the weighted sum of what the sites send is enough for all of it."""
        around = (self.optimizer is None or self.optimizer.linear) and self.robust is None
        return self.rule.traits.linear and self.personal.linear and around

    def _of_rule(self, state: State) -> State:
        return replace(state, arrays=_only(state.arrays, _RULE))

    def _move(self, adapter: Adapter, update: Update, state: State, weight: float) -> Move:
        offered = (self.down(adapter, state, update.site), *self.choices(adapter, state, update.site))
        sent, delta = offered[update.choice], update.delta
        if update.site in self.ranks:
            sent, delta = widen(sent, adapter), widen(delta, adapter)
        return Move(site=update.site, weight=weight, sent=sent, delta=delta, choice=update.choice)


def capped(sizes: Sequence[float], cap: float) -> list[float]:
    """Shares by size of which none is above `cap`, at least 1 / n: what a large site loses goes to the others, by their sizes."""
    shares = [size / sum(sizes) for size in sizes]
    held: set[int] = set()
    while over := {place for place, share in enumerate(shares) if share > cap and place not in held}:
        held |= over
        rest = sum(size for place, size in enumerate(sizes) if place not in held)
        left = 1.0 - cap * len(held)
        shares = [cap if place in held else left * size / rest for place, size in enumerate(sizes)]
    return shares


def _size(update: Update) -> float:
    if update.patients is None:
        raise RefusedError(f"{update.site}: gives no number of patients, and updates are weighed by it")
    return float(update.patients)


def _joined(of_rule: Mapping[str, Array], of_optimizer: Mapping[str, Array], of_personal: Mapping[str, Array]) -> dict[str, Array]:
    parts = ((_RULE, of_rule), (_OPTIMIZER, of_optimizer), (_PERSONAL, of_personal))
    return {prefix + name: array for prefix, arrays in parts for name, array in arrays.items()}


def _only(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
