"""The service of deploy/compose.yaml, run by podman-compose, with TLS and callers by token."""

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.errors import UnauthenticatedError
from tests.support import kubernetes
from tests.support.azurite import free_port
from tests.support.certificates import Authority
from tests.support.containers import Container, composed, wait_until
from tests.support.digits import Digits
from tests.support.identities import ALL, IdentitiesFile
from tests.support.serving import HANG_SECONDS

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
    (folder / "tls").mkdir()
    authority = Authority("example")
    authority.issue(NAME).write(folder / "tls", "tls")
    (folder / "tls/ca.crt").write_bytes(authority.certificate)
    identities = IdentitiesFile(folder / "tls/identities.toml", clinic=ALL)
    (folder / "token").write_text(identities.token("clinic"))
    for file in (folder / "tls").iterdir():
        file.chmod(0o644)
    (folder / "service.env").write_text("SEALSERVE_INPUT_RANGE=0,1\nSEALSERVE_INPUT_STEP=0.0625\n")
    return folder


@pytest.fixture(scope="module")
def metrics() -> str:
    """The address of metrics on this machine."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def service(image: str, folder: Path, metrics: str) -> Iterator[Container]:
    kubernetes.require()
    with composed(image, folder, SEALSERVE_SERVER_NAME=NAME, SEALSERVE_PUBLISH_METRICS=metrics) as service:
        wait_until(lambda: service.run("sealserve", "health").stdout == "SERVING\n", service)
        yield service


def client(service: Container, folder: Path, token: str) -> Client:
    credentials = Credentials(folder / "tls/ca.crt", server_name=NAME, token=token)
    return Client(service.address, credentials=credentials, timeout_seconds=HANG_SECONDS)


def test_it_serves_those_whom_it_knows(service: Container, folder: Path, metrics: str, digits_model: Digits) -> None:
    rows = digits_model.X[:5]
    with client(service, folder, (folder / "token").read_text()) as known:
        np.testing.assert_array_equal(known.predict(rows), digits_model.estimator.predict(rows))
    with client(service, folder, "") as unknown, pytest.raises(UnauthenticatedError):
        unknown.predict(rows)
    with urllib.request.urlopen(f"http://{metrics}/readyz", timeout=HANG_SECONDS) as answer:
        assert answer.status == 200
    # Private weights: the client has registered a key, in the folder.
    assert list((folder / "keys").rglob("*"))


def test_it_is_confined(service: Container) -> None:
    status = service.run("cat", "/proc/1/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
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
