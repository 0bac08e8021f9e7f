"""Labels are those of the estimator: every kind of model, through a live service, by default.

The operator gives typical rows in a file and agrees to publish; everything else is the default.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from sealserve.client import Client
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.catalog.sources import load_source
from sealserve_service.engines.offering import PrivateWeights
from sealserve_service.settings.model_source import ModelSource
from tests.support.serving import LIMITS, registered_keys, running_server
from tests.support.table_kinds import KINDS, Data, Kind

LEAST = 0.999
CALIBRATION_ROWS = 6_000
"""Of 2,000 rows so few are near ties that the share of other labels is known to a factor of 5."""
TIMEOUT_SECONDS = 600.0
FEW = ("one-hot logistic, three classes", "splines", "hist gradient boosting", "words beside columns", "iris, QDA")


def fitted(kind: Kind) -> tuple[Any, Data, Data]:
    """Fit an estimator of a kind; give it with the rows that it was fitted to, and others."""
    data = kind.load()
    seen, unseen = data.split(min(kind.most_trained, len(data.y) // 2))
    with warnings.catch_warnings(action="ignore"), threadpool_limits(1):  # of convergence
        return kind.make().fit(seen.X, seen.y), seen, unseen


def saved(estimator: Any, rows: Any, folder: Path) -> ModelSource:
    """Save a model and typical rows, as a user does."""
    joblib.dump(estimator, folder / "model.joblib")
    if isinstance(rows, pd.DataFrame):
        calibration = folder / "rows.csv"
        rows.to_csv(calibration, index=False)
    else:
        calibration = folder / "rows.npy"
        np.save(calibration, rows)
    return ModelSource("model", folder / "model.joblib", calibration=calibration, publish=("steps", "structure"))


def versions(source: ModelSource, keys: Any) -> Iterator[tuple[str, ServedModel]]:
    """Load a model in either mode. A verdict of REFUSE is an error."""
    for mode, private in (("private", PrivateWeights(40, keys.zero_encryptor)), ("open", None)):
        yield mode, load_source(source, trust_pickle=True, limits=LIMITS, private=private)


COUNTS = [
    *(pytest.param(name, 4_000, marks=pytest.mark.slow, id=f"{name}, few rows") for name in FEW),
    *(pytest.param(name, 24_000, marks=pytest.mark.long, id=name) for name in KINDS),
]


@pytest.mark.parametrize(("name", "count"), COUNTS)
def test_labels_are_the_estimators(name: str, count: int, tmp_path: Path) -> None:
    estimator, seen, unseen = fitted(KINDS[name])
    source, keys = saved(estimator, seen.X[:CALIBRATION_ROWS], tmp_path), registered_keys()
    rows = unseen.X[:count]
    with threadpool_limits(1):  # threads of trees would wait for each other on busy cores
        expected = estimator.predict(rows)
    for mode, served in versions(source, keys):
        with running_server(ModelRegistry([served]), keys=keys) as address:
            for layout in ("row", "column"):
                with Client(address, layout=layout, timeout_seconds=TIMEOUT_SECONDS) as client:
                    found = client.predict(rows, errors="return")
                is_refused = np.array([isinstance(label, Exception) for label in found])
                assert is_refused.mean() <= 0.005, (mode, layout)  # extremes that calibration has not seen
                agreement = np.mean(np.array(found, object)[~is_refused] == expected[~is_refused])
                assert agreement >= LEAST, (mode, layout, agreement)
