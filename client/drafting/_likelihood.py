"""How likely a model that sees a film finds given words in its report: teacher-forced, nothing is written."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from client.models import Writer

Likelihood = Callable[[str, Sequence[str]], NDArray[np.float64]]
"""What a report has said so far, and K ways in which it may go on -> (K,) log-probability of each of them."""
LONGEST = 4096
"""Tokens of a report."""
BATCH = 64


def likelihood_of(net: "Writer", hidden: "Tensor", prompt: str) -> Likelihood:
    """`hidden` (1, …) is of the film, as `net.prefix` gives it."""
    known: dict[str, float] = {"": 0.0}

    def of(begun: str, ways: Sequence[str]) -> NDArray[np.float64]:
        # A space at the end is a token of its own there, and part of the next word's where one follows.
        texts, begun = [joined(begun, way) for way in ways], begun.rstrip()
        # Two reports of one film begin alike.
        asked = [text for text in dict.fromkeys((begun, *texts)) if text not in known]
        if asked:
            known.update(zip(asked, log_likelihoods(net, hidden, prompt, asked).tolist(), strict=True))
        return np.array([known[text] - known[begun] for text in texts])

    return of


def joined(begun: str, way: str) -> str:
    return f"{begun}{'' if not begun or begun[-1].isspace() else ' '}{way}"


def log_likelihoods(net: "Writer", hidden: "Tensor", prompt: str, texts: Sequence[str]) -> NDArray[np.float64]:
    """(N, …) of N films and N texts, or one of either for all of the other -> (N,) log-probability of each as a report's beginning."""
    import torch

    from client.models.vlm import padded

    count = max(len(hidden), len(texts))
    encoded = [net.encode(prompt, text, limit=LONGEST) for text in texts]
    # Without the token that ends it: the report may go on.
    rows = [tokens[:-1] for tokens, _ in encoded] * (count // len(texts))
    begins = torch.tensor([[begin] for _, begin in encoded] * (count // len(texts)))
    found = []
    with torch.no_grad():
        for start in range(0, count, BATCH):
            ids = padded(rows[start : start + BATCH])
            films = hidden[start : start + BATCH] if len(hidden) > 1 else hidden.expand(len(ids), *hidden.shape[1:])
            found.append(_summed(net, films, ids, begins[start : start + BATCH]))
    return torch.cat(found).double().numpy()


def _summed(net: "Writer", hidden: "Tensor", ids: "Tensor", begins: "Tensor") -> "Tensor":
    import torch

    said = (torch.arange(ids.shape[1]) >= begins) & (ids >= 0)
    logits = net(hidden, ids, said)
    offset = ids.shape[1] - logits.shape[1]
    each = logits[:, :-1].log_softmax(dim=-1).gather(-1, ids[:, offset + 1 :, None].clamp(min=0))[..., 0]
    total: Tensor = (each * said[:, offset + 1 :]).sum(dim=1)
    return total
