"""A frozen network that reads an image and a prompt, and writes a report: what the task `report` needs of it, whatever its architecture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from client.models._net import Net
from client.models._tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written for one prompt."""

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
    tokens: Tokens

    def encode(self, prompt: str, answer: str | None, *, limit: int) -> tuple[list[int], int]:
        """The tokens of image, prompt and answer, and how many of them come before the answer, which has `limit` tokens at most."""
        raise NotImplementedError

    def text(self, tokens: Sequence[int]) -> str:
        """Without special tokens."""
        raise NotImplementedError

    def seen(self, images: Tensor) -> Tensor:
        """(N, 1, S, S) in [-1, 1] -> (N, d) of what the language model is shown of each image, the mean over its tokens; in main memory."""
        raise NotImplementedError

    def forward(self, hidden: Tensor, ids: Tensor, answers: Tensor) -> Tensor:
        raise NotImplementedError

    def write(self, hidden: Tensor, prompts: Sequence[Sequence[int]], *, limit: int, seed: int | None = None) -> list[Written]:
        """What the network as it is now writes for each image; `prompts` are tokens as `encode` gives them without an answer.

        Each token is the most likely one, or, with a seed, drawn by how likely the network holds it.
        """
        raise NotImplementedError


class Chooser:
    """Tokens, from the logits of each step."""

    def __init__(self, seed: int | None) -> None:
        self.seed = seed
        self.generator: torch.Generator | None = None

    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, V) -> (N,) tokens, (N,) their log-probabilities, and (N, V) of which they are the largest."""
        whole = logits.logsumexp(dim=-1)
        if self.seed is None:
            best, tokens = logits.max(dim=-1)
            return tokens, best - whole, logits
        ranked = logits + self._noise(logits, self.seed)
        tokens = ranked.argmax(dim=-1)
        return tokens, logits.gather(-1, tokens[:, None])[:, 0] - whole, ranked

    def _noise(self, logits: Tensor, seed: int) -> Tensor:
        """The largest of logits with this added is a draw of their distribution: Maddison et al. 2014, arXiv:1411.0030, section 2."""
        if self.generator is None:
            self.generator = torch.Generator(logits.device).manual_seed(seed)
        return -torch.empty_like(logits).exponential_(generator=self.generator).log()
