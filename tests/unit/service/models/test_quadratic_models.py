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
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from sealserve_service.models.errors import UnsupportedModelError
from sealserve_service.models.folding import fold
from tests.support.agreement import is_no_tie

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


def check(name: str, seed: int) -> None:
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
    check(name, seed)


def test_one_class_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="fitted with one class"):
        fold(GaussianNB().fit(np.random.default_rng(0).normal(size=(9, 2)), np.ones(9)))
