"""The image, and a container of it that serves scikit-learn's digits."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skops.io

from sealserve_service.catalog.packing import pack
from sealserve_service.planning.hiding import DEFAULT_HIDING_BITS
from sealserve_service.settings.model_source import ModelSource
from tests.support.containers import PLAINTEXT, RANGE, Container, build_image, require, running_container, wait_until
from tests.support.digits import Digits


@pytest.fixture(scope="session")
def image() -> str:
    """The name of the service's image, built anew where something has changed."""
    require()
    return build_image()


@pytest.fixture(scope="session")
def models(digits_model: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory to mount: the digits model in three formats, readable by all as on a share."""
    directory = tmp_path_factory.mktemp("models")
    estimator = digits_model.estimator
    skops.io.dump(estimator, directory / "digits.skops")
    np.savez(directory / "digits.npz", coef=estimator.coef_, intercept=estimator.intercept_, classes=estimator.classes_)
    source = ModelSource("digits", directory / "digits.npz", input_range=(0.0, 1.0), input_step=0.0625)
    packed = pack(source, trust_pickle=False, hiding_bits=DEFAULT_HIDING_BITS).content
    (directory / "digits.sealmodel").write_bytes(packed)
    directory.chmod(0o755)
    return directory


@pytest.fixture(scope="module")
def container(image: str, models: Path) -> Iterator[Container]:
    """A container that serves the digits model and is healthy."""
    with running_container(
        image, "--model", "/models/digits.skops", *RANGE, *PLAINTEXT, mounts={models: "/models"}
    ) as container:
        wait_until(lambda: container.run("sealserve", "health").returncode == 0, container)
        yield container
