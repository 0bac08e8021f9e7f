"""Envoy with the configuration of deploy/envoy, in front of a service: `make envoy` installs it."""

import os
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.azurite import free_port
from tests.support.serving import HANG_SECONDS, ROOT
from tests.support.waiting import wait_until

CONFIGURATION = ROOT / "deploy/envoy/envoy.yaml"
EXECUTABLE = ROOT / "build/envoy/bin/envoy"
ORIGIN = "https://app.example.com"
"""The origin that the configuration names."""

_RESOLVER = """
typed_dns_resolver_config:
  name: envoy.network.dns_resolver.cares
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig
    resolvers: [{{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}]
"""


def require() -> None:
    """Skip the test where Envoy is not installed; in CI that is a failure."""
    if EXECUTABLE.is_file():
        return
    reason = "Envoy is not installed: `make envoy`"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class Envoy:
    """A running Envoy.

    Attributes:
        address: where it takes calls.
        admin: the address of its admin interface.
        operators: the address of what probes and Prometheus may ask.
    """

    address: str
    admin: str
    operators: str
    process: "subprocess.Popen[bytes]"

    @property
    def is_ready(self) -> bool:
        """Whether its probe says so."""
        try:
            return _answer(f"http://{self.operators}/ready") == "LIVE\n"
        except OSError:
            return False

    def counters(self, prefix: str) -> dict[str, int]:
        """Return the counters and gauges whose names begin so, without the prefix."""
        lines = _answer(f"http://{self.admin}/stats?filter=^{prefix}").splitlines()
        pairs = (line.removeprefix(prefix).split(": ") for line in lines)
        return {name: int(value) for name, value in pairs if value.isdigit()}

    def healthy_count(self, cluster: str = "sealserve") -> int:
        """How many replicas of a cluster get calls."""
        return self.counters(f"cluster.{cluster}.membership_").get("healthy", 0)

    def by_replica(self, name: str) -> dict[str, int]:
        """Return a number of each replica, by its host, such as rq_total or rq_active."""
        fields = [line.split("::") for line in _answer(f"http://{self.admin}/clusters").splitlines()]
        return {
            at.rpartition(":")[0]: int(value)
            for cluster, at, stat, value in (each for each in fields if len(each) == 4)
            if cluster == "sealserve" and stat == name
        }

    def accept_no_more(self) -> None:
        """Accept no connection, as if nobody knew the address; those that are open stay."""
        _answer(f"http://{self.admin}/drain_listeners", method="POST")

    def send_clients_away(self) -> None:
        """Close each connection in order, after its next answer."""
        _answer(f"http://{self.admin}/healthcheck/fail", method="POST")


def _answer(url: str, method: str = "GET") -> str:
    request = urllib.request.Request(url, method=method)  # noqa: S310  # our own
    with urllib.request.urlopen(request, timeout=HANG_SECONDS) as response:  # noqa: S310
        return str(response.read().decode())


@contextmanager
def running_envoy(service: str, folder: Path, origin: str = ORIGIN) -> Iterator[str]:
    """Run Envoy before the service at an address, for pages of an origin; gives its own address."""
    with running_proxy(service, folder, origin) as proxy:
        yield proxy.address


@contextmanager
def running_proxy(
    service: str,
    folder: Path,
    origin: str = ORIGIN,
    *,
    port: int = 0,
    name_server_port: int = 0,
    edit: Callable[[Any], None] | None = None,
) -> Iterator[Envoy]:
    """Run Envoy before a service.

    Args:
        service: its address; a name's host has an address for each replica.
        folder: for the configuration and the log.
        origin: of the pages that may call.
        port: where it takes calls; 0 for a free one. Several may share one.
        name_server_port: of the name server on this machine to ask; 0 for the machine's own.
        edit: changes the configuration, as an operator does.
    """
    host, _, service_port = service.rpartition(":")
    envoy_port, admin_port, operators_port = port or free_port(), free_port(), free_port()
    text = CONFIGURATION.read_text()
    changes = {
        "port_value: 8080 ": f"port_value: {envoy_port} ",
        "port_value: 9901 ": f"port_value: {admin_port} ",
        "port_value: 9902 ": f"port_value: {operators_port} ",
        "address: 127.0.0.1, port_value: 50051 ": f"address: {host}, port_value: {service_port} ",
        f'"{ORIGIN}"': f'"{origin}"',
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    if name_server_port:
        text += _RESOLVER.format(port=name_server_port)
    if edit:
        configuration = yaml.safe_load(text)
        edit(configuration)
        text = yaml.safe_dump(configuration)
    path, log = folder / f"envoy-{admin_port}.yaml", folder / f"envoy-{admin_port}.log"
    path.write_text(text)
    command: list[str | Path] = [EXECUTABLE, "-c", path, "--disable-hot-restart", "--concurrency", "1"]
    process = subprocess.Popen(
        [*command, "--log-path", log],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        proxy = Envoy(f"127.0.0.1:{envoy_port}", f"127.0.0.1:{admin_port}", f"127.0.0.1:{operators_port}", process)
        wait_until(lambda: proxy.is_ready)
        yield proxy
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)
