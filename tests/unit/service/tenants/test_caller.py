"""The caller: its tenant, or the address that its peer has or that a trusted proxy names."""

from ipaddress import ip_network
from typing import Any

import pytest

from sealserve_service.tenants.authenticator import is_local_probe
from sealserve_service.tenants.caller import caller_of, client_host
from sealserve_service.tenants.tenant import ANONYMOUS, Tenant

PROXIES = (ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"))
CHECK = "/grpc.health.v1.Health/Check"


class Call:
    """A call's context, as far as its address is asked for."""

    def __init__(self, peer: str, *forwarded: str) -> None:
        self._peer, self._forwarded = peer, forwarded

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return [("user-agent", "a test"), *(("x-forwarded-for", value) for value in self._forwarded)]


def host(peer: str, *forwarded: str) -> str:
    context: Any = Call(peer, *forwarded)
    return client_host(context, PROXIES)


PROXY = "ipv4:10.1.2.3:4000"


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("ipv4:192.0.2.1:4000", [], "192.0.2.1"),
        ("ipv4:192.0.2.1:4000", ["198.51.100.7"], "192.0.2.1"),  # a client that names another
        (PROXY, [], "10.1.2.3"),
        (PROXY, [""], "10.1.2.3"),
        (PROXY, ["198.51.100.7"], "198.51.100.7"),
        (PROXY, ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),  # what the client itself has sent comes first
        (PROXY, ["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
        (PROXY, ["198.51.100.7, 10.9.9.9"], "198.51.100.7"),  # two proxies
        (PROXY, ["10.9.9.9,10.8.8.8"], "10.9.9.9"),
        (PROXY, ["198.51.100.7, unknown"], "10.1.2.3"),
        (PROXY, ["198.51.100.7, 10.9.9.9, x"], "10.1.2.3"),
        (PROXY, ["x, 10.9.9.9"], "10.9.9.9"),
        (PROXY, ["198.51.100.7:5000"], "198.51.100.7"),
        (PROXY, ["[2001:db8:2::1]:5000"], "2001:db8:2::1"),
        (PROXY, ["2001:db8:2::1"], "2001:db8:2::1"),
        (PROXY, ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("ipv6:%5B2001:db8:1::5%5D:4000", ["198.51.100.7"], "198.51.100.7"),
        ("ipv6:%5B::ffff:10.1.2.3%5D:4000", ["198.51.100.7"], "198.51.100.7"),
        ("unix:/tmp/socket", ["198.51.100.7"], "localhost"),
        ("", ["198.51.100.7"], ""),
    ],
)
def test_the_client_is_the_right_most_address_that_no_trusted_proxy_has(
    peer: str, forwarded: list[str], expected: str
) -> None:
    assert host(peer, *forwarded) == expected


def name(peer: str, *forwarded: str, tenant: Tenant = ANONYMOUS) -> str:
    context: Any = Call(peer, *forwarded)
    return caller_of(tenant, client_host(context, PROXIES)).name


def test_a_tenant_is_one_caller_wherever_it_calls_from() -> None:
    clinic = Tenant("clinic")
    assert name("ipv4:192.0.2.1:4000", tenant=clinic) == name("ipv4:192.0.2.2:4000", tenant=clinic) == "clinic"


def test_strangers_are_callers_by_address_without_the_port() -> None:
    assert name("ipv4:192.0.2.1:4000") == name("ipv4:192.0.2.1:5000") == name(PROXY, "192.0.2.1")
    assert name("ipv4:192.0.2.1:4000") != name("ipv4:192.0.2.2:4000")
    assert name("ipv6:[::ffff:192.0.2.1]:4000") == name("ipv4:192.0.2.1:4000")


def test_a_network_of_ipv6_is_one_caller() -> None:
    """Its owner may use every address in it."""
    assert name("ipv6:%5B2001:db8:2:3::1%5D:4000") == name("ipv6:%5B2001:db8:2:3:ffff::2%5D:4000")
    assert name("ipv6:%5B2001:db8:2:3::1%5D:4000") != name("ipv6:%5B2001:db8:2:4::1%5D:4000")
    assert name("ipv6:%5Bfe80::1%25eth0%5D:4000") == name("ipv6:%5Bfe80::2%25eth0%5D:4000")


def test_no_tenant_is_named_like_an_address() -> None:
    assert name("unix:/tmp/socket") == "address localhost"
    assert name("ipv4:192.0.2.1:4000") == "address 192.0.2.1"


def test_whoever_comes_through_a_proxy_on_this_machine_is_no_probe_of_it() -> None:
    loopback = (ip_network("127.0.0.0/8"),)
    proxied, direct = Call("ipv4:127.0.0.1:4000", "198.51.100.7"), Call("ipv4:127.0.0.1:4000")
    contexts: list[Any] = [proxied, direct]
    assert [is_local_probe(CHECK, context, loopback) for context in contexts] == [False, True]
    assert [is_local_probe(CHECK, context) for context in contexts] == [True, True]
