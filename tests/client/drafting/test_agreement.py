"""How far a draft agrees with others of the same model."""

import numpy as np
import pytest
import torch

from client.data.labeler import Labeler
from client.drafting.agreement import drawn, expected_errors
from client.drafting.confidence import CLAIMED
from client.embedded import EMBEDDED
from client.models import Writer
from client.models.vlm import Vlm
from client.reporting.reading import reading
from rainhill.errors import DataError

LABELER = Labeler()
LEFT, RIGHT, NONE = (reading(LABELER, text) for text in ("Left effusion.", "Right effusion.", "The lungs are clear."))


@pytest.fixture(scope="module")
def net() -> Writer:
    return Vlm().load(EMBEDDED / "draft_tiny", outputs={}, last_blocks=None).requires_grad_(False).eval()


def test_errors_are_those_against_each_other_draft() -> None:
    assert expected_errors(LEFT, [LEFT, LEFT]) == 0
    assert expected_errors(LEFT, [LEFT, RIGHT, NONE, NONE]) == 3 / 4
    # What is left out counts too, but not where only claims are asked for.
    assert expected_errors(NONE, [LEFT, NONE]) == 1 / 2
    assert expected_errors(NONE, [LEFT, NONE], kinds=CLAIMED) == 0
    with pytest.raises(DataError, match="no other draft"):
        expected_errors(LEFT, [])


def test_drawn_drafts_follow_the_seed_and_their_words_are_as_frequent_as_the_model_holds_them_likely(net: Writer) -> None:
    generator = torch.Generator().manual_seed(3)
    hidden = net.prefix(torch.rand(1, 1, net.size, net.size, generator=generator) * 2 - 1)
    prompt, _ = net.encode("Report:", None, limit=8)
    one, again, other = (drawn(net, hidden, prompt, limit=40, seed=seed, count=6) for seed in (1, 1, 2))
    assert [each.text for each in one] == [each.text for each in again] != [each.text for each in other]
    # The first word that varies is drawn by its probability.
    many = drawn(net, hidden, prompt, limit=6, seed=4, count=400)
    beginnings = [each.logprobs for each in many]
    at = next(place for place in range(6) if len({round(one[place], 4) for one in beginnings}) > 1)
    drawn_at = np.round([one[at] for one in beginnings], 4)
    likely = [value for value in set(drawn_at) if np.exp(value) > 0.02]
    assert len(likely) > 1
    for value in likely:
        wanted = np.exp(value)
        assert abs(np.mean(drawn_at == value) - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / len(many))
