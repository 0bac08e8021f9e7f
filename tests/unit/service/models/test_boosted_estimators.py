"""Estimators of XGBoost, LightGBM and CatBoost in pickles, pipelines and searches."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler

from sealserve_service.models.errors import UnsupportedModelError
from sealserve_service.models.folding import fold
from sealserve_service.models.loading import load_model
from tests.support.agreement import is_no_tie
from tests.support.boosting import FITS, catboost, classes, lightgbm, numbers, quietly, xgboost


@pytest.mark.parametrize(
    "name",
    [
        "XGBoost",
        "XGBoost, four classes",
        "XGBoost, stopped early",
        "LightGBM, two classes",
        "LightGBM, forest, three classes",
        "CatBoost, two classes",
        "CatBoost, poisson",
    ],
)
def test_an_estimator_in_a_pickle_is_read_as_its_file(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    X = numbers(random)
    fitted = FITS[name](X, random)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(fitted.estimator))
    with quietly():
        expected = load_model(fitted.saved(tmp_path), trust_pickle=False)
        model = load_model(tmp_path / "model.pkl", trust_pickle=True)
        np.testing.assert_array_equal(model.weights, expected.weights)
        np.testing.assert_array_equal(model.intercept, expected.intercept)
        assert model.output == expected.output
        assert model.published is not None
        assert expected.published is not None
        assert model.published.publications == expected.published.publications
        assert model.own_scores is not None
        scores = model.decision(model.features(X))
        error = 1e-5 if "XGBoost" in name else 1e-12
        np.testing.assert_allclose(model.expected_scores(X), scores, atol=error * (1 + np.abs(scores).max()))


@pytest.mark.parametrize("kind", ["XGBClassifier", "LGBMClassifier", "CatBoostClassifier"])
def test_an_estimator_is_the_last_step_of_a_pipeline(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    X = random.normal(size=(300, 3)) * [1.0, 1e3, 1e-3]
    y = np.array(["high", "low", "none"])[classes(np.hstack([X, X]), random, 3)]
    quiet: dict[str, Any] = {"XGBClassifier": {"n_jobs": 1}, "LGBMClassifier": {"n_jobs": 1, "verbose": -1}}
    said = quiet.get(kind, {"verbose": False, "allow_writing_files": False, "thread_count": 1, "iterations": 5})
    estimator = getattr({"X": xgboost, "L": lightgbm, "C": catboost}[kind[0]], kind)(**said)
    labels = LabelEncoder().fit_transform(y) if kind == "XGBClassifier" else y  # which takes numbers only
    with quietly():
        pipeline = make_pipeline(StandardScaler(), estimator).fit(X, labels)
        model = fold(pipeline)
        assert model.published is not None
        assert [type(step).__name__ for step in model.published.program.steps] == ["Affine", "Trees"]
        scores = model.decision(model.features(X))
        clear = is_no_tie(model.output, scores, 1e-4)
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(model.output.predict(scores)[clear], pipeline.predict(X).ravel()[clear])
        np.testing.assert_allclose(model.output.predict_proba(scores), pipeline.predict_proba(X), atol=1e-5)


def test_an_estimator_within_another_is_served() -> None:
    random = np.random.default_rng(3)
    X = numbers(random)
    y = classes(X, random, 2)
    search = GridSearchCV(lightgbm.LGBMClassifier(n_jobs=1, verbose=-1, n_estimators=5), {"num_leaves": [4, 8]}, cv=2)
    with quietly():
        model = fold(search.fit(X, y))
        scores = model.decision(model.features(X))
        np.testing.assert_allclose(model.output.predict_proba(scores), search.predict_proba(X), rtol=1e-9)


class Another(xgboost.XGBRegressor):  # type: ignore[misc]
    """May predict something else."""


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (xgboost.XGBRegressor(n_estimators=1, n_jobs=1, missing=-1.0), r"missing=-1\.0: replace it by NaN"),
        (xgboost.XGBRegressor(), "not fitted"),
        (lightgbm.LGBMRegressor(), "not fitted"),
        (Another(n_estimators=1, n_jobs=1), "Another is not supported"),
    ],
    ids=["missing", "XGBoost", "LightGBM", "a subclass"],
)
def test_an_estimator_that_cannot_be_served_is_refused(estimator: Any, reason: str) -> None:
    if "not fitted" not in reason:
        X = np.random.default_rng(4).normal(size=(50, 2))
        with quietly():
            estimator.fit(X, X[:, 0])
    with pytest.raises(UnsupportedModelError, match=reason):
        fold(estimator)
