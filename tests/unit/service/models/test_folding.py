"""Folding estimators. The oracle is the installed scikit-learn: the estimator's own methods."""

import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import (
    ElasticNet,
    ElasticNetCV,
    Lasso,
    LassoCV,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    MultiTaskElasticNet,
    MultiTaskElasticNetCV,
    MultiTaskLasso,
    MultiTaskLassoCV,
    Perceptron,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    RidgeCV,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sealserve.errors import NoSuchMethodError
from sealserve.protocol.output import Task
from sealserve_service.models.folding import fold

Rows = NDArray[np.float64]

CLASSIFIERS = [
    LogisticRegression(),
    LogisticRegression(fit_intercept=False),
    LogisticRegressionCV(Cs=2, cv=2),
    RidgeClassifier(),
    RidgeClassifierCV(),
    SGDClassifier(loss="hinge", random_state=0),
    SGDClassifier(loss="log_loss", random_state=0),
    SGDClassifier(loss="modified_huber", random_state=0),
    LinearSVC(),
    LinearSVC(fit_intercept=False),
    LinearSVC(multi_class="crammer_singer"),
    Perceptron(random_state=0),
    LinearDiscriminantAnalysis(),
    LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1),
]
REGRESSORS = [
    LinearRegression(),
    LinearRegression(fit_intercept=False),
    Ridge(),
    RidgeCV(),
    Lasso(alpha=0.01),
    ElasticNet(alpha=0.01, fit_intercept=False),
]
SCALAR_REGRESSORS = [*REGRESSORS, LassoCV(cv=2), ElasticNetCV(cv=2), SGDRegressor(random_state=0)]
VECTOR_REGRESSORS = [
    *REGRESSORS,
    MultiTaskLasso(alpha=0.01),
    MultiTaskElasticNet(alpha=0.01),
    MultiTaskLassoCV(cv=2, alphas=3),
    MultiTaskElasticNetCV(cv=2, alphas=3),
    MultiOutputRegressor(SGDRegressor(random_state=0)),
    MultiOutputRegressor(make_pipeline(StandardScaler(), Ridge())),
]
BINARY_LABELS = [[3, 5], [1.0, 2.0], ["no", "yes"], [False, True]]
MULTICLASS_LABELS = [[3, 5, 9], [1.0, 2.0, 3.0], ["lo", "mid", "high"]]


def assert_agrees(estimator: Any, X: Any) -> None:
    """The folded model predicts all that the estimator predicts, for X and for rows far outside."""
    model = fold(estimator)
    X = np.vstack([X, 100 * np.asarray(X), -100 * np.asarray(X)])
    scores = model.decision(X)
    predicted, expected = model.output.predict(scores), estimator.predict(X)
    assert predicted.shape == expected.shape
    if model.output.task is Task.REGRESSION:
        np.testing.assert_allclose(predicted, expected, rtol=1e-9, atol=1e-9)
    else:
        np.testing.assert_array_equal(predicted, expected)
    if hasattr(estimator, "decision_function"):
        own = estimator.decision_function(X)
        assert model.output.decision_function(scores).shape == own.shape
        np.testing.assert_allclose(model.output.decision_function(scores), own, rtol=1e-9, atol=1e-9)
    else:
        with pytest.raises(NoSuchMethodError):
            model.output.decision_function(scores)
    if hasattr(estimator, "predict_proba"):
        np.testing.assert_allclose(model.output.predict_proba(scores), estimator.predict_proba(X), rtol=1e-7, atol=1e-9)
    else:
        with pytest.raises(NoSuchMethodError):
            model.output.predict_proba(scores)
    own_scores = model.expected_scores(X)
    np.testing.assert_allclose(own_scores, scores, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("labels", BINARY_LABELS, ids=lambda labels: type(labels[0]).__name__)
@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=repr)
def test_binary_classifier(estimator: Any, labels: list[Any], rows: Rows, groups: Rows, fit: Any) -> None:
    fitted = fit(clone(estimator), rows, np.array(labels)[groups.clip(0, 1)])
    assert fold(fitted).output.classes == tuple(labels)
    assert_agrees(fitted, rows)


@pytest.mark.parametrize("labels", MULTICLASS_LABELS, ids=lambda labels: type(labels[0]).__name__)
@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=repr)
def test_multiclass_classifier(estimator: Any, labels: list[Any], rows: Rows, groups: Rows, fit: Any) -> None:
    fitted = fit(clone(estimator), rows, np.array(labels)[groups])
    assert fold(fitted).output.classes == tuple(sorted(labels))
    assert_agrees(fitted, rows)


@pytest.mark.parametrize("estimator", SCALAR_REGRESSORS, ids=repr)
def test_regressor_of_one_target(estimator: Any, rows: Rows, targets: Rows, fit: Any) -> None:
    assert_agrees(fit(clone(estimator), rows, targets[:, 0]), rows)


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("estimator", VECTOR_REGRESSORS, ids=repr)
def test_regressor_of_target_columns(estimator: Any, columns: int, rows: Rows, targets: Rows, fit: Any) -> None:
    assert_agrees(fit(clone(estimator), rows, targets[:, :columns]), rows)


