"""Ditto: each site's own copy of the shared adapter, held near it while it is fitted. Li et al. 2021, arXiv:2012.04221.

The distance is that of the products, |B A - B' A'|^2, and not of the factors, which say the same in many bases:
tr(B^T B A A^T) - 2 tr(B^T B' A' A^T) + tr(B'^T B' A' A'^T), all of them r x r.
"""

from typing import Annotated

from pydantic import Field

from strategies.personal._personal import Personal


class Ditto(Personal):
    penalty: Annotated[float, Field(ge=0, le=1e6)] = 0.1
    """The paper's lambda, on half the squared Frobenius distance of the products over all modules."""

    source = "arXiv:2012.04221"
    summary = "an own copy, its product held near the shared one's"
    after = "ditto"
