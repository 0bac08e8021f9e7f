"""Collapses: estimators whose scores are linear, though they have no `coef_`.

`kernels` has the sums over support vectors.

To add an estimator, write its rule and enter it in `COLLAPSES`.
"""

import copy
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cross_decomposition import CCA, PLSCanonical, PLSRegression
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import SGDOneClassSVM
from sklearn.naive_bayes import BernoulliNB, ComplementNB, MultinomialNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM

from sealserve.protocol.output import Link, Output, Pairwise, Task
from sealserve_service.models.arrays import array, matrix, vector
from sealserve_service.models.estimators import feature_names, labels, scores_of
from sealserve_service.models.kernels import KernelHead, Polynomial, machine_head, polynomial_head
from sealserve_service.models.limits import MAX_SCORES, check_weights
from sealserve_service.models.linear_model import LinearModel

_TWO = 2
_INLIERS = Output(Task.CLASSIFICATION, 1, (-1, 1))
"""Of a detector, which predicts 1 for inliers and -1 for outliers."""


# Naive Bayes


def _multinomial(bayes: MultinomialNB) -> LinearModel:
    return _joint_likelihood(bayes, matrix(bayes.feature_log_prob_), vector(bayes.class_log_prior_))


def _complement(bayes: ComplementNB) -> LinearModel:
    weights = matrix(bayes.feature_log_prob_)
    return _joint_likelihood(bayes, weights, np.zeros(len(weights)))


