"""Sites with small updates, and a round of theirs that can be stopped at any message."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from perf._secure_round import identities
from rainhill.adapter import Adapter
from rainhill.secagg import Layout, Quantiser, Terms, agree, client, server

SHAPES = {"m.lora_A": (2, 5), "m.lora_B": (4, 2), "head.bias": (3,)}
LAYOUT = Layout(shapes=SHAPES)
BOUND = 0.5


def updates(count: int, seed: int = 0) -> dict[str, Adapter]:
    rng = np.random.default_rng(seed)
    return {
        f"s{number:02d}": Adapter({name: rng.uniform(-BOUND, BOUND, shape).astype(np.float32) for name, shape in SHAPES.items()})
        for number in range(count)
    }


def terms_of(count: int, *, weights: Mapping[str, int] | None = None, number: int = 1, **more) -> Terms:
    return agree(
        run="r", round=number, weights=weights or {f"s{number:02d}": 1 for number in range(count)}, layout=LAYOUT, bound=BOUND, **more
    )


def sparse_terms(count: int, *, degree: int, threshold: int, quorum: int) -> Terms:
    weights = {f"s{number:02d}": 1 for number in range(count)}
    quantiser = Quantiser.finest(bound=BOUND, total_weight=count)
    return Terms(run="r", round=1, weights=weights, layout=LAYOUT, quantiser=quantiser, quorum=quorum, degree=degree, threshold=threshold)


def plain_sum(inputs: Mapping[str, Adapter], terms: Terms, survivors: tuple[str, ...]) -> np.ndarray:
    return np.sum([terms.weights[site] * LAYOUT.flatten(inputs[site]) for site in survivors], axis=0)


@dataclass(frozen=True)
class Round:
    """Steps that a test looks into; each is made once, when it is asked for."""

    terms: Terms
    inputs: Mapping[str, Adapter]
    silent: tuple[str, ...] = ()
    """Sites that share, and give no masked input."""

    @cached_property
    def who(self):
        return identities(self.inputs)

    @cached_property
    def advertised(self):
        return {site: client.advertise(self.terms, site, identity=self.who.private[site]) for site in self.inputs}

    @cached_property
    def gathered(self):
        return server.gather(self.terms, [sent for _, sent in self.advertised.values()], pinned=self.who.pinned)

    @property
    def roster(self):
        return self.gathered[1]

    @cached_property
    def shared(self):
        return {site: client.share(state, self.roster, pinned=self.who.pinned) for site, (state, _) in self.advertised.items()}

    @cached_property
    def routed(self):
        return server.route(self.gathered[0], [sent for _, sent in self.shared.values()])

    @property
    def inboxes(self):
        return self.routed[1]

    @cached_property
    def masked(self):
        return {
            site: client.mask(state, self.inboxes[site], self.inputs[site])
            for site, (state, _) in self.shared.items()
            if site not in self.silent
        }

    @cached_property
    def added(self):
        return server.add_up(self.routed[0], [sent for _, sent in self.masked.values()])

    @property
    def request(self):
        return self.added[1]

    @cached_property
    def confirmed(self):
        return {site: client.confirm(state, self.request, identity=self.who.private[site]) for site, (state, _) in self.masked.items()}

    @cached_property
    def confirmations(self):
        return server.confirm(self.added[0], [sent for _, sent in self.confirmed.values()], pinned=self.who.pinned)

    @cached_property
    def revealed(self):
        return {site: client.reveal(state, self.confirmations, pinned=self.who.pinned) for site, (state, _) in self.confirmed.items()}

    @cached_property
    def result(self):
        return server.unmask(self.added[0], self.revealed.values())
