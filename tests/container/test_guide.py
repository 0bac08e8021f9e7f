"""The Azure ML guide in a container: its model and images, TLS, a token, keys in Blob storage."""

import shutil
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import joblib
import numpy as np
import pytest
from azure.storage.blob import ContainerClient
from numpy.typing import NDArray

from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.ei import EIClient
from tests.support import mnist
from tests.support.azurite import Azurite
from tests.support.containers import Container, running_container, wait_until
from tests.support.guide import certificates_and_token
from tests.support.serving import HANG_SECONDS

pytestmark = pytest.mark.slow

ROWS, EI_ROWS = 1000, 20


class Service(NamedTuple):
    """A container of the guide's model, what a client needs to call it, and where its keys are."""

    container: Container
    credentials: Credentials
    connection_string: str
    blob_container: str


@pytest.fixture(scope="module")
def images() -> NDArray[np.float64]:
    images = mnist.images()
    if images is None or mnist.find(mnist.MODEL) is None:
        pytest.skip("the MNIST model or its test images are not at hand: `make data`, or SEALSERVE_DATA=DIRECTORY")
    return images[:ROWS]


@pytest.fixture(scope="module")
def estimator(images: NDArray[np.float64]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickled by scikit-learn 0.22
        return joblib.load(mnist.find(mnist.MODEL))


@pytest.fixture(scope="module")
def service(
    image: str, images: NDArray[np.float64], azurite: Azurite, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    made = certificates_and_token(tmp_path_factory.mktemp("guide"), "guide", "westeurope")
    models = tmp_path_factory.mktemp("models")
    shutil.copy(mnist.find(mnist.MODEL) or "", models)
    for directory in (models, made.directory):
        directory.chmod(0o755)
        for file in directory.iterdir():
            file.chmod(0o644)
    server_name = "guide.westeurope.azurecontainer.io"
    blobs = azurite.new_container()
    environment = {
        "SEALSERVE_TLS_CERTIFICATE": "/tls/tls.crt",
        "SEALSERVE_TLS_PRIVATE_KEY": "/tls/tls.key",
        "SEALSERVE_IDENTITIES": "/tls/identities.toml",
        "SEALSERVE_KEY_STORE": f"azure:{blobs}",
        "SEALSERVE_KEY_STORE_CONNECTION_STRING": azurite.connection_string,
    }
    arguments = ("--model", f"mnist={mnist.MODEL}", "--trust-pickle", "--input-range", "0,1")
    mounts = {models: "/models", made.directory: "/tls"}
    with running_container(image, *arguments, mounts=mounts, environment=environment, shares_network=True) as container:
        trust = ("--ca-certificate", "/tls/ca.crt", "--server-name", server_name)
        probe = ("sealserve", "health", "--address", container.address, *trust)
        wait_until(lambda: container.run(*probe).returncode == 0, container)
        credentials = Credentials(made.directory / "ca.crt", server_name=server_name, token=made.token)
        yield Service(container, credentials, azurite.connection_string, blobs)


def test_a_thousand_images(
    service: Service,
    images: NDArray[np.float64],
    estimator: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    container = service.container
    with Client(container.address, credentials=service.credentials, timeout_seconds=HANG_SECONDS) as client:
        scores = client.decision_function(images)
    expected = images @ estimator.coef_.T + estimator.intercept_
    assert np.abs(scores - expected).max() <= 0.01
    np.testing.assert_array_equal(scores.argmax(axis=1), expected.argmax(axis=1))
    with capsys.disabled():
        print(f"\nafter {ROWS} images: the container's peak is {container.peak_memory_bytes() >> 20} MiB")


def test_an_unmodified_client_whose_keys_are_in_blob_storage(
    service: Service,
    images: NDArray[np.float64],
    estimator: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    container = service.container
    with EIClient(container.address, credentials=service.credentials, timeout_seconds=HANG_SECONDS) as client:
        labels = client.predict(images[:EI_ROWS])
    expected = images[:EI_ROWS] @ estimator.coef_.T + estimator.intercept_
    with ContainerClient.from_connection_string(service.connection_string, service.blob_container) as blobs:
        assert sum(blob.size > 8 << 20 for blob in blobs.list_blobs()) == 1, "the keys are there"
    np.testing.assert_array_equal(labels, estimator.classes_[expected.argmax(axis=1)])
    with capsys.disabled():
        print(f"\nafter {EI_ROWS} rows of EI: the container's peak is {container.peak_memory_bytes() >> 20} MiB")
