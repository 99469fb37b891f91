"""FedAMP: each site is sent a mean of its own, in which near sites count more. Huang et al. 2021, arXiv:2007.03797.

Nearness is that of the products: exp(-|P_i - P_j|^2 / (sharpness * mean squared distance)). The paper's site trains its own adapter, held
near this mean; here it begins each round from the mean, of which its own is a fixed share.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from rainhill.adapter import Adapter, Array
from rainhill.messages import SiteId
from strategies._factors import effective, gram
from strategies._rule import Move
from strategies.personal._personal import Personal


class FedAmp(Personal):
    own: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of a site's own adapter in what it is sent; the others share the rest by nearness."""
    sharpness: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0

    source = "arXiv:2007.03797"
    summary = "each site is sent a mean weighted by similarity to it"
    linear = False
    several = True
    mixed_ranks = False
    too_few = "with two, a site's others are one site, and similarity has nothing to weigh"

    def min_sites(self) -> int:
        return 3

    def down(self, adapter: Adapter, arrays: Mapping[str, Array], site: SiteId) -> Adapter:
        known = _by_site(arrays)
        if site not in known or len(known) < 2:
            return adapter
        weights = self.weights(known, site)
        mixed = {
            name: np.sum([weight * known[other][name].astype(np.float64) for other, weight in weights.items()], axis=0).astype(array.dtype)
            for name, array in adapter.items()
        }
        return adapter.replace(mixed)

    def weights(self, known: Mapping[SiteId, Adapter], site: SiteId) -> dict[SiteId, float]:
        """How much each site's adapter counts for `site`; they sum to 1."""
        others = [other for other in known if other != site]
        distances = np.array([squared_distance(known[site], known[other]) for other in others])
        near = np.exp(-distances / (self.sharpness * max(float(distances.mean()), np.finfo(np.float64).tiny)))
        shares = (1 - self.own) * near / near.sum()
        return {site: self.own, **dict(zip(others, map(float, shares), strict=True))}

    def step(self, moves: Sequence[Move], arrays: Mapping[str, Array]) -> dict[str, Array]:
        return dict(arrays) | {f"{move.site}/{name}": array for move in moves for name, array in move.arrived().items()}


def squared_distance(one: Adapter, other: Adapter) -> float:
    """|P - P'|^2 over the products of all modules."""
    pairs, others = effective(one), effective(other)
    total = 0.0
    for module, pair in pairs.items():
        grams = gram([pair, others[module]], [pair, others[module]])
        total += float(grams[0, 0] - 2 * grams[0, 1] + grams[1, 1])
    return max(total, 0.0)


def _by_site(arrays: Mapping[str, Array]) -> dict[SiteId, Adapter]:
    found: dict[SiteId, dict[str, Array]] = {}
    for key, array in arrays.items():
        site, _, name = key.partition("/")
        found.setdefault(site, {})[name] = array
    return {site: Adapter(own) for site, own in sorted(found.items())}
