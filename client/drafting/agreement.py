"""How far a draft agrees with what the same model might as well have written of the film: what it guesses, it guesses otherwise next time.

It knows too of what a draft leaves out, of which no word of it tells. By meaning and not by wording, as semantic entropy: Farquhar et al.
2024, doi:10.1038/s41586-024-07421-0; for chest films, Zhang et al. 2024 (RadFlag), arXiv:2411.00299.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from client.reporting.clinical import errors_of
from client.reporting.reading import Reading
from rainhill.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from client.models import Writer, Written

OTHERS = 20
"""Drafts of one film that a draft is held against."""


def drawn(net: "Writer", hidden: "Tensor", prompt: Sequence[int], *, limit: int, seed: int, count: int = OTHERS) -> list["Written"]:
    """Drafts of one film whose words are drawn by how likely the model holds them; `hidden` (1, ...) is of the film."""
    return net.write(hidden.expand(count, *hidden.shape[1:]), [prompt] * count, limit=limit, seed=seed)


def expected_errors(draft: Reading, others: Sequence[Reading], *, kinds: Sequence[str] = (), but: Collection[str] = ()) -> float:
    """Mean number of ReXVal's errors, or of those that are named, that the draft would have if it were held against each of the others;
    findings in `but` are not looked at.

    The draws of a model that is calibrated are what reports of such films are, and this is then what is to be expected. DataError without
    any others.
    """
    if not others:
        raise DataError("no other draft to hold a draft against: at least one is wanted")
    found = [errors_of(draft, other, but=but) for other in others]
    return float(np.mean([sum(getattr(one, kind) for kind in kinds) if kinds else one.total for one in found]))
