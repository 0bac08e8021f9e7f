"""Addresses: their forms, and those of this machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealserve.errors import InputError
from sealserve.protocol.address import host_of, is_local, is_loopback, parse_address, path_of


@given(text=st.text(max_size=30))
def test_any_address_is_one_or_the_other(text: str) -> None:
    assert is_loopback(host_of(text)) in (True, False)
    assert is_local(text) in (True, False)


@pytest.mark.parametrize(
    ("text", "target", "hosts", "stays", "may_be_several"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051", ("127.0.0.1",), True, False),
        ("10.0.0.1:1", "10.0.0.1:1", ("10.0.0.1",), False, False),
        ("[::1]:50051", "[::1]:50051", ("::1",), True, False),
        ("LOCALHOST:50051", "dns:///localhost:50051", ("localhost",), True, False),
        ("Example.ORG:443", "dns:///example.org:443", ("example.org",), False, True),
        ("dns:443", "dns:///dns:443", ("dns",), False, True),
        ("dns:///example.org:443", "dns:///example.org:443", ("example.org",), False, True),
        ("dns:example.org:443", "dns:example.org:443", ("example.org",), False, True),
        ("dns://10.0.0.53/example.org:443", "dns://10.0.0.53/example.org:443", ("example.org",), False, True),
        ("dns:///localhost:1", "dns:///localhost:1", ("localhost",), True, False),
        ("ipv4:127.0.0.1:1", "ipv4:127.0.0.1:1", ("127.0.0.1",), True, False),
        ("ipv4:127.0.0.1:1,127.0.0.1:2", "ipv4:127.0.0.1:1,127.0.0.1:2", ("127.0.0.1",) * 2, True, True),
        ("ipv4:127.0.0.1:1,10.0.0.1:2", "ipv4:127.0.0.1:1,10.0.0.1:2", ("127.0.0.1", "10.0.0.1"), False, True),
        ("ipv6:[::1]:1", "ipv6:[::1]:1", ("::1",), True, False),
        ("unix:/run/s.sock", "unix:/run/s.sock", (), True, False),
        ("unix:///run/s.sock", "unix:/run/s.sock", (), True, False),
        ("unix:s.sock", "unix:s.sock", (), True, False),
    ],
)
def test_forms(text: str, target: str, hosts: tuple[str, ...], stays: bool, may_be_several: bool) -> None:
    address = parse_address(text)
    assert (address.target, address.hosts) == (target, hosts)
    assert (address.is_local, address.may_be_several) == (stays, may_be_several)
    assert is_local(text) is stays
    assert bool(path_of(text)) is not bool(hosts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "localhost",
        ":50051",
        "localhost:",
        "localhost:http",
        "localhost:65536",
        "localhost:-1",
        "localhost:\N{ARABIC-INDIC DIGIT FIVE}0",
        "::1:50051",
        "[::1]",
        "[localhost]:1",
        "http://localhost:1",
        "https://example.org",
        "example.org:1/path",
        "a@b:1",
        " localhost:1",
        "localhost:1\n",
        "dns:///localhost",
        "ipv4:localhost:1",
        "ipv4:",
        "unix:",
        "unix://host/path",
        "unix:/" + "x" * 200,
        "xds:///service",
    ],
)
def test_malformed_ones_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_address(text)
    assert not is_local(text)
