"""Shares, masks and keys by themselves."""

import itertools

import numpy as np
import pytest
from Crypto.Protocol.SecretSharing import Shamir
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rainhill.adapter import Adapter
from rainhill.errors import ProtocolError, QuorumError
from rainhill.secagg import Layout, agree, keys, masks, shares
from tests.rainhill.secagg.world import Round

DIGEST = "00" * 31 + "ff"
ONE, TWO = bytes(range(32)), bytes(range(32, 64))


@settings(max_examples=30)
@given(secret=st.binary(min_size=32, max_size=32), count=st.integers(3, 12), data=st.data())
def test_any_threshold_of_the_shares_give_the_secret(secret: bytes, count: int, data) -> None:
    threshold = data.draw(st.integers(2, count))
    parts = shares.split(secret, threshold=threshold, count=count)
    places = data.draw(st.permutations(range(count)))[: data.draw(st.integers(threshold, count))]
    assert shares.combine({place: parts[place] for place in places}, threshold=threshold) == secret


def test_fewer_shares_than_the_threshold_are_not_combined_and_would_give_something_else() -> None:
    parts = dict(enumerate(shares.split(ONE, threshold=4, count=6)))
    for places in itertools.combinations(parts, 3):
        few = {place: parts[place] for place in places}
        with pytest.raises(QuorumError, match="3 shares of a secret, 4 are needed"):
            shares.combine(few, threshold=4)
        assert shares.combine(few, threshold=3) != ONE


def test_threshold_minus_one_shares_fit_every_secret_equally_well() -> None:
    parts = Shamir.split(3, 5, ONE[:16], ssss=False)
    for guess in (bytes(16), TWO[:16]):
        # One polynomial of degree 2 goes through the guess at 0 and the two shares; its value at 3 is found by moving 3 to 0, which
        # in this field is to xor. That third share would have come with the guess.
        at_three = Shamir.combine([(index ^ 3, share) for index, share in [(0, guess), *parts[:2]]], ssss=False)
        assert Shamir.combine([*parts[:2], (3, at_three)], ssss=False) == guess


def test_a_mask_is_what_it_was_in_every_release() -> None:
    # Another value here means that sites of two releases no longer cancel one another's masks: a new label in keys.py must say so.
    pair = masks.pair_mask(ONE, keys.public(TWO), site="a", peer="b", terms=DIGEST, size=4, ring=32)
    assert pair.tolist() == PAIR
    np.testing.assert_array_equal(-pair, masks.pair_mask(TWO, keys.public(ONE), site="b", peer="a", terms=DIGEST, size=4, ring=32))
    assert masks.self_mask(ONE, "a", terms=DIGEST, size=4, ring=32).tolist() == SELF
    assert masks.self_mask(ONE, "a", terms=DIGEST, size=2, ring=64).tolist() == [SELF[0] + (SELF[1] << 32), SELF[2] + (SELF[3] << 32)]
    assert keys.commitment(ONE, "a", terms=DIGEST).hex() == COMMITMENT


PAIR = [4118053914, 2654663997, 876361230, 1553833425]
SELF = [2393415506, 3951855020, 1154731581, 841846829]
COMMITMENT = "50be197717e0f62f9e9ebd19bd2476c948544310de2b1c4536d0cf821a108495"


def test_the_keystream_is_that_of_rfc_8439() -> None:
    # Appendix A.1, test vector 1: the zero key, nonce and counter.
    first = bytes.fromhex("76b8e0ada0f13d90405d6ae55386bd28")
    assert masks.keystream(bytes(32), size=4, ring=32).astype("<u4").tobytes() == first


def test_every_purpose_site_and_round_has_a_mask_of_its_own() -> None:
    other = "11" * 32
    made = [masks.self_mask(ONE, site, terms=terms, size=8, ring=32).tobytes() for site in ("a", "b") for terms in (DIGEST, other)] + [
        masks.pair_mask(ONE, keys.public(key), site="a", peer=peer, terms=terms, size=8, ring=32).tobytes()
        for key in (TWO, ONE)
        for peer in ("b", "c")
        for terms in (DIGEST, other)
    ]
    assert len(set(made)) == len(made)


def test_the_masked_update_of_one_site_looks_uniform_and_so_does_its_difference_from_the_update() -> None:
    layout = Layout(shapes={"v": (40_000,)})
    inputs = {site: Adapter({"v": np.full(40_000, 0.25, np.float32)}) for site in ("a", "b", "c")}
    world = Round(agree(run="r", round=1, weights=dict.fromkeys(inputs, 1), layout=layout, bound=0.5), inputs)
    plain = world.terms.quantiser.encode(inputs["a"], layout, weight=1)
    sent = {site: message.vector for site, (_, message) in world.masked.items()}
    for words in (*sent.values(), sent["a"] - plain, sent["a"] + sent["b"], sent["a"] - sent["b"]):
        counts = np.bincount(np.frombuffer(words.tobytes(), np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-6
        assert abs(np.corrcoef(words[:-1].astype(float), words[1:].astype(float))[0, 1]) < 0.03
    # The same statistics on what is not masked, so that they can be seen to tell something.
    assert stats.chisquare(np.bincount(np.frombuffer(plain.tobytes(), np.uint8), minlength=256)).pvalue < 1e-6
    np.testing.assert_allclose(world.result.total, 0.75, atol=world.result.error_bound)


def test_a_key_that_agrees_on_nothing_is_refused() -> None:
    with pytest.raises(ProtocolError, match="pairwise mask of a and b: a public key that agrees on nothing"):
        masks.pair_mask(ONE, bytes(32), site="a", peer="b", terms=DIGEST, size=1, ring=32)
