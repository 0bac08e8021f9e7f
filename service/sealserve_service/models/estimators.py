"""Linear estimators, with a `coef_` and an `intercept_`: what their scores mean, one rule a kind.

To add an estimator, enter it in `LINEAR_ESTIMATORS` with the rule for its kind.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import (
    ARDRegression,
    BayesianRidge,
    ElasticNet,
    ElasticNetCV,
    GammaRegressor,
    HuberRegressor,
    Lars,
    LarsCV,
    Lasso,
    LassoCV,
    LassoLars,
    LassoLarsCV,
    LassoLarsIC,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    MultiTaskElasticNet,
    MultiTaskElasticNetCV,
    MultiTaskLasso,
    MultiTaskLassoCV,
    OrthogonalMatchingPursuit,
    OrthogonalMatchingPursuitCV,
    Perceptron,
    PoissonRegressor,
    QuantileRegressor,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    RidgeCV,
    SGDClassifier,
    SGDRegressor,
    TheilSenRegressor,
    TweedieRegressor,
)
from sklearn.svm import LinearSVC, LinearSVR

from sealserve.protocol.output import Label, Link, Output, Task
from sealserve_service.models.arrays import array, dense
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
    weights = np.atleast_2d(estimator.coef_ if is_dense else dense(estimator.coef_))
    score_count = len(weights)
    intercept = np.ravel(array(estimator.intercept_, MAX_SCORES))
    if len(intercept) == 1:  # without fit_intercept it is the one number 0.0, whatever the number of scores
        intercept = np.repeat(intercept, score_count)
    output = LINEAR_ESTIMATORS[type(estimator)](estimator, score_count)
    own_scores = partial(scores_of, estimator, output)
    return LinearModel(weights, intercept, output, feature_names(estimator), own_scores=own_scores)


def scores_of(estimator: Any, output: Output, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scores that scikit-learn itself computes, of shape (rows, score_count)."""
    scores = estimator.predict(rows) if output.task is Task.REGRESSION else estimator.decision_function(rows)
    if output.link is Link.LOG:
        with np.errstate(divide="ignore"):
            scores = np.log(scores)
    return np.asarray(scores, np.float64).reshape(len(rows), -1)


def feature_names(estimator: Any) -> tuple[str, ...]:
    """Return the column names that an estimator was fitted with; empty if there were none."""
    names = getattr(estimator, "feature_names_in_", None)
    return () if names is None else tuple(str(name) for name in array(names, MAX_FEATURES))


def labels(estimator: Any) -> tuple[Label, ...]:
    """Return an estimator's `classes_` as Python values.

    Files of older scikit-learns have those of RidgeClassifier and OneVsRestClassifier, there a
    property, in the binarizer of the labels only.
    """
    holder: Any = estimator
    if "classes_" not in vars(estimator):
        binarizers = (vars(estimator).get(name) for name in ("_label_binarizer", "label_binarizer_"))
        holder = next((binarizer for binarizer in binarizers if binarizer is not None), estimator)
    return tuple(
        label.item() if isinstance(label, np.generic) else label
        for label in array(holder.classes_, MAX_SCORES).tolist()
    )


def _regressor(estimator: Any, score_count: int) -> Output:
    return Output(Task.REGRESSION, score_count, scalar_target=np.ndim(estimator.coef_) == 1)


def _log_regressor(estimator: Any, score_count: int) -> Output:
    return Output(Task.REGRESSION, score_count, link=Link.LOG, scalar_target=True)


def _tweedie_regressor(estimator: Any, score_count: int) -> Output:
    is_log = estimator.power > 0 if estimator.link == "auto" else estimator.link == "log"
    if not is_log and estimator.link not in ("auto", "identity"):
        raise ValueError(f"link={estimator.link!r} is unknown; fit it with 'log' or 'identity'")
    return Output(Task.REGRESSION, score_count, link=Link.LOG if is_log else Link.NONE, scalar_target=True)


def _sgd_regressor(estimator: Any, score_count: int) -> Output:
    # Not by coef_.ndim: sparsify() makes it 2-D, and predictions stay 1-D.
    return Output(Task.REGRESSION, score_count, scalar_target=True)


