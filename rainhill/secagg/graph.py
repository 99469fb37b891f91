"""Who shares masks with whom: everybody with everybody, or each with its neighbours on a ring in random order.

Bell et al. 2020, ePrint 2020/704, section 3: a Harary graph under a random relabelling. The ring is cut only where degree / 2 sites in a
row are gone, and a neighbourhood is a sample without replacement, so that both risks have exact bounds.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence

from rainhill.errors import RefusedError
from rainhill.messages import SiteId

SECURITY_BITS = 40
"""2^-40: the chance that in one round some site is exposed."""
CORRECTNESS_BITS = 30
"""2^-30: the chance that in one round some site's secrets cannot be rebuilt."""


def holders(sites: Sequence[SiteId], *, degree: int, seed: bytes) -> Mapping[SiteId, tuple[SiteId, ...]]:
    """Each site's closed neighbourhood, itself included, in the order of their names. The same for everybody who has the same seed."""
    if degree >= len(sites) - 1:
        return dict.fromkeys(sites, tuple(sorted(sites)))
    ring = sorted(sites, key=lambda site: hashlib.sha256(seed + site.encode()).digest())
    half = degree // 2
    return {site: tuple(sorted(ring[(place + offset) % len(ring)] for offset in range(-half, half + 1))) for place, site in enumerate(ring)}


def sparse(sites: int, *, dropouts: float, colluding: float) -> tuple[int, int]:
    """A small degree and its threshold that withstand so large a share of dropouts and of sites on the coordinator's side.

    Then each site has at least `threshold` holders left, and fewer than 2 threshold - holders of them collude. Among a hundred sites or
    fewer there is hardly one below sites - 1: RefusedError where there is none.
    """
    gone, bad = math.floor(dropouts * sites + 1e-9), math.floor(colluding * sites + 1e-9)
    places = range(1, (sites - 2) // 2 + 1)
    low, high = 0, len(places)
    while low < high:
        middle = (low + high) // 2
        if _threshold(sites, 2 * places[middle], gone, bad) is None:
            low = middle + 1
        else:
            high = middle
    threshold = _threshold(sites, 2 * places[low], gone, bad) if low < len(places) else None
    if threshold is None:
        raise RefusedError(
            f"secure aggregation: no sparse graph of {sites} sites withstands dropouts {dropouts:g} and colluding {colluding:g}; "
            "take the complete one"
        )
    return 2 * places[low], threshold


def _threshold(sites: int, degree: int, gone: int, bad: int) -> int | None:
    """The smallest that is safe, if that many holders are left with near certainty."""
    if math.log2(sites) + degree / 2 * math.log2((gone + bad) / sites or 2.0**-64) > -SECURITY_BITS:
        return None
    count = degree + 1
    colluding = _first(range(count + 1), lambda k: sites * _tail(sites, bad, count, k + 1) < 2.0**-SECURITY_BITS)
    lost = _first(range(count + 1), lambda k: sites * _tail(sites, gone, count, k + 1) < 2.0**-CORRECTNESS_BITS)
    threshold = (count + colluding) // 2 + 1
    return threshold if threshold <= count - lost else None


def _first(values: range, holds: Callable[[int], bool]) -> int:
    """The smallest for which it holds, as it does from there on."""
    low, high = values.start, values.stop - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _tail(population: int, marked: int, drawn: int, least: int) -> float:
    """P(at least so many of the drawn are marked), without replacement."""
    counts = range(max(least, drawn - (population - marked), 0), min(drawn, marked) + 1)
    whole = _log_choose(population, drawn)
    return math.fsum(math.exp(_log_choose(marked, k) + _log_choose(population - marked, drawn - k) - whole) for k in counts)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
