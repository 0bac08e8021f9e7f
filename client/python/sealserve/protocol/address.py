"""Addresses of a service, in the forms that callers write, and which of them stay on this machine.

The forms are HOST:PORT, dns:///HOST:PORT, ipv4:HOST:PORT,..., ipv6:[HOST]:PORT,... and unix:PATH.
"""

import ipaddress
import re
from dataclasses import dataclass

from sealserve.errors import InputError

UNIX = "unix:"
MAX_UNIX_BYTES = 107
"""The most bytes of a path of a Unix socket: Linux's sockaddr_un, without the zero at the end."""

_MAX_SHOWN = 100
_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s\[\]:/@,?#]+)):([0-9]{1,5})")
_DNS = re.compile(r"(dns:(?://[^/\s]*/)?)(.+)", re.DOTALL)
_OF_ADDRESSES = re.compile(r"(ipv[46]:)(.+)", re.DOTALL)


@dataclass(frozen=True)
class Address:
    """The address of a service.

    Attributes:
        target: what gRPC takes.
        hosts: the hosts in it; there is none in the path of a Unix socket.
    """

    target: str
    hosts: tuple[str, ...]

    @property
    def is_local(self) -> bool:
        """Whether traffic to and from the service stays on this machine."""
        return all(map(is_loopback, self.hosts))

    @property
    def may_be_several(self) -> bool:
        """Whether several machines may serve at it: it is a list, or a name of other machines."""
        return len(self.hosts) > 1 or any(_ip(host) is None and not is_loopback(host) for host in self.hosts)


def parse_address(text: str) -> Address:
    """Parse an address that a caller gives.

    Raises:
        InputError: it has none of the forms.
    """
    if isinstance(text, str):
        if text.startswith(UNIX):
            return _unix_address(text)
        if (match := _DNS.fullmatch(text)) and _HOST_AND_PORT.fullmatch(match[2]):
            host, port = _host_and_port(text, match[2])
            return Address(f"{match[1]}{_joined(host, port)}", (host,))
        if match := _OF_ADDRESSES.fullmatch(text):
            pairs = [_host_and_port(text, part) for part in match[2].split(",")]
            if all(_ip(host) is not None for host, _ in pairs):
                return Address(match[1] + ",".join(_joined(*pair) for pair in pairs), tuple(host for host, _ in pairs))
        elif _HOST_AND_PORT.fullmatch(text):
            host, port = _host_and_port(text, text)
            # With the scheme, a host may be named as a scheme is.
            return Address(_joined(host, port) if _ip(host) else f"dns:///{_joined(host, port)}", (host,))
    raise _malformed(text)


def is_local(address: str) -> bool:
    """Tell whether traffic to an address stays on this machine; False if it is malformed."""
    try:
        return parse_address(address).is_local
    except InputError:
        return False


def host_of(address: str) -> str:
    """Return the host of HOST:PORT, without the brackets of an IPv6 address."""
    return address.rpartition(":")[0].removeprefix("[").removesuffix("]")


def is_loopback(host: str) -> bool:
    """Tell whether traffic to and from a host stays on this machine."""
    if host.lower() == "localhost":
        return True
    ip = _ip(host)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return ip is not None and (mapped or ip).is_loopback


def path_of(address: str) -> str:
    """Return the path of unix:PATH or unix:///PATH; "" of an address of another form."""
    path = address.removeprefix(UNIX) if address.startswith(UNIX) else ""
    return path.removeprefix("//") if path.startswith("///") else path


def _unix_address(text: str) -> Address:
    path = path_of(text)
    if not path or path.startswith("//") or "\0" in path:
        raise InputError(f"{_shown(text)} is not unix:PATH, with the path of a socket")
    if len(path.encode()) > MAX_UNIX_BYTES:
        raise InputError(f"{_shown(text)}: the path of a socket has at most {MAX_UNIX_BYTES} bytes; name a shorter one")
    return Address(f"{UNIX}{path}", ())


def _host_and_port(text: str, part: str) -> tuple[str, int]:
    match = _HOST_AND_PORT.fullmatch(part)
    if match is None or int(match[3]) >= 1 << 16:
        raise _malformed(text)
    host = match[1] or match[2].lower()  # a name in capitals is the same name
    if match[1] and not isinstance(_ip(host), ipaddress.IPv6Address):
        raise _malformed(text)
    return host, int(match[3])


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _malformed(text: object) -> InputError:
    return InputError(
        f"address {_shown(text)} is not HOST:PORT, with a port below 65536, nor dns:///HOST:PORT, ipv4:HOST:PORT, "
        "ipv6:[HOST]:PORT or unix:PATH"
    )


def _shown(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."