def _classifier(estimator: Any, score_count: int) -> Output:
    return Output(Task.CLASSIFICATION, score_count, labels(estimator))


def _multinomial_classifier(estimator: Any, score_count: int) -> Output:
    link = Link.LOGISTIC if score_count == 1 else Link.SOFTMAX
    return Output(Task.CLASSIFICATION, score_count, labels(estimator), link)


def _logistic_regression(estimator: Any, score_count: int) -> Output:
    return Output(Task.CLASSIFICATION, score_count, labels(estimator), _trained_link(estimator, score_count))


def _trained_link(estimator: Any, score_count: int) -> Link:
    """Return the link of a logistic regression as it was trained.

    Before scikit-learn 1.8 the parameter `multi_class` chose between one model a class and one of
    all classes; later versions ignore it in a file, and take every model for one of all classes.

    Raises:
        ValueError: the parameter has an unknown value.
    """
    multi_class = getattr(estimator, "multi_class", None)
    if multi_class == "multinomial":
        return Link.SOFTMAX  # of one score too: those of two classes are -score and score
    if score_count == 1:
        return Link.LOGISTIC
    if multi_class in ("ovr", "warn"):  # "warn" was the default before 0.22
        return Link.OVR_LOGISTIC
    if multi_class in ("auto", "deprecated", None):
        # Which it was followed from the solver: liblinear fits a model a class, and so did
        # newton-cholesky before 1.6. Then there is a number of iterations a class.
        fits = len(np.atleast_1d(getattr(estimator, "n_iter_", 0)))
        one_a_class = estimator.solver == "liblinear" or (estimator.solver == "newton-cholesky" and fits > 1)
        return Link.OVR_LOGISTIC if one_a_class else Link.SOFTMAX
    raise ValueError(f"multi_class={multi_class!r} is unknown, and its probabilities depend on it; fit it again")


def _ridge_classifier(estimator: Any, score_count: int) -> Output:
    is_multilabel = estimator._label_binarizer.y_type_.startswith("multilabel")
    return Output(Task.MULTILABEL if is_multilabel else Task.CLASSIFICATION, score_count, labels(estimator))


def _sgd_classifier(estimator: Any, score_count: int) -> Output:
    loss = estimator.loss
    if not (isinstance(loss, str) and loss in _SGD_LINKS):
        raise ValueError(f"loss={loss!r} is unknown, and its probabilities depend on it; fit it again with another")
    link = _SGD_LINKS[loss]
    if link is Link.LOGISTIC and score_count > 1:
        link = Link.OVR_LOGISTIC
    return Output(Task.CLASSIFICATION, score_count, labels(estimator), link)


_SGD_LINKS = {
    "log_loss": Link.LOGISTIC,
    "log": Link.LOGISTIC,  # before scikit-learn 1.3
    "modified_huber": Link.MODIFIED_HUBER,
    "hinge": Link.NONE,
    "squared_hinge": Link.NONE,
    "perceptron": Link.NONE,
    "squared_error": Link.NONE,
    "squared_loss": Link.NONE,  # before scikit-learn 1.2
    "huber": Link.NONE,
    "epsilon_insensitive": Link.NONE,
    "squared_epsilon_insensitive": Link.NONE,
}
"""The losses of SGDClassifier, with their names in older versions -> link of a single score."""

LINEAR_ESTIMATORS: dict[type, Callable[[Any, int], Output]] = {
    LogisticRegression: _logistic_regression,
    LogisticRegressionCV: _logistic_regression,
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
    **dict.fromkeys(
        (
            ARDRegression,
            BayesianRidge,
            HuberRegressor,
            Lars,
            LarsCV,
            LassoLars,
            LassoLarsCV,
            LassoLarsIC,
            LinearSVR,
            OrthogonalMatchingPursuit,
            OrthogonalMatchingPursuitCV,
            QuantileRegressor,
            TheilSenRegressor,
        ),
        _regressor,
    ),
    GammaRegressor: _log_regressor,
    PoissonRegressor: _log_regressor,
    TweedieRegressor: _tweedie_regressor,
}
