"""Linear estimators, with a `coef_` and an `intercept_`: what their scores mean, one rule a kind.

To add an estimator, enter it in `LINEAR_ESTIMATORS` with the rule for its kind.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
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
from sklearn.svm import LinearSVC

from sealserve.protocol.output import Label, Link, Output, Task
from sealserve_service.models.linear_model import LinearModel


def linear_model(estimator: Any) -> LinearModel:
    """Return the model of a fitted estimator whose type is in `LINEAR_ESTIMATORS`."""
    is_dense = isinstance(estimator.coef_, np.ndarray)  # sparsify() makes it a SciPy matrix
    weights = np.atleast_2d(estimator.coef_ if is_dense else estimator.coef_.toarray())
    score_count = len(weights)
    intercept = np.ravel(estimator.intercept_)
    if len(intercept) == 1:  # without fit_intercept it is the one number 0.0, whatever the number of scores
        intercept = np.repeat(intercept, score_count)
    output = LINEAR_ESTIMATORS[type(estimator)](estimator, score_count)
    return LinearModel(weights, intercept, output, feature_names(estimator))


def feature_names(estimator: Any) -> tuple[str, ...]:
    """Return the column names that an estimator was fitted with; empty if there were none."""
    return tuple(str(name) for name in getattr(estimator, "feature_names_in_", ()))


def labels(estimator: Any) -> tuple[Label, ...]:
    """Return an estimator's `classes_` as Python values."""
    return tuple(
        label.item() if isinstance(label, np.generic) else label for label in np.asarray(estimator.classes_).tolist()
    )


def _regressor(estimator: Any, score_count: int) -> Output:
    return Output(Task.REGRESSION, score_count, scalar_target=np.ndim(estimator.coef_) == 1)


def _sgd_regressor(estimator: Any, score_count: int) -> Output:
    # Not by coef_.ndim: sparsify() makes it 2-D, and predictions stay 1-D.
    return Output(Task.REGRESSION, score_count, scalar_target=True)


def _classifier(estimator: Any, score_count: int) -> Output:
    return Output(Task.CLASSIFICATION, score_count, labels(estimator))


def _multinomial_classifier(estimator: Any, score_count: int) -> Output:
    # Old one-versus-rest models, such as liblinear's, have softmax too: so does their own
    # predict_proba from scikit-learn 1.8 on.
    link = Link.LOGISTIC if score_count == 1 else Link.SOFTMAX
    return Output(Task.CLASSIFICATION, score_count, labels(estimator), link)


def _ridge_classifier(estimator: Any, score_count: int) -> Output:
    is_multilabel = estimator._label_binarizer.y_type_.startswith("multilabel")
    return Output(Task.MULTILABEL if is_multilabel else Task.CLASSIFICATION, score_count, labels(estimator))


def _sgd_classifier(estimator: Any, score_count: int) -> Output:
    links = {
        "log_loss": Link.LOGISTIC if score_count == 1 else Link.OVR_LOGISTIC,
        "modified_huber": Link.MODIFIED_HUBER,
    }
    link = links.get(estimator.loss, Link.NONE)
    return Output(Task.CLASSIFICATION, score_count, labels(estimator), link)


LINEAR_ESTIMATORS: dict[type, Callable[[Any, int], Output]] = {
    LogisticRegression: _multinomial_classifier,
    LogisticRegressionCV: _multinomial_classifier,
    RidgeClassifier: _ridge_classifier,
    RidgeClassifierCV: _ridge_classifier,
    SGDClassifier: _sgd_classifier,
    LinearSVC: _classifier,
    Perceptron: _classifier,
    LinearDiscriminantAnalysis: _multinomial_classifier,
    LinearRegression: _regressor,
    Ridge: _regressor,
    RidgeCV: _regressor,
    Lasso: _regressor,
    LassoCV: _regressor,
    ElasticNet: _regressor,
    ElasticNetCV: _regressor,
    MultiTaskLasso: _regressor,
    MultiTaskLassoCV: _regressor,
    MultiTaskElasticNet: _regressor,
    MultiTaskElasticNetCV: _regressor,
    SGDRegressor: _sgd_regressor,
}
