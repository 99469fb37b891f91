"""What secure aggregation cannot do, or cannot do safely, said before anything is sent."""

import math
from collections.abc import Iterable, Mapping

from rainhill.compression import Encoding
from rainhill.errors import RefusedError
from rainhill.messages import SiteId

FEWEST = 3
_BETWEEN_TWO = (
    "the sum minus one's own update is the other's, so that it would hide nothing between them; "
    "only differential privacy at each site protects one hospital from the other"
)


def check_strategy(name: str, *, linear: bool) -> None:
    if not linear:
        raise RefusedError(f"secure aggregation gives the sum of the updates alone, and strategy {name!r} needs each site's own")


def check_encoding(encoding: Encoding) -> None:
    if encoding != "float32":
        raise RefusedError(
            f"secure aggregation sends masked whole numbers, which encoding {encoding!r} cannot make smaller; take 'float32'"
        )


def check_weights(weights: Mapping[SiteId, int]) -> None:
    if len(weights) == 2:
        raise RefusedError(f"secure aggregation among 2 sites ({' and '.join(sorted(weights))}): {_BETWEEN_TWO}")
    if len(weights) < FEWEST:
        raise RefusedError(f"secure aggregation among {len(weights)} sites: at least {FEWEST} are needed")
    for site, weight in sorted(weights.items()):
        if weight < 1:
            raise RefusedError(f"{site}: weight {weight} is not a whole number of at least 1")


def check_sites(sites: Iterable[SiteId], *, dropouts: float) -> None:
    """All that can be said before the first round of so many sites."""
    weights = dict.fromkeys(sites, 1)
    check_weights(weights)
    check_quorum(quorum_for(len(weights), dropouts=dropouts), len(weights))


def quorum_for(sites: int, *, dropouts: float) -> int:
    """How many of so many sites stay, where this share of them may drop out in a round."""
    if not (math.isfinite(dropouts) and 0 <= dropouts < 1):
        raise RefusedError(f"secure aggregation: dropouts {dropouts} is not a share of at least 0 and below 1")
    # A share such as 0.3 is a little less than it says in binary: 0.3 of 10 is three sites all the same.
    gone = math.floor(dropouts * sites + 1e-9)
    if 2 * (sites - gone) <= sites:
        raise RefusedError(
            f"secure aggregation: dropouts {dropouts:g} of {sites} sites leaves {sites - gone}, "
            f"and more than half, {sites // 2 + 1}, must stay"
        )
    return sites - gone


def check_quorum(quorum: int, sites: int) -> None:
    if quorum > sites:
        raise RefusedError(f"secure aggregation: quorum {quorum} is more than the {sites} sites")
    if 2 * quorum <= sites:
        raise RefusedError(f"secure aggregation: quorum {quorum} is not more than half of the {sites} sites")
    if quorum < FEWEST:
        raise RefusedError(f"secure aggregation: quorum {quorum} is below {FEWEST}; of two sites that stay, {_BETWEEN_TWO}")


def check_graph(degree: int, threshold: int, sites: int) -> None:
    if not 2 <= degree < sites or (degree % 2 and degree != sites - 1):
        raise RefusedError(
            f"secure aggregation: degree {degree} is neither {sites - 1}, all the others, nor an even number from 2 below it"
        )
    holders = degree + 1
    if threshold > holders:
        raise RefusedError(f"secure aggregation: threshold {threshold} is more than the {holders} holders of a site's shares")
    if 2 * threshold <= holders:
        raise RefusedError(
            f"secure aggregation: threshold {threshold} is not more than half of the {holders} holders of a site's shares, "
            "so that a lying coordinator could rebuild both of its secrets"
        )
