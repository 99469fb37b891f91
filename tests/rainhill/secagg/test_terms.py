"""What secure aggregation is refused for, and the graph of many sites."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rainhill.errors import RefusedError
from rainhill.secagg import Layout, agree, check_encoding, check_strategy, graph
from tests.rainhill.secagg.world import LAYOUT, terms_of


def test_two_sites_are_refused_with_the_reason() -> None:
    said = (
        r"among 2 sites \(s00 and s01\): the sum minus one's own update is the other's, so that it would hide nothing between them; "
        "only differential privacy at each site protects one hospital from the other"
    )
    with pytest.raises(RefusedError, match=said):
        terms_of(2)
    with pytest.raises(RefusedError, match="among 1 sites: at least 3 are needed"):
        terms_of(1)


def test_a_sum_of_two_survivors_is_refused_with_the_same_reason() -> None:
    with pytest.raises(RefusedError, match="quorum 2 is below 3; of two sites that stay, the sum minus one's own update is the other's"):
        terms_of(3, dropouts=0.4)


@pytest.mark.parametrize(("count", "quorum"), [(3, 3), (4, 3), (5, 4), (10, 7), (20, 14), (50, 35), (100, 70)])
def test_three_of_ten_sites_may_drop_out_unless_told_otherwise(count: int, quorum: int) -> None:
    terms = terms_of(count)
    assert (terms.quorum, terms.threshold, terms.degree) == (quorum, quorum, count - 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quorum": 5}, "quorum 5 is not more than half of the 10 sites"),
        ({"quorum": 11}, "quorum 11 is more than the 10 sites"),
        ({"threshold": 5}, "threshold 5 is not more than half of the 10 holders of a site's shares, so that a lying coordinator"),
        ({"threshold": 11}, "threshold 11 is more than the 10 holders of a site's shares"),
        ({"degree": 4, "threshold": 2}, "threshold 2 is not more than half of the 5 holders"),
        ({"degree": 5, "threshold": 4}, "degree 5 is neither 9, all the others, nor an even number from 2 below it"),
        ({"degree": 10}, "degree 10 is neither 9"),
        ({"weights": {f"s{number:02d}": 2 for number in range(10)}}, "total weight 10 is not 20, the sum of the sites' weights"),
        ({"weights": {**{f"s{number:02d}": 1 for number in range(10)}, "s04": 0}}, "s04: weight 0 is not a whole number of at least 1"),
        ({"layout": Layout(shapes={})}, "a vector of 0 entries is not one of 1 to"),
        ({"layout": Layout(shapes={"v": (2**15, 2**15)})}, "a vector of 1073741824 entries is not one of 1 to 268435456"),
    ],
)
def test_terms_that_would_not_protect_a_site_are_refused(change, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        replace(terms_of(10), **change)


@pytest.mark.parametrize(
    ("dropouts", "said"),
    [
        (0.5, "dropouts 0.5 of 10 sites leaves 5, and more than half, 6, must stay"),
        (0.9, "dropouts 0.9 of 10 sites leaves 1, and more than half, 6, must stay"),
        (1.0, "dropouts 1.0 is not a share of at least 0 and below 1"),
        (float("nan"), "dropouts nan is not a share"),
    ],
)
def test_more_dropouts_than_can_be_tolerated_are_refused(dropouts: float, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        terms_of(10, dropouts=dropouts)


def test_weights_too_large_for_the_ring_are_refused_and_a_larger_ring_takes_them() -> None:
    weights = dict.fromkeys("abc", 10**9)
    with pytest.raises(RefusedError, match="levels 0 is not one of 1 to"):
        agree(run="r", round=1, weights=weights, layout=LAYOUT, bound=1.0, ring=32)
    assert agree(run="r", round=1, weights=weights, layout=LAYOUT, bound=1.0, ring=64).quantiser.levels > 2**28


@pytest.mark.parametrize(("total", "ring"), [(3, 32), (8191, 32), (8193, 64), (3 * 10**9, 64)])
def test_the_ring_is_the_smaller_one_that_leaves_the_grid_fine_enough(total: int, ring: int) -> None:
    weights = {"a": total - 2, "b": 1, "c": 1}
    quantiser = agree(run="r", round=1, weights=weights, layout=LAYOUT, bound=10.0).quantiser
    assert quantiser.ring == ring
    # The mean of all is off by half a step at most, which is what a recipe's bound promises.
    assert quantiser.error_bound(total) / total <= 10.0 / 2**17


def test_strategies_that_need_each_update_are_refused_by_name() -> None:
    check_strategy("fedavg", linear=True)
    with pytest.raises(RefusedError, match="gives the sum of the updates alone, and strategy 'flexlora' needs each site's own"):
        check_strategy("flexlora", linear=False)


def test_encodings_that_a_mask_would_undo_are_refused_by_name() -> None:
    check_encoding("float32")
    with pytest.raises(RefusedError, match="encoding 'top_k' cannot make smaller; take 'float32'"):
        check_encoding("top_k")


@given(count=st.integers(4, 40), half=st.integers(1, 8), seed=st.binary(min_size=32, max_size=32))
def test_neighbourhoods_are_mutual_of_one_size_and_in_one_piece(count: int, half: int, seed: bytes) -> None:
    sites = [f"s{number:02d}" for number in range(count)]
    near = graph.holders(sites, degree=2 * half, seed=seed)
    assert all(len(near[site]) == min(count, 2 * half + 1) and site in near[site] for site in sites)
    assert all(site in near[other] for site in sites for other in near[site])
    reached, edge = {sites[0]}, {sites[0]}
    while edge:
        edge = {other for site in edge for other in near[site]} - reached
        reached |= edge
    assert reached == set(sites)


def test_the_order_of_the_ring_follows_from_the_seed_alone() -> None:
    sites = [f"s{number:02d}" for number in range(30)]
    assert graph.holders(sites, degree=4, seed=b"1") == graph.holders(sites[::-1], degree=4, seed=b"1")
    assert graph.holders(sites, degree=4, seed=b"1") != graph.holders(sites, degree=4, seed=b"2")


@pytest.mark.parametrize(("count", "dropouts", "colluding"), [(1000, 0.1, 0.1), (300, 0.3, 0.0), (200, 0.2, 0.05)])
def test_a_sparse_graph_has_the_bounds_that_it_claims(count: int, dropouts: float, colluding: float) -> None:
    degree, threshold = graph.sparse(count, dropouts=dropouts, colluding=colluding)
    holders, gone, bad = degree + 1, int(dropouts * count), int(colluding * count)
    # Enough colluding holders for both of a site's secrets; too few holders left for one; a ring that is cut.
    assert count * stats.hypergeom.sf(2 * threshold - holders - 1, count, bad, holders) < 2**-40
    assert count * stats.hypergeom.sf(holders - threshold, count, gone, holders) < 2**-30
    assert count * ((gone + bad) / count) ** (degree / 2) <= 2**-40
    assert degree < count - 1 and 2 * threshold > holders


def test_a_thousand_sites_need_far_fewer_neighbours_and_fifty_need_them_all() -> None:
    assert terms_of(1000, dropouts=0.1).degree == 112
    with pytest.raises(RefusedError, match="no sparse graph of 50 sites withstands dropouts 0.3 and colluding 0.1; take the complete one"):
        graph.sparse(50, dropouts=0.3, colluding=0.1)
    assert terms_of(50).degree == 49
