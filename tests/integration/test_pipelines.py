"""Models that are more than a `coef_`, through a live service: predictions are the estimator's."""

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC

from sealserve.client import Client
from sealserve.errors import NoSuchMethodError
from sealserve_service.catalog.registry import ModelRegistry, prepare_model
from sealserve_service.engines.offering import PrivateWeights
from sealserve_service.models.folding import fold
from sealserve_service.planning.grid import input_ranges
from tests.support.serving import HANG_SECONDS, LIMITS, registered_keys, running_server

Rows = NDArray[Any]


def wine() -> tuple[Rows, Rows]:
    X, y = load_wine(return_X_y=True)
    return X, np.array(["red", "rose", "white"])[y]


def _columns() -> Any:
    halves = [
        ("scaled", StandardScaler(), slice(0, 6)),
        ("reduced", make_pipeline(RobustScaler(), PCA(3)), slice(6, 13)),
    ]
    return ColumnTransformer(halves)


ESTIMATORS: dict[str, tuple[Any, Any]] = {
    "branches": (make_pipeline(_columns(), LogisticRegression()), wine),
    "one versus one": (make_pipeline(StandardScaler(), SVC(kernel="linear")), wine),
    "isotonic": (CalibratedClassifierCV(make_pipeline(StandardScaler(), LinearSVC()), cv=3, method="isotonic"), wine),
    "sigmoids": (
        CalibratedClassifierCV(make_pipeline(StandardScaler(), LinearSVC()), cv=3),
        lambda: load_breast_cancer(return_X_y=True),
    ),
    "naive Bayes": (make_pipeline(MinMaxScaler(), MultinomialNB()), wine),
    "network": (make_pipeline(StandardScaler(), MLPClassifier((5,), activation="identity", random_state=0)), wine),
    "search": (GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {}, cv=2), wine),
    "log link": (make_pipeline(StandardScaler(), PoissonRegressor()), lambda: load_diabetes(return_X_y=True)),
    "log of targets": (
        make_pipeline(StandardScaler(), TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1)),
        lambda: load_diabetes(return_X_y=True),
    ),
}


@pytest.mark.parametrize(("layout", "hiding_bits"), [("row", 40), ("column", None)], ids=["row", "column"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_predictions_are_the_estimators(name: str, layout: str, hiding_bits: int | None) -> None:
    estimator, load = ESTIMATORS[name]
    X, y = load()
    with warnings.catch_warnings(action="ignore"):  # of convergence
        estimator.fit(X, y)
    keys = registered_keys()
    private = PrivateWeights(hiding_bits, keys.zero_encryptor) if hiding_bits else None
    model = fold(estimator)
    ranges = input_ranges(model, calibration=X)
    served = prepare_model("model", model, ranges, LIMITS, calibration=X, private=private, accept_disagreement=True)
    rows = X[:40] if layout == "row" else X
    with (
        running_server(ModelRegistry([served]), keys=keys) as address,
        Client(address, timeout_seconds=HANG_SECONDS, layout=layout) as client,
    ):
        predicted = client.predict(rows)
        expected = estimator.predict(rows)
        if model.output.has_probabilities:
            error = np.abs(client.predict_proba(rows) - estimator.predict_proba(rows)).max()
            assert error < (0.05 if name == "isotonic" else 0.02)  # its curves are steep
        elif model.output.classes:
            with pytest.raises(NoSuchMethodError):
                client.predict_proba(rows)
    assert predicted.shape == expected.shape
    if model.output.classes:
        assert np.mean(predicted == expected) >= 0.999
    else:
        np.testing.assert_allclose(predicted, expected, rtol=0.02)
