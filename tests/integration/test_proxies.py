"""Proxies that the environment names: no traffic of this machine goes through one."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealserve._rpc.channel import open_channel
from sealserve._rpc.no_proxy import is_exempt
from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.errors import SealserveError
from sealserve_service.catalog.registry import ModelRegistry
from tests.support.certificates import Authority
from tests.support.serving import SETTINGS, running_server
from tests.support.waiting import wait_until

OURS = Authority("ours")


class Proxy:
    """An HTTP proxy that records what it is asked, and hangs up."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Listen no longer."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.requests.append(connection.recv(1000))


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    proxy = Proxy()
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield proxy
    proxy.close()


def test_a_probe_of_this_machine_uses_none(proxy: Proxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificate, key = OURS.issue("service.example.org").write(tmp_path)
    settings = SETTINGS.with_changes(tls_certificate=certificate, tls_private_key=key)
    trust = ["--ca-certificate", str(certificate), "--server-name", "service.example.org"]
    with running_server(ModelRegistry([]), settings) as address:
        port = address.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "LOCALHOST", "ipv4:127.0.0.1", "dns:///localhost"):
            assert main(["health", "--address", f"{host}:{port}", *trust]) == 0
    assert capsys.readouterr().out.split() == ["SERVING"] * 5
    assert proxy.requests == []


@pytest.mark.parametrize("credentials", [Credentials(), Credentials(insecure=True)], ids=["TLS", "plaintext"])
def test_others_are_reached_through_it(proxy: Proxy, credentials: Credentials) -> None:
    """Only then does the next test say anything."""
    try_to_reach("192.0.2.1:443", credentials)
    wait_until(lambda: bool(proxy.requests))
    assert proxy.requests[0].startswith(b"CONNECT 192.0.2.1:443")


@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize("entries", ["*", "192.0.2.1", "x, 192.0.2.0/24"])
def test_others_obey_no_proxy(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, variable: str, entries: str) -> None:
    monkeypatch.setenv(variable, entries)
    try_to_reach("192.0.2.1:443", Credentials())
    assert proxy.requests == []


def try_to_reach(address: str, credentials: Credentials) -> None:
    with Client(address, credentials=credentials, timeout_seconds=0.3) as client, pytest.raises(SealserveError):
        client.model  # noqa: B018  # a property that asks the service


@pytest.mark.parametrize(
    ("entries", "host", "expected"),
    [
        ("", "example.org", False),
        ("example.org", "example.org", True),
        ("Example.org", "a.EXAMPLE.org", True),
        (".example.org", "a.example.org", True),
        ("example.org", "badexample.org", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("0.0.1", "10.0.0.1", False),
        ("[::1]", "::1", True),
        ("fd00::/8", "fd00::1", True),
        (" , ,", "example.org", False),
    ],
)
def test_entries(monkeypatch: pytest.MonkeyPatch, entries: str, host: str, expected: bool) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", entries)
    assert is_exempt(host) is expected


def test_unix_sockets_use_none(proxy: Proxy, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with running_server(ModelRegistry([]), SETTINGS.with_changes(address=f"unix:{path}")):
        assert main(["health", "--address", f"unix:{path}"]) == 0
    with open_channel(f"unix:{tmp_path / 'none'}") as channel, pytest.raises(Exception, match="UNAVAILABLE"):
        channel.unary_unary("/a/b", bytes, bytes)(b"", timeout=5)
    assert proxy.requests == []
