"""What everybody knows of one round of secure aggregation before it begins. Its digest is bound into every key and message."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from pydantic import Field, ValidationError

from rainhill.errors import ProtocolError, RefusedError
from rainhill.messages import SiteId
from rainhill.secagg import graph, refusals
from rainhill.secagg.layout import Layout
from rainhill.secagg.quantise import Quantiser, Ring, smallest_ring
from rainhill.toml import Section

COMPLETE_UP_TO = 100
"""Sites. Beyond, the sparse graph is worth its assumption."""
LARGEST = 2**28
"""Entries of a vector that terms may ask for."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """RefusedError for terms that would not protect a site. A site makes them from its own recipe and plan, or compares."""

    run: str
    round: int
    weights: Mapping[SiteId, int]
    """Every site that is asked, and how many times its update counts; public."""
    layout: Layout
    quantiser: Quantiser
    quorum: int
    """Fewer sites than this are never summed."""
    degree: int
    """With how many others a site shares masks."""
    threshold: int
    """How many of a site's degree + 1 holders it takes to rebuild one of its secrets. Shamir's t."""

    def __post_init__(self) -> None:
        refusals.check_weights(self.weights)
        refusals.check_quorum(self.quorum, len(self.weights))
        refusals.check_graph(self.degree, self.threshold, len(self.weights))
        total = sum(self.weights.values())
        if self.quantiser.total_weight != total:
            raise RefusedError(
                f"secure aggregation: total weight {self.quantiser.total_weight} is not {total}, the sum of the sites' weights"
            )
        if not 1 <= self.layout.size <= LARGEST:
            raise RefusedError(f"secure aggregation: a vector of {self.layout.size} entries is not one of 1 to {LARGEST}")

    @cached_property
    def sites(self) -> tuple[SiteId, ...]:
        return tuple(sorted(self.weights))

    @cached_property
    def digest(self) -> str:
        """sha256 of `to_bytes`, in hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        quantiser = self.quantiser
        return _Terms(
            run=self.run,
            round=self.round,
            weights=dict(sorted(self.weights.items())),
            shapes=dict(sorted(self.layout.shapes.items())),
            bound=quantiser.bound,
            levels=quantiser.levels,
            ring=quantiser.ring,
            quorum=self.quorum,
            degree=self.degree,
            threshold=self.threshold,
        ).canonical()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Terms":
        try:
            read = _Terms.model_validate_json(data)
        except ValidationError as error:
            raise ProtocolError(f"not terms of secure aggregation ({len(data)} bytes): {error.errors()[0]['msg']}") from error
        total = sum(read.weights.values())
        terms = cls(
            run=read.run,
            round=read.round,
            weights=read.weights,
            layout=Layout(shapes=read.shapes),
            quantiser=Quantiser(bound=read.bound, levels=read.levels, total_weight=total, ring=read.ring),
            quorum=read.quorum,
            degree=read.degree,
            threshold=read.threshold,
        )
        if terms.to_bytes() != data:
            raise ProtocolError(f"terms of secure aggregation ({len(data)} bytes) are not in their canonical form")
        return terms


def agree(
    *,
    run: str,
    round: int,  # noqa: A002 - the field's name everywhere
    weights: Mapping[SiteId, int],
    layout: Layout,
    bound: float,
    ring: Ring | None = None,
    dropouts: float = 0.3,
    colluding: float = 0.1,
) -> Terms:
    """The terms that follow from what a recipe says: the coordinator and every site come to the same.

    `ring` is the smaller one that leaves the grid fine enough, where None. `dropouts` is the share of sites that may be lost in a round;
    `colluding`, of sites that may help the coordinator, counts only for more than a hundred sites. In the complete graph fewer than
    2 quorum - n colluding sites gain nothing by the coordinator's lies.
    """
    refusals.check_weights(weights)
    count, total = len(weights), sum(weights.values())
    quorum = refusals.quorum_for(count, dropouts=dropouts)
    degree, threshold = (count - 1, quorum) if count <= COMPLETE_UP_TO else graph.sparse(count, dropouts=dropouts, colluding=colluding)
    return Terms(
        run=run,
        round=round,
        weights=weights,
        layout=layout,
        quantiser=Quantiser.finest(bound=bound, total_weight=total, ring=ring or smallest_ring(total)),
        quorum=quorum,
        degree=degree,
        threshold=threshold,
    )


# Bounded before anything is multiplied or shown: Python neither multiplies whole numbers of any size in time, nor writes them out.
_Count = Annotated[int, Field(ge=0, le=10**9)]
_Side = Annotated[int, Field(ge=0, le=LARGEST)]


class _Terms(Section):
    run: str
    round: _Count
    weights: dict[str, _Count]
    shapes: dict[str, Annotated[tuple[_Side, ...], Field(max_length=8)]]
    bound: float
    levels: Annotated[int, Field(ge=0, le=2**63)]
    ring: Ring
    quorum: _Count
    degree: _Count
    threshold: _Count

    def canonical(self) -> bytes:
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()
