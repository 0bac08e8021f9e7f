"""Addresses: those of this machine, and all others."""

from hypothesis import given
from hypothesis import strategies as st

from sealserve.protocol.address import host_of, is_loopback


@given(text=st.text(max_size=30))
def test_any_address_is_one_or_the_other(text: str) -> None:
    assert is_loopback(host_of(text)) in (True, False)
