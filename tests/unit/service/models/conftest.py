"""Data and fitting for the tests of models."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

Fit = Callable[..., Any]


@pytest.fixture(scope="session")
def rows() -> NDArray[np.float64]:
    """Rows of 6 features with different units, the last one constant."""
    generator = np.random.default_rng(20)
    scales = np.array([1.0, 0.1, 3.0, 10.0, 0.5, 0.0])
    centres = np.array([0.0, 1.0, -2.0, 5.0, 0.0, 4.0])
    return generator.normal(centres, scales, size=(60, 6))


@pytest.fixture(scope="session")
def groups(rows: NDArray[np.float64]) -> NDArray[np.int64]:
    """A group 0, 1 or 2 a row, one that features tell, up to noise."""
    noise = np.random.default_rng(21).normal(size=len(rows)) * 0.3
    return np.digitize(rows[:, 0] + 0.2 * rows[:, 3] + noise, [0.5, 1.5])


@pytest.fixture(scope="session")
def indicators(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Multilabel targets (rows, 3)."""
    return np.stack([groups == 0, groups >= 1, np.arange(len(groups)) % 3 == 0], axis=1).astype(np.int64)


@pytest.fixture(scope="session")
def targets(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Regression targets (rows, 3)."""
    return rows @ np.random.default_rng(22).normal(size=(6, 3)) + 1.0


@pytest.fixture(scope="session")
def fit() -> Fit:
    """Fit an estimator; a fold does not depend on its convergence."""

    def fitted(estimator: Any, X: Any, y: Any = None) -> Any:
        with warnings.catch_warnings():
            for category in (ConvergenceWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            return estimator.fit(X, y)

    return fitted


@pytest.fixture(scope="session")
def mnist_model_path() -> Path:
    """The scikit-learn 0.22.1 model of the shared data."""
    root = Path(__file__).parents[4]
    shared = os.environ.get("SEALSERVE_DATA")
    folders = [Path(shared)] if shared else [root / "../shared/data", root / "../../shared/data"]
    for folder in folders:
        if (folder / "sklearn_mnist_model.pkl").is_file():
            return folder / "sklearn_mnist_model.pkl"
    pytest.skip(f"no sklearn_mnist_model.pkl in {' or '.join(map(str, folders))}; set SEALSERVE_DATA")
