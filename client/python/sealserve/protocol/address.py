"""Addresses of the form HOST:PORT, and which of them stay on this machine."""

import ipaddress


def host_of(address: str) -> str:
    """Return the host, without the brackets of an IPv6 address."""
    return address.rpartition(":")[0].removeprefix("[").removesuffix("]")


def is_loopback(host: str) -> bool:
    """Tell whether traffic to and from a host stays on this machine."""
    if host == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback
