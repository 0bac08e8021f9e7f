"""A private head copied from honest scores: nothing hides it, and `inspect` says how many it takes.

The client keeps to the protocol and asks a live service with private weights. With the published
structure of the trees, scores are linear equations for the values of the leaves: as many as the
rank of the features solve them. Without the structure, the client trains a model of its own on rows
and scores, and comes less close. `python -m benchmarks.extraction` measures the curve on an
ensemble of 100 x 31.
"""

from collections.abc import Iterator
from typing import NamedTuple

import joblib
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from sealserve.client import Client
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.catalog.sources import load_source
from sealserve_service.engines.offering import PrivateWeights
from sealserve_service.planning.extraction import scores_to_copy
from sealserve_service.settings.model_source import ModelSource
from tests.support.copied_heads import copied_head
from tests.support.serving import HANG_SECONDS, LIMITS, registered_keys, running_server

TREES, LEAVES, COLUMNS = 20, 8, 6


class Told(NamedTuple):
    """What a client of the service knows.

    Attributes:
        rows, features, scores: its rows, and what it got of them: honest scores.
        other_rows, other_features, labels: rows for which it has not asked, and their true labels.
        needed: the number of scores that `inspect` names.
        error: the published bound on the error of a score.
    """

    rows: NDArray[np.float64]
    features: NDArray[np.float64]
    scores: NDArray[np.float64]
    other_rows: NDArray[np.float64]
    other_features: NDArray[np.float64]
    labels: NDArray[np.int64]
    needed: int
    error: float


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    random = np.random.default_rng(12)
    X = random.normal(size=(7_000, COLUMNS))
    y = (X[:, 0] * X[:, 1] + np.sin(3 * X[:, 2]) + 0.3 * random.normal(size=len(X)) > 0).astype(np.int64)
    estimator = HistGradientBoostingClassifier(max_iter=TREES, max_leaf_nodes=LEAVES, early_stopping=False)
    with threadpool_limits(1):
        estimator.fit(X[:4_000], y[:4_000])
    path = tmp_path_factory.mktemp("model") / "model.pkl"
    joblib.dump(estimator, path)
    keys = registered_keys()
    source = ModelSource("model", path, publish=("structure",))
    served = load_source(source, trust_pickle=True, limits=LIMITS, private=PrivateWeights(40, keys.zero_encryptor))
    with (
        running_server(ModelRegistry([served]), keys=keys) as address,
        Client(address, timeout_seconds=HANG_SECONDS) as client,
    ):
        rows, other = X[4_000:5_000], X[5_000:]
        yield Told(
            rows,
            client.features(rows),
            client.decision_function(rows),
            other,
            client.features(other),
            estimator.predict(other),
            scores_to_copy(client.model.grid),
            client.offer(len(rows)).score_error_bound,
        )


def copied_labels(told: Told, count: int) -> float:
    """The share of labels that a head copied from so many scores gives right."""
    weights = copied_head(told.features[:count], told.scores[:count])
    return float(np.mean((told.other_features @ weights[:-1] + weights[-1] > 0) == told.labels))


def test_as_many_scores_as_inspect_says_copy_the_head(told: Told) -> None:
    assert told.needed == TREES * (LEAVES - 1) + 1
    assert copied_labels(told, 2 * told.needed) >= 0.995
    assert copied_labels(told, told.needed // 4) <= 0.95


def test_the_copy_has_the_scores_too(told: Told) -> None:
    weights = copied_head(told.features, told.scores)
    residual = told.features @ weights[:-1] + weights[-1] - told.scores
    assert np.abs(residual).max() <= 4 * told.error


def test_without_the_structure_a_copy_takes_more_scores(told: Told) -> None:
    count = 2 * told.needed
    with threadpool_limits(1):
        copy = HistGradientBoostingRegressor(early_stopping=False).fit(told.rows[:count], told.scores[:count])
        predicted = copy.predict(told.other_rows) > 0
    assert np.mean(predicted == told.labels) <= copied_labels(told, count) - 0.02
