"""The TypeScript SDK in Chromium: the vectors, lacking platforms, and live predictions."""

import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import minmax_scale

from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.models.loading import load_model
from tests.support import chromium, envoy, mnist, node
from tests.support.azurite import free_port
from tests.support.digits import Digits
from tests.support.serving import registered_keys, running_server, served
from tests.support.typescript_cases import HIDING_BITS, case

ROW_COUNT = 1000
MOST_MILLISECONDS = 60
"""For the median whole call of a private row of MNIST, server and proxy included."""

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _needs_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    node.require()
    monkeypatch.setenv("SEALSERVE_CHROMIUM", chromium.require())


def test_vectors() -> None:
    assert "fail 0" in node.run_tests("tests/browser/vectors.test.ts")


def test_platforms_that_lack_something_and_keys_that_stay() -> None:
    assert "fail 0" in node.run_tests("tests/browser/platform.test.ts")


def run_live(registry: ModelRegistry, keys: Any, cases: list[dict[str, Any]], folder: Path, row_count: int) -> str:
    """Serve models behind Envoy, and let a page predict rows of them."""
    envoy.require()
    port = free_port()
    with (
        running_server(registry, keys=keys) as service,
        envoy.running_envoy(service, folder, f"http://127.0.0.1:{port}") as address,
    ):
        content = {"address": address, "sitePort": port, "cases": cases, "rowCount": row_count}
        return node.run_live_tests("live", folder, content, kind="browser")


def small_models(digits_model: Digits, folder: Path, keys: Any) -> tuple[ModelRegistry, list[dict[str, Any]]]:
    """Digits in rows, and flowers also in columns, which fit into a message; in both modes."""
    X, y = load_iris(return_X_y=True)
    flowers = np.round(256 * minmax_scale(X)) / 256  # on the grid that is declared
    estimators: dict[str, tuple[Any, Any, float]] = {
        "digits": (digits_model.estimator, np.resize(digits_model.X, (ROW_COUNT, 64)), 1 / 16),
        "flowers": (LogisticRegression(C=100).fit(flowers, y), flowers, 1 / 256),
    }
    modes: dict[str, dict[str, Any]] = {"": {}, "-private": {"keys": keys, "hiding_bits": HIDING_BITS}}
    models, cases = [], []
    for name, (estimator, rows, step) in estimators.items():
        for suffix, mode in modes.items():
            models.append(served(name + suffix, estimator, input_step=step, **mode))
            layouts = ["row"] if name == "digits" else ["row", "column"]
            cases.append(case(name + suffix, folder, rows, estimator) | {"layouts": layouts, "isPrivate": suffix != ""})
    return ModelRegistry(models), cases


def test_labels_are_those_of_scikit_learn(digits_model: Digits, tmp_path: Path) -> None:
    keys = registered_keys()
    registry, cases = small_models(digits_model, tmp_path, keys)
    assert "fail 0" in run_live(registry, keys, cases, tmp_path, row_count=500)


@pytest.mark.long
def test_memory_is_flat_over_ten_thousand_predictions(digits_model: Digits, tmp_path: Path) -> None:
    keys = registered_keys()
    registry, cases = small_models(digits_model, tmp_path, keys)
    few = [each | {"labels": each["labels"][:100]} for each in cases]
    assert "fail 0" in run_live(registry, keys, few, tmp_path, row_count=10_000)


def test_labels_and_times_of_mnist(tmp_path: Path) -> None:
    path, images = mnist.find(mnist.MODEL), mnist.images()
    if path is None or images is None:
        pytest.skip("the MNIST model or its test images are not at hand: `make data`, or SEALSERVE_DATA=DIRECTORY")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickled by scikit-learn 0.22
        estimator = joblib.load(path)
    model, keys = load_model(path, trust_pickle=True), registered_keys()
    models = [served("mnist", model), served("mnist-private", model, keys=keys, hiding_bits=HIDING_BITS)]
    cases = [
        case(each.model.name, tmp_path, images[:ROW_COUNT], estimator)
        | {"layouts": ["row"], "isPrivate": each.model.name != "mnist", "mostMilliseconds": MOST_MILLISECONDS}
        for each in models
    ]
    assert "fail 0" in run_live(ModelRegistry(models), keys, cases, tmp_path, row_count=100)
