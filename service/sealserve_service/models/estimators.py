"""Linear estimators, with a `coef_` and an `intercept_`: what their scores mean, one rule a kind.

To add an estimator, enter it in `LINEAR_ESTIMATORS` with the rule for its kind.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
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
from sealserve_service.models.limits import MAX_FEATURES, MAX_SCORES, MAX_WEIGHTS, check_limit
from sealserve_service.models.linear_model import LinearModel


def linear_model(estimator: Any) -> LinearModel:
    """Return the model of a fitted estimator whose type is in `LINEAR_ESTIMATORS`.

    Raises:
        ModelTooLargeError: the weights are too many: a sparse matrix of a few bytes may have any
            shape.
    """
    check_limit("weights", MAX_WEIGHTS, math.prod(estimator.coef_.shape))
    is_dense = isinstance(estimator.coef_, np.ndarray)  # sparsify() makes it a SciPy matrix
    weights = np.atleast_2d(estimator.coef_ if is_dense else estimator.coef_.toarray())
    score_count = len(weights)
    intercept = np.ravel(_array(estimator.intercept_, MAX_SCORES))
    if len(intercept) == 1:  # without fit_intercept it is the one number 0.0, whatever the number of scores
        intercept = np.repeat(intercept, score_count)
    output = LINEAR_ESTIMATORS[type(estimator)](estimator, score_count)
    return LinearModel(weights, intercept, output, feature_names(estimator))


def feature_names(estimator: Any) -> tuple[str, ...]:
    """Return the column names that an estimator was fitted with; empty if there were none."""
    names = getattr(estimator, "feature_names_in_", None)
    return () if names is None else tuple(str(name) for name in _array(names, MAX_FEATURES))


def labels(estimator: Any) -> tuple[Label, ...]:
    """Return an estimator's `classes_` as Python values."""
    return tuple(
        label.item() if isinstance(label, np.generic) else label
        for label in _array(estimator.classes_, MAX_SCORES).tolist()
    )


def _array(values: Any, max_size: int) -> NDArray[Any]:
    """Return a number or an array of an estimator as an array.

    NumPy would make an array of any list: of one long text and many short ones, as many long ones.

    Raises:
        ModelTooLargeError: it has too many values.
        ValueError: it is neither a number nor an array.
    """
    if not isinstance(values, np.ndarray | np.generic | float | int):
        raise ValueError(f"a {type(values).__name__} is in the place of an array")
    check_limit("values in one array beside the weights", max_size, np.size(values))
    return np.asarray(values)


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
