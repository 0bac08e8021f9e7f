"""no_proxy: the hosts that are reached without the proxy that the environment names.

gRPC reads the variable in lower case only, and knows no `*`. Most programs know both.
"""

import ipaddress
import os


def is_exempt(host: str) -> bool:
    """Tell whether no_proxy or NO_PROXY has a host: its name, a domain or network of it, or `*`."""
    entries = ",".join(os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")).split(",")
    return any(_includes(entry.strip().lower().lstrip("."), host.lower()) for entry in entries if entry.strip())


def _includes(entry: str, host: str) -> bool:
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(
            entry.removeprefix("[").removesuffix("]"), strict=False
        )
    except ValueError:  # one of them is a name
        return host == entry or (host.endswith(f".{entry}") and not _is_ip(host))


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