INNER = [
    LogisticRegression(),
    LinearDiscriminantAnalysis(),
    RidgeClassifier(),
    SGDClassifier(loss="log_loss", random_state=0),
    SGDClassifier(loss="modified_huber", random_state=0),
    LinearSVC(),
    Perceptron(random_state=0),
    LinearRegression(),
    Lasso(alpha=0.01),
    SGDRegressor(random_state=0),
    make_pipeline(StandardScaler(), LogisticRegression()),
    OneVsRestClassifier(LogisticRegression()),
]


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("inner", INNER, ids=repr)
def test_one_vs_rest(
    inner: Any, task: str, rows: Rows, groups: NDArray[np.int64], indicators: NDArray[np.int64], fit: Any
) -> None:
    names = np.array(["lo", "mid", "high"])
    y = {"binary": groups > 0, "multiclass": names[groups], "multilabel": indicators}[task]
    if task == "binary" and isinstance(inner, SGDRegressor):
        inner = make_pipeline(StandardScaler(), inner)  # bare, it diverges on these units
    assert_agrees(fit(OneVsRestClassifier(clone(inner)), rows, y), rows)


def test_one_vs_rest_of_regressors_has_no_decision_function(rows: Rows, groups: Rows, fit: Any) -> None:
    estimator = fit(OneVsRestClassifier(Ridge()), rows, groups)
    assert not hasattr(estimator, "decision_function")
    for fitted in (estimator, fit(make_pipeline(StandardScaler(), OneVsRestClassifier(Ridge())), rows, groups)):
        with pytest.raises(NoSuchMethodError, match="model has no decision_function"):
            fold(fitted).output.decision_function(np.ones((1, 3)))


def test_one_vs_rest_leaves_far_rows_without_probability(rows: Rows, groups: Rows, fit: Any) -> None:
    estimator = fit(OneVsRestClassifier(SGDClassifier(loss="modified_huber", random_state=0)), rows, groups)
    model = fold(estimator)
    far = np.vstack([1000 * rows, -1000 * rows])
    expected = estimator.predict_proba(far)
    assert (expected.sum(axis=1) == 0).any()
    np.testing.assert_array_equal(model.output.predict_proba(model.decision(far)), expected)


@pytest.mark.parametrize("estimator", [RidgeClassifier(), RidgeClassifierCV()], ids=repr)
def test_ridge_classifier_with_several_labels(estimator: Any, rows: Rows, indicators: Rows, fit: Any) -> None:
    fitted = fit(clone(estimator), rows, indicators)
    assert fold(fitted).output.task is Task.MULTILABEL
    assert_agrees(fitted, rows)


@pytest.mark.parametrize("estimator", [LogisticRegression(), LinearSVC(), SGDClassifier(random_state=0)], ids=repr)
def test_sparsified_classifier(estimator: Any, rows: Rows, groups: Rows, fit: Any) -> None:
    assert_agrees(fit(clone(estimator), rows, groups).sparsify(), rows)


def test_sparsified_regressor_keeps_its_scalar_target(rows: Rows, targets: Rows, fit: Any) -> None:
    assert_agrees(fit(SGDRegressor(random_state=0), rows, targets[:, 0]).sparsify(), rows)


def test_single_precision_and_single_feature(rows: Rows, groups: Rows, targets: Rows, fit: Any) -> None:
    single = fit(LogisticRegression(), rows.astype(np.float32), groups)
    assert fold(single).weights.dtype == np.float64
    assert_agrees(fit(LogisticRegression(), rows[:, :1], groups), rows[:, :1])
    assert_agrees(fit(Ridge(), rows[:, :1], targets[:, 0]), rows[:, :1])


def test_the_model_is_immutable_and_contiguous(rows: Rows, groups: Rows, fit: Any) -> None:
    estimator = fit(LogisticRegression(), rows, groups)
    estimator.coef_ = np.asfortranarray(estimator.coef_)
    model = fold(estimator)
    assert model.weights.flags.c_contiguous
    assert not model.weights.flags.writeable
    assert not model.intercept.flags.writeable
    assert estimator.coef_.flags.writeable


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        make_pipeline("passthrough", StandardScaler(), LogisticRegression()),
        OneVsRestClassifier(LinearSVC()),
        OneVsRestClassifier(make_pipeline(StandardScaler(), LinearSVC())),
    ],
    ids=repr,
)
def test_feature_names(estimator: Any, rows: Rows, groups: Rows, fit: Any) -> None:
    names = ("age", "height", "weight", "income", "rooms", "floor")
    assert fold(fit(clone(estimator), pd.DataFrame(rows, columns=names), groups)).feature_names == names
    assert fold(fit(clone(estimator), rows, groups)).feature_names == ()


def test_a_model_of_scikit_learn_0_22(mnist_model_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        estimator = joblib.load(mnist_model_path)
    model = fold(estimator)
    assert (model.score_count, model.feature_count) == (10, 784)
    assert model.output.classes == tuple(range(10))
    images = np.random.default_rng(1).uniform(size=(50, 784))
    scores, own = model.decision(images), estimator.decision_function(images)
    np.testing.assert_allclose(scores, own, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(model.output.predict(scores), estimator.predict(images))
    # liblinear trained a model a class. The installed scikit-learn takes it for one of all classes.
    each = 1 / (1 + np.exp(-own))
    np.testing.assert_allclose(model.output.predict_proba(scores), each / each.sum(axis=1, keepdims=True), rtol=1e-7)
