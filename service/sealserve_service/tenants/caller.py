"""The caller: on whose account a call takes a slot. That is its tenant, or its address.

Callers who show no tenant of their own are told apart by their addresses. Behind a proxy every
connection comes from the proxy, which names the client in `x-forwarded-for`. Anyone can send that
header. It is believed only as far as trusted proxies have written it: each proxy appends the
address of its own peer, so the client is the right-most address that is not a trusted proxy's.
"""

import functools
import ipaddress
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from urllib.parse import unquote

import grpc

from sealserve.protocol.address import host_of
from sealserve_service.tenants.tenant import ANONYMOUS, Tenant

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_FORWARDED_FOR = "x-forwarded-for"
# A household or a virtual machine gets a /64 of IPv6 at least, and may use every address in it.
_IPV6_PREFIX = 64


@dataclass(frozen=True)
class Caller:
    """A tenant and, for the tenant that strangers share, the name of an address.

    Attributes:
        name: unique among callers.
    """

    tenant: Tenant
    name: str


STRANGER = Tenant("", models=frozenset())
"""Stands for the tenant of a probe that shows none and may ask for health all the same."""

current_caller: ContextVar[Caller] = ContextVar("current_caller")
"""The caller of the call that this code serves."""


@functools.lru_cache(1024)
def caller_of(tenant: Tenant, host: str) -> Caller:
    """Return the caller of a call of a tenant, which comes from a host."""
    return Caller(tenant, tenant.name if tenant.name != ANONYMOUS.name else f"address {_network_of(host)}")


@functools.lru_cache(1024)
def stranger_at(host: str) -> Caller:
    """Return the caller of a stranger's probe, which comes from a host."""
    return Caller(STRANGER, f"stranger {_network_of(host)}")


def client_host(context: grpc.ServicerContext, proxies: Sequence[Network]) -> str:
    """Return the address of a call's client: its peer, or the one that trusted proxies name."""
    host = host_of_peer(context.peer())
    if not proxies:
        return host
    values = [str(value) for key, value in context.invocation_metadata() if key == _FORWARDED_FOR]
    hops = ",".join(values).split(",")
    while hops and _is_trusted(host, proxies) and (named := _parsed(hops.pop())) is not None:
        host = str(named)
    return host


@functools.lru_cache(1024)
def host_of_peer(peer: str) -> str:
    """Return the host of ipv4:127.0.0.1:50000, of ipv6:%5B::1%5D:50000 or of unix:PATH."""
    if peer.startswith("unix:"):
        return "localhost"
    return host_of(unquote(peer).partition(":")[2])


def _is_trusted(host: str, proxies: Sequence[Network]) -> bool:
    address = _parsed(host)
    return address is not None and any(address in network for network in proxies)


def _parsed(text: str) -> Address | None:
    """Return the address that a text names, with or without a port; None if it names none."""
    text = text.strip()
    if text.startswith("[") or text.count(":") == 1:
        text = text.rpartition("]")[0].removeprefix("[") or text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _network_of(host: str) -> str:
    """Return what counts as one address: an IPv4 address, or a network of IPv6."""
    address = _parsed(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, _IPV6_PREFIX)))
    return host if address is None else str(address)
