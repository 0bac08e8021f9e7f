"""Envoy with the configuration of deploy/envoy, in front of a service: `make envoy` installs it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.azurite import free_port
from tests.support.serving import HANG_SECONDS, ROOT
from tests.support.waiting import wait_until

CONFIGURATION = ROOT / "deploy/envoy/envoy.yaml"
ENVOY = ROOT / "build/envoy/bin/envoy"
ORIGIN = "https://app.example.com"
"""The origin that the configuration names."""


def require() -> None:
    """Skip the test where Envoy is not installed; in CI that is a failure."""
    if ENVOY.is_file():
        return
    reason = "Envoy is not installed: `make envoy`"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def running_envoy(service: str, folder: Path, origin: str = ORIGIN) -> Iterator[str]:
    """Run Envoy before the service at an address, for pages of an origin; gives its own address."""
    port, log = free_port(), folder / "envoy.log"
    text = CONFIGURATION.read_text()
    changes = {
        "port_value: 8080 ": f"port_value: {port} ",
        "port_value: 50051 ": f"port_value: {service.rpartition(':')[2]} ",
        f'"{ORIGIN}"': f'"{origin}"',
    }
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = folder / "envoy.yaml"
    path.write_text(text)
    command: list[str | Path] = [ENVOY, "-c", path, "--disable-hot-restart", "--concurrency", "1", "--log-path", log]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: log.is_file() and "starting main dispatch loop" in log.read_text(), HANG_SECONDS)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)
