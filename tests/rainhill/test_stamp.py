import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainhill import signed
from rainhill.errors import CredentialError
from rainhill.stamp import ANSWER, PLAN, stamped, unstamped

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
PUBLIC = signed.public_key(KEY)


@given(message=st.binary(max_size=300))
def test_what_was_stamped_is_read_as_it_was(message: bytes) -> None:
    assert unstamped(stamped(message, KEY, purpose=PLAN), PUBLIC, purpose=PLAN) == message


@given(message=st.binary(max_size=300), data=st.data())
def test_a_changed_bit_anywhere_is_refused(message: bytes, data: st.DataObject) -> None:
    whole = bytearray(stamped(message, KEY, purpose=PLAN))
    place = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[place // 8] ^= 1 << place % 8
    with pytest.raises(CredentialError, match="plan 1: was changed, or was not signed with key"):
        unstamped(bytes(whole), PUBLIC, purpose=PLAN)


@given(message=st.binary(max_size=300), data=st.data())
def test_a_message_that_is_cut_off_or_goes_on_is_refused(message: bytes, data: st.DataObject) -> None:
    whole = stamped(message, KEY, purpose=PLAN)
    for changed in (whole[: data.draw(st.integers(0, len(whole) - 1))], whole + data.draw(st.binary(min_size=1, max_size=9))):
        with pytest.raises(CredentialError):
            unstamped(changed, PUBLIC, purpose=PLAN)


def test_another_key_or_another_purpose_is_refused() -> None:
    with pytest.raises(CredentialError, match="plan 1: was changed"):
        unstamped(stamped(b"x", OTHER, purpose=PLAN), PUBLIC, purpose=PLAN)
    with pytest.raises(CredentialError, match="answer 1: was changed"):
        unstamped(stamped(b"x", KEY, purpose=PLAN), PUBLIC, purpose=ANSWER)
    with pytest.raises(CredentialError, match="plan 1: 63 bytes are too few for a signature of 64"):
        unstamped(bytes(63), PUBLIC, purpose=PLAN)
