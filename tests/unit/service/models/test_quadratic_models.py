"""Quadratic models against scikit-learn itself; and members of meta-estimators with steps."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.svm import SVR

from sealserve_service.models.errors import UnsupportedModelError
from sealserve_service.models.folding import fold
from tests.support.agreement import assert_served, is_no_tie

KINDS: dict[str, Callable[[], Any]] = {
    "GaussianNB": GaussianNB,
    "BernoulliNB": BernoulliNB,
    "QuadraticDiscriminantAnalysis": lambda: QuadraticDiscriminantAnalysis(reg_param=0.01),
    "QuadraticDiscriminantAnalysis, scaled": lambda: make_pipeline(
        StandardScaler(), QuadraticDiscriminantAnalysis(reg_param=0.01)
    ),
    "OneVsRestClassifier of products": lambda: OneVsRestClassifier(
        make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression())
    ),
    "CalibratedClassifierCV of products": lambda: CalibratedClassifierCV(
        make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression()), cv=2
    ),
}


def check(name: str, seed: int, *, plans: bool = False) -> None:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(80, 3)) * 10.0 ** random.integers(-2, 3, 3)
    value = (rows / rows.std(axis=0)) ** 2 @ np.ones(3)
    groups = np.empty(80, np.int64)
    groups[value.argsort()] = np.arange(80) * (2 + seed % 2) // 80
    with warnings.catch_warnings(action="ignore"):
        estimator = KINDS[name]().fit(rows, groups)
        model = fold(estimator)
        scores = model.decision(model.features(rows))
        np.testing.assert_allclose(model.expected_scores(rows), scores, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(model.output.predict_proba(scores), estimator.predict_proba(rows), atol=1e-8)
        clear = is_no_tie(model.output, scores, 1e-8)
        np.testing.assert_array_equal(model.output.predict(scores)[clear], estimator.predict(rows)[clear])
        if plans:
            assert_served(estimator, model, rows)
    assert clear.mean() > 0.5
    assert hasattr(estimator, "decision_function") == (not model.output.has_no_decision_function)
    assert model.published is not None
    assert model.column_count == 3


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", KINDS)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_model_is_linear_in_products(name: str, seed: int) -> None:
    check(name, seed)


@pytest.mark.long
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", KINDS)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_model_is_linear_in_products_at_length(name: str, seed: int) -> None:
    check(name, seed, plans=True)


@pytest.mark.parametrize("name", KINDS)
def test_scores_are_within_the_published_bound(name: str) -> None:
    check(name, 1, plans=True)


def test_products_of_a_polynomial_kernel_are_those_of_columns() -> None:
    rows = np.random.default_rng(1).normal(size=(40, 4))
    model = fold(SVR(kernel="poly", degree=4, coef0=0.5).fit(rows, rows[:, 0] ** 3))
    polynomials = PolynomialFeatures(4, include_bias=False).fit(rows)
    expected = np.prod(rows[:, np.newaxis, :] ** polynomials.powers_, axis=2)
    np.testing.assert_allclose(model.features(rows), expected, rtol=1e-12)
    (publication,) = model.publications
    assert publication.tells == "that it takes products of columns"


def test_a_kernel_of_degree_1_publishes_nothing() -> None:
    rows = np.random.default_rng(2).normal(size=(40, 4))
    machine = SVR(kernel="poly", degree=1, coef0=2.0).fit(rows, rows[:, 0])
    model = fold(machine)
    assert model.published is None
    np.testing.assert_allclose(model.decision(rows)[:, 0], machine.predict(rows), rtol=1e-12, atol=1e-12)


def test_unknown_categories_are_refused_as_scikit_learn_does() -> None:
    rows = np.random.default_rng(3).integers(0, 4, (60, 2))
    model = fold(CategoricalNB().fit(rows, rows[:, 0] > 1))
    assert model.published is not None
    assert model.feature_count == 6
    given = np.array([[0.0, 3.0], [4.0, 0.0], [-1.0, 0.0], [np.nan, 0.0], [0.5, 0.0]])
    assert model.published.program.features(given).is_refused.tolist() == [False, True, True, True, True]
    assert not any(column.allows_missing for column in model.published.columns)
    assert model.publications[0].tells == "how many categories each of 2 columns has"


def test_categories_that_tell_nothing_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="each of its columns has one category"):
        fold(CategoricalNB().fit(np.zeros((6, 2), int), [0, 1] * 3))


def test_one_class_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="fitted with one class"):
        fold(GaussianNB().fit(np.random.default_rng(0).normal(size=(9, 2)), np.ones(9)))
