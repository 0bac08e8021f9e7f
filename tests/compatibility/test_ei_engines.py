"""The two engines for encrypted-inference clients: SEAL's against EIServer, the reference."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.ei import EIClient
from sealserve_service.models.loading import load_model
from tests.support import mnist
from tests.support.ei_user import EIUser
from tests.support.programs import Program, serve

SLOW_SECONDS = 120.0
FEATURES, CLASSES = 12, 2


def connected(program: Program, user: EIUser, model: str = "") -> EIClient:
    return EIClient(
        program.address,
        model=model,
        client=user.client,
        evaluation_keys=user.evaluation_keys,
        timeout_seconds=SLOW_SECONDS,
    )


def random_model(path: Path, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Write a model of two targets, of any size and sign; returns weights and intercept."""
    random = np.random.default_rng(seed)
    weights = random.normal(size=(CLASSES, FEATURES)) * 10.0 ** random.integers(-2, 3)
    intercept = random.normal(size=CLASSES)
    if seed % 3 == 0:
        weights[:, random.integers(FEATURES)] = 0.0
    np.savez(path, coef=weights, intercept=intercept)
    return weights, intercept


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed",
    [
        0,
        *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6)),
        *(pytest.param(seed, marks=pytest.mark.long) for seed in range(6, 60)),
    ],
)
def test_both_engines_give_the_same_numbers(tmp_path: Path, ei_user: EIUser, seed: int) -> None:
    weights, intercept = random_model(tmp_path / "model.npz", seed)
    row = np.random.default_rng(seed + 100).uniform(-1, 1, (1, FEATURES))
    options = [f"--model={tmp_path / 'model.npz'}", "--input-range=-1,1"]
    found = {}
    for engine in ("seal", "eiserver"):
        with serve(*options, f"--ei-engine={engine}") as program, connected(program, ei_user) as client:
            found[engine] = client.predict(row)[0]
    expected = weights @ row[0] + intercept
    tolerance = 1e-4 * max(1.0, float(np.abs(expected).max()))
    assert found["seal"] == pytest.approx(expected, abs=tolerance)
    assert found["eiserver"] == pytest.approx(expected, abs=tolerance)


def mnist_options(count: int) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Options that serve the guide's model; the images as rows; their scores in plaintext."""
    path, images = mnist.find(mnist.MODEL), mnist.images()
    if path is None or images is None:
        pytest.skip("the MNIST model or its test images are not at hand: `make data`, or SEALSERVE_DATA=DIRECTORY")
    rows = images[:count]
    model = load_model(path, trust_pickle=True)
    return [f"--model=mnist={path}", "--trust-pickle", "--input-range=0,1"], rows, model.decision(rows)


@pytest.mark.parametrize(
    "count", [3, pytest.param(200, marks=pytest.mark.slow), pytest.param(10_000, marks=pytest.mark.long)]
)
def test_mnist_with_the_seal_engine(ei_user: EIUser, count: int) -> None:
    options, rows, expected = mnist_options(count)
    with serve(*options) as program, connected(program, ei_user) as client:
        scores = client.decision_function(rows)
    assert np.abs(scores - expected).max() < 1e-4
    np.testing.assert_array_equal(scores.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.slow
def test_mnist_with_eiserver(ei_user: EIUser) -> None:
    options, rows, expected = mnist_options(3)
    with serve(*options, "--ei-engine=eiserver") as program, connected(program, ei_user) as client:
        scores = client.decision_function(rows)
    assert np.abs(scores - expected).max() < 1e-4
    np.testing.assert_array_equal(scores.argmax(axis=1), expected.argmax(axis=1))
