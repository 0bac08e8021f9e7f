"""Labels are those of the estimator: every kind of model, through a live service, by default.

The operator gives typical rows in a file and agrees to publish; everything else is the default.
"""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from sealserve.client import Client
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.catalog.sources import load_source
from sealserve_service.engines.offering import PrivateWeights
from sealserve_service.settings.model_source import ModelSource
from tests.support.serving import LIMITS, registered_keys, running_server
from tests.support.table_kinds import KINDS, REGRESSORS, Data, Kind

LEAST = 0.999
CALIBRATION_ROWS = 6_000
"""Of 2,000 rows so few are near ties that the share of other labels is known to a factor of 5."""
TIMEOUT_SECONDS = 600.0
MOST_ERROR = 0.01
FEW = (
    "one-hot logistic, three classes",
    "splines",
    "hist gradient boosting",
    "words beside columns",
    "iris, QDA",
)
FEW_REGRESSORS = ("transformed target",)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of trees would wait for each other on busy cores."""
    with threadpool_limits(1):
        yield


def fitted(kind: Kind) -> tuple[Any, Data, Data]:
    """Fit an estimator of a kind; give it with the rows that it was fitted to, and others."""
    data = kind.load()
    seen, unseen = data.split(min(kind.most_trained, len(data.y) // 2))
    with warnings.catch_warnings(action="ignore"):  # of convergence
        return kind.make().fit(seen.X, seen.y), seen, unseen


def saved(kind: Kind, estimator: Any, rows: Any, folder: Path) -> ModelSource:
    """Save a model and typical rows, as a user does."""
    joblib.dump(estimator, folder / "model.joblib")
    if isinstance(rows, pd.DataFrame):
        calibration = folder / "rows.csv"
        rows.to_csv(calibration, index=False)
    else:
        calibration = folder / "rows.npy"
        np.save(calibration, rows)
    return ModelSource(
        "model",
        folder / "model.joblib",
        calibration=calibration,
        publish=("steps", "structure"),
        accept_training_values=kind.accepts_training_values,
    )


def versions(source: ModelSource, keys: Any) -> Iterator[tuple[str, ServedModel]]:
    """Load a model in either mode. A verdict of REFUSE is an error."""
    for mode, private in (("private", PrivateWeights(40, keys.zero_encryptor)), ("open", None)):
        yield mode, load_source(source, trust_pickle=True, limits=LIMITS, private=private)


def answers(source: ModelSource, rows: Any) -> Iterator[tuple[list[Any], NDArray[np.bool_]]]:
    """Predict rows in either mode and layout; yield what came back, and which rows were refused."""
    keys = registered_keys()
    for mode, served in versions(source, keys):
        with running_server(ModelRegistry([served]), keys=keys) as address:
            for layout in ("row", "column"):
                with Client(address, layout=layout, timeout_seconds=TIMEOUT_SECONDS) as client:
                    found = client.predict(rows, errors="return")
                is_refused = np.array([isinstance(answer, Exception) for answer in found])
                assert is_refused.mean() <= 0.005, (mode, layout)  # extremes that calibration has not seen
                yield found, is_refused


def counts(kinds: Iterable[str], few: Iterable[str]) -> list[Any]:
    """Few rows of some kinds, and many of all."""
    return [
        *(pytest.param(name, 4_000, marks=pytest.mark.slow, id=f"{name}, few rows") for name in few),
        *(pytest.param(name, 24_000, marks=pytest.mark.long, id=name) for name in kinds),
    ]


@pytest.mark.parametrize(("name", "count"), counts(KINDS, FEW))
def test_labels_are_the_estimators(name: str, count: int, tmp_path: Path) -> None:
    estimator, seen, unseen = fitted(KINDS[name])
    source, rows = saved(KINDS[name], estimator, seen.X[:CALIBRATION_ROWS], tmp_path), unseen.X[:count]
    expected = estimator.predict(rows)
    for found, is_refused in answers(source, rows):
        agreement = np.mean([np.array_equal(found[k], expected[k]) for k in np.flatnonzero(~is_refused)])
        assert agreement >= LEAST, agreement


@pytest.mark.parametrize(("name", "count"), counts(REGRESSORS, FEW_REGRESSORS))
def test_predictions_are_the_estimators(name: str, count: int, tmp_path: Path) -> None:
    """Targets are no labels: their errors are 1 % of their spread at most."""
    estimator, seen, unseen = fitted(REGRESSORS[name])
    source, rows = saved(REGRESSORS[name], estimator, seen.X[:CALIBRATION_ROWS], tmp_path), unseen.X[:count]
    expected = estimator.predict(rows)
    for found, is_refused in answers(source, rows):
        errors = np.array([found[k] - expected[k] for k in np.flatnonzero(~is_refused)])
        assert np.sqrt(np.mean(errors**2)) <= MOST_ERROR * expected.std()