def bernoulli_weights(bayes: BernoulliNB) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weights and intercept of the joint log likelihood for features of 0 and 1."""
    present = matrix(bayes.feature_log_prob_)
    with np.errstate(divide="ignore"):
        absent = np.log1p(-np.exp(present))
    return present - absent, vector(bayes.class_log_prior_) + absent.sum(axis=1)


def _joint_likelihood(bayes: Any, weights: NDArray[np.float64], intercept: NDArray[np.float64]) -> LinearModel:
    """Return the model of the joint log likelihood; of two classes, of the difference."""
    classes = labels(bayes)
    if len(classes) < _TWO:
        raise ValueError("it was fitted with one class, which is what it predicts of any row: fit it with two or more")
    link, own_scores = Link.SOFTMAX, bayes.predict_joint_log_proba
    if len(classes) == _TWO:
        weights, intercept = np.diff(weights, axis=0), np.diff(intercept)
        link, own_scores = Link.LOGISTIC, partial(_difference, bayes)
    output = Output(Task.CLASSIFICATION, len(weights), classes, link, has_no_decision_function=True)
    return LinearModel(weights, intercept, output, feature_names(bayes), own_scores=own_scores)


def _difference(bayes: Any, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    difference: NDArray[np.float64] = np.diff(bayes.predict_joint_log_proba(rows), axis=1)
    return difference


# Networks


def _classifier_network(network: MLPClassifier) -> LinearModel:
    weights, intercept, own_scores = _network(network)
    classes, count = labels(network), len(weights)
    if network.out_activation_ == "softmax":
        output = Output(Task.CLASSIFICATION, count, classes, Link.SOFTMAX, has_no_decision_function=True)
    elif network._label_binarizer.y_type_.startswith("multilabel"):
        output = Output(Task.MULTILABEL, count, classes, Link.LOGISTIC, has_no_decision_function=True)
    else:
        output = Output(Task.CLASSIFICATION, count, classes, Link.LOGISTIC, has_no_decision_function=True)
    return LinearModel(weights, intercept, output, feature_names(network), own_scores=own_scores)


def _regressor_network(network: MLPRegressor) -> LinearModel:
    weights, intercept, own_scores = _network(network)
    links = {"identity": Link.NONE, "exp": Link.LOG}
    output = Output(Task.REGRESSION, len(weights), link=links[network.out_activation_], scalar_target=len(weights) == 1)
    return LinearModel(weights, intercept, output, feature_names(network), own_scores=own_scores)


def _network(
    network: Any,
) -> tuple[NDArray[np.float64], NDArray[np.float64], Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
    """Return weights, intercept and own scores of a network without an activation."""
    if network.activation != "identity":
        raise ValueError(
            f"its activation {network.activation!r} is not affine: fit it with activation='identity', or compute its "
            "hidden layers in the application and serve the last one as .npz"
        )
    layers = [
        (matrix(factor).T, vector(offset)) for factor, offset in zip(network.coefs_, network.intercepts_, strict=True)
    ]
    for (before, _), (after, _) in pairwise(layers):
        if after.shape[1] != len(before):
            raise ValueError("the shapes of its layers disagree")
    weights, intercept = layers[-1]
    for factor, offset in layers[-2::-1]:
        check_weights(len(weights), factor.shape[1])
        intercept = intercept + weights @ offset
        weights = weights @ factor
    return weights, intercept, partial(_forward, layers)


def _forward(
    layers: list[tuple[NDArray[np.float64], NDArray[np.float64]]], rows: NDArray[np.float64]
) -> NDArray[np.float64]:
    for factor, offset in layers:
        rows = rows @ factor.T + offset
    return rows


# Support vectors of a linear or a polynomial kernel


def _support_vector_classifier(machine: Any) -> LinearModel:
    classes = labels(machine)
    pair_count = len(classes) * (len(classes) - 1) // 2
    if len(classes) == _TWO:
        output = Output(Task.CLASSIFICATION, 1, classes)
        own_scores = partial(scores_of, machine, output)
    else:
        output = Output(Task.CLASSIFICATION, pair_count, classes, pairwise=_rule_of_pairs(machine))
        of_pairs = copy.copy(machine)
        of_pairs.decision_function_shape, of_pairs.break_ties = "ovo", False
        own_scores = partial(scores_of, of_pairs, output)
    return _machine(machine, output, own_scores)


def _rule_of_pairs(machine: Any) -> Pairwise:
    if machine.decision_function_shape == "ovo":
        return Pairwise.PAIRS
    return Pairwise.CONFIDENCES if machine.break_ties else Pairwise.VOTES


def _support_vector_regressor(machine: Any) -> LinearModel:
    output = Output(Task.REGRESSION, 1, scalar_target=True)
    return _machine(machine, output, partial(scores_of, machine, output))


def _one_class_machine(machine: OneClassSVM) -> LinearModel:
    return _machine(machine, _INLIERS, partial(scores_of, machine, _INLIERS))


def _machine(
    machine: Any, output: Output, own_scores: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> LinearModel:
    _check_support(machine, output.score_count)
    head = machine_head(machine, output.score_count)
    return LinearModel(
        head.weights,
        vector(machine.intercept_) + head.constants,
        output,
        feature_names(machine),
        own_scores=own_scores,
        front=head.front,
        column_count=machine.support_vectors_.shape[1],
    )


def _check_support(machine: Any, score_count: int) -> None:
    """Check the sizes of the arrays from which scikit-learn scores.

    libsvm does not know them: it reads as much as the numbers of classes and support vectors say.

    Raises:
        ValueError: they disagree.
    """
    count, numbers = machine.support_vectors_.shape[0], array(machine._n_support, MAX_SCORES)
    has_labels = type(machine)._impl in ("c_svc", "nu_svc")
    parts = {
        "_n_support": (numbers >= 0).all() and (numbers.sum() if has_labels else numbers[0]) == count,
        "_impl": "_impl" not in vars(machine),
        "classes": len(numbers) * (len(numbers) - 1) // 2 == score_count,
        "support_": np.shape(machine.support_) == (count,),
        "_dual_coef_": machine._dual_coef_.size == count * (len(numbers) - 1 if has_labels else 1),
        "_intercept_": np.shape(machine._intercept_) == (score_count,),
        "_probA": np.size(machine._probA) in (0, score_count),
        "_probB": np.size(machine._probB) in (0, score_count),
    }
    if wrong := [part for part, is_right in parts.items() if not is_right]:
        raise ValueError(f"its {wrong[0]} does not fit the numbers of its classes and support vectors")


def _stochastic_one_class(machine: SGDOneClassSVM) -> LinearModel:
    own_scores = partial(scores_of, machine, _INLIERS)
    weights, intercept = np.atleast_2d(machine.coef_), -vector(machine.offset_)
    return LinearModel(weights, intercept, _INLIERS, feature_names(machine), own_scores=own_scores)


# Regressions


def _partial_least_squares(regression: Any) -> LinearModel:
    weights = matrix(regression.coef_)
    intercept = vector(regression.intercept_) - weights @ vector(regression._x_mean)
    output = Output(Task.REGRESSION, len(weights), scalar_target=bool(regression._predict_1d) and len(weights) == 1)
    own_scores = partial(scores_of, regression, output)
    return LinearModel(weights, intercept, output, feature_names(regression), own_scores=own_scores)


def _kernel_ridge(ridge: KernelRidge) -> LinearModel:
    dual, rows = np.atleast_2d(np.asarray(ridge.dual_coef_, np.float64).T), matrix(ridge.X_fit_)
    if ridge.kernel == "linear":
        check_weights(len(dual), rows.shape[1])
        head = KernelHead(dual @ rows, np.zeros(len(dual)))
    elif ridge.kernel in ("poly", "polynomial") and float(ridge.degree).is_integer():
        gamma = 1.0 / rows.shape[1] if ridge.gamma is None else float(ridge.gamma)
        kernel = Polynomial(gamma, int(ridge.degree), float(ridge.coef0))
        head = polynomial_head(type(ridge).__name__, kernel, dual, rows)
    else:
        raise ValueError(
            f"its kernel {ridge.kernel!r} is neither linear nor a polynomial of whole degree, and clients would need "
            "its training rows: fit it with kernel='linear' or kernel='poly'"
        )
    output = Output(Task.REGRESSION, len(dual), scalar_target=ridge.dual_coef_.ndim == 1)
    return LinearModel(
        head.weights,
        head.constants,
        output,
        feature_names(ridge),
        own_scores=partial(scores_of, ridge, output),
        front=head.front,
        column_count=rows.shape[1],
    )


COLLAPSES: dict[type, Callable[[Any], LinearModel]] = {
    ComplementNB: _complement,
    MultinomialNB: _multinomial,
    MLPClassifier: _classifier_network,
    MLPRegressor: _regressor_network,
    SVC: _support_vector_classifier,
    NuSVC: _support_vector_classifier,
    SVR: _support_vector_regressor,
    NuSVR: _support_vector_regressor,
    OneClassSVM: _one_class_machine,
    SGDOneClassSVM: _stochastic_one_class,
    PLSRegression: _partial_least_squares,
    PLSCanonical: _partial_least_squares,
    CCA: _partial_least_squares,
    KernelRidge: _kernel_ridge,
}
