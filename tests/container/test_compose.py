"""The service of deploy/compose.yaml, run by podman-compose, with TLS and callers by token."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sealserve.errors import UnauthenticatedError
from tests.support import manifests
from tests.support.azurite import free_port
from tests.support.containers import Container, composed, says_yes, wait_until, write_secrets
from tests.support.digits import Digits

pytestmark = pytest.mark.slow

NAME = "inference.example.org"


@pytest.fixture(scope="module")
def folder(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the Compose file wants beside it."""
    folder = tmp_path_factory.mktemp("compose")
    (folder / "models").mkdir()
    shutil.copy(models / "digits.skops", folder / "models")
    (folder / "keys").mkdir()
    (folder / "keys").chmod(0o777)  # it belongs to somebody else than user 10001
    (folder / "service.env").write_text(
        "SEALSERVE_INPUT_RANGE=0,1\nSEALSERVE_INPUT_STEP=0.0625\nSEALSERVE_PROCESSES=1\n"
    )
    (folder / "token").write_text(write_secrets(folder / "tls", NAME))
    return folder


@pytest.fixture(scope="module")
def metrics() -> str:
    """The address of metrics on this machine."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def service(image: str, folder: Path, metrics: str) -> Iterator[Container]:
    manifests.require()
    with composed(image, folder, SEALSERVE_SERVER_NAME=NAME, SEALSERVE_PUBLISH_METRICS=metrics) as service:
        wait_until(lambda: says_yes(f"http://{metrics}/readyz"), service)
        yield service


def test_it_serves_those_whom_it_knows(service: Container, folder: Path, digits_model: Digits) -> None:
    rows = digits_model.X[:5]
    with service.client(folder / "tls/ca.crt", NAME, (folder / "token").read_text()) as known:
        np.testing.assert_array_equal(known.predict(rows), digits_model.estimator.predict(rows))
    with service.client(folder / "tls/ca.crt", NAME, "") as unknown, pytest.raises(UnauthenticatedError):
        unknown.predict(rows)
    assert service.run("sealserve", "health").stdout == "SERVING\n"
    # Private weights: the client has registered a key, in the folder.
    assert list((folder / "keys").rglob("*"))


def test_it_is_confined(service: Container) -> None:
    fields = service.confinement()
    assert fields["Uid"].split() == fields["Gid"].split() == ["10001"] * 4
    assert {fields[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"
    for place in ("/", "/models", "/tls", "/opt/sealserve"):
        assert service.run("touch", f"{place}/file").returncode == 1, place
    assert service.memory_limit_bytes() == 2 << 30


def test_it_ends_in_order(service: Container) -> None:
    service.stop()
    assert (service.state("Status"), service.state("ExitCode")) == ("exited", "0")
    records = [json.loads(line) for line in service.logs().splitlines() if line.startswith("{")]
    assert any("stopping" in record["message"] for record in records)
