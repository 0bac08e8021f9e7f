"""The container as Azure Container Instances runs it: by the template, over TLS.

The command, the environment and the probes are the template's. What is Azure's own is left out: the
share and the secret volume are directories, and keys are kept in memory.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.errors import UnauthenticatedError
from tests.support.containers import Container, running_container, wait_until
from tests.support.digits import Digits
from tests.support.guide import Made, certificates_and_token
from tests.support.serving import HANG_SECONDS
from tests.support.templates import FILLED_IN, container, group_of_yaml

pytestmark = pytest.mark.slow

OF_AZURE = {"AZURE_CLIENT_ID", "SEALSERVE_KEY_STORE"}


class Deployment(NamedTuple):
    """A container, what the template says of it, and what its operator has made."""

    container: Container
    described: dict[str, Any]
    made: Made

    @property
    def server_name(self) -> str:
        return f"{FILLED_IN['ACI_NAME']}.{FILLED_IN['ACI_REGION']}.azurecontainer.io"

    def client(self, token: str) -> Client:
        """A client with a token, or with none."""
        credentials = Credentials(self.made.directory / "ca.crt", server_name=self.server_name, token=token)
        return Client(self.container.address, credentials=credentials, timeout_seconds=HANG_SECONDS)


@pytest.fixture(scope="module")
def deployment(image: str, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = certificates_and_token(tmp_path_factory.mktemp("guide"), FILLED_IN["ACI_NAME"], FILLED_IN["ACI_REGION"])
    made.directory.chmod(0o755)
    for file in made.directory.iterdir():
        file.chmod(0o644)  # as in a secret volume
    digest = hashlib.sha256((models / "digits.skops").read_bytes()).hexdigest()
    described = container(
        group_of_yaml(ACI_MODEL_NAME="digits", MODEL_FILE="digits.skops", MODEL_SHA256=digest, ACI_INPUT_RANGE="0,1")
    )
    program, command, *arguments = described["command"]
    assert (program, command) == ("sealserve", "serve")
    environment = {variable["name"]: variable["value"] for variable in described["environmentVariables"]}
    with running_container(
        image,
        *arguments,
        mounts={models: "/models", made.directory: "/tls"},
        environment={name: value for name, value in environment.items() if name not in OF_AZURE},
    ) as running:
        ready = described["readinessProbe"]["exec"]["command"]
        wait_until(lambda: running.run(*ready).returncode == 0, running)
        yield Deployment(running, described, made)


def test_the_probes_see_health_through_tls(deployment: Deployment) -> None:
    for probe in ("livenessProbe", "readinessProbe"):
        asked = deployment.container.run(*deployment.described[probe]["exec"]["command"])
        assert (asked.returncode, asked.stdout) == (0, "SERVING\n")


def test_who_has_the_token_is_served(deployment: Deployment, digits_model: Digits) -> None:
    rows = np.tile(digits_model.X, (4, 1))[:1000]
    with deployment.client(deployment.made.token) as client:
        assert client.model.name == "digits"
        np.testing.assert_array_equal(client.predict(rows), digits_model.estimator.predict(rows))


def test_who_has_no_token_is_not(deployment: Deployment, digits_model: Digits) -> None:
    with deployment.client("") as client, pytest.raises(UnauthenticatedError):
        client.predict(digits_model.X[:1])
