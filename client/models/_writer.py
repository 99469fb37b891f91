"""A frozen network that reads an image and a prompt, and writes a report: what the task `report` needs of it, whatever its architecture."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from client.models._net import Net


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written for one prompt, word by word the most likely."""

    text: str
    logprobs: tuple[float, ...]
    """Of each token, the last of which ends the text where that was within the limit."""
    ended: bool
    """False where the text was cut at the limit."""


class Writer(Net):
    """`forward` takes hidden states (N, ...), tokens (N, T) and which of them it is to write (N, T), and gives logits (N, K, V) of what
    follows each of the last K places: all that are followed by one that it is to write.

    Rows of tokens end with negative numbers where they are shorter than the longest.
    """

    writes = True

    def encode(self, prompt: str, answer: str | None, *, limit: int) -> tuple[list[int], int]:
        """The tokens of image, prompt and answer, and how many of them come before the answer, which has `limit` tokens at most."""
        raise NotImplementedError

    def seen(self, images: Tensor) -> Tensor:
        """(N, 1, S, S) in [-1, 1] -> (N, d) of what the language model is shown of each image, the mean over its tokens; in main memory."""
        raise NotImplementedError

    def forward(self, hidden: Tensor, ids: Tensor, answers: Tensor) -> Tensor:
        raise NotImplementedError

    def write(self, hidden: Tensor, prompts: Sequence[Sequence[int]], *, limit: int) -> list[Written]:
        """What the network as it is now writes for each image, greedily; `prompts` are tokens as `encode` gives them without an answer."""
        raise NotImplementedError
