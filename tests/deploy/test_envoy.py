"""The configuration of Envoy: gRPC, gRPC-Web and CORS in front of an unchanged service."""

import subprocess
from pathlib import Path

import pytest

from sealserve_service.catalog.registry import ModelRegistry
from tests.support import envoy, node
from tests.support.digits import Digits
from tests.support.serving import registered_keys, running_server, served

pytestmark = pytest.mark.slow


def test_one_port_serves_programs_and_pages(digits_model: Digits, tmp_path: Path) -> None:
    envoy.require()
    node.require()
    keys = registered_keys()
    models = [
        served("digits", digits_model.estimator, input_step=1 / 16),
        served("digits-private", digits_model.estimator, input_step=1 / 16, keys=keys, hiding_bits=40),
    ]
    with (
        running_server(ModelRegistry(models), keys=keys) as service,
        envoy.running_envoy(service, tmp_path) as address,
    ):
        content = {
            "address": address,
            "origin": envoy.ORIGIN,
            "digit": digits_model.X[0].tolist(),
            "digitLabel": int(digits_model.estimator.predict(digits_model.X[:1])[0]),
        }
        node.run_live_tests("web", tmp_path, content)


def test_the_configuration_is_one_that_envoy_takes() -> None:
    envoy.require()
    command: list[str | Path] = [envoy.EXECUTABLE, "--mode", "validate", "-c", envoy.CONFIGURATION]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "eprecated" not in done.stderr
