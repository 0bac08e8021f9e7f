"""Quadratic models: their scores are linear in the features and in products of two of them.

Clients compute the products: publishing them tells nothing but that. Bernoulli naive Bayes that
compares features with a threshold is here, too: clients compare.

To add an estimator, write its rule and enter it in `QUADRATIC_MODELS`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.naive_bayes import BernoulliNB, GaussianNB

from sealserve.protocol.output import Link, Output, Task
from sealserve.steps.arithmetic import Monomials
from sealserve.steps.elementwise import Elementwise, Function
from sealserve_service.models.arrays import fitted_width, matrix, vector
from sealserve_service.models.collapses import bernoulli_weights
from sealserve_service.models.estimators import feature_names, labels
from sealserve_service.models.limits import MAX_FEATURES, MAX_WEIGHTS, check_limit, check_weights
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.pipeline_steps import OpenStep

Values = NDArray[np.float64]

_TWO = 2


def _gaussian(bayes: GaussianNB) -> LinearModel:
    means, variances = matrix(bayes.theta_), matrix(bayes.var_)
    weights = np.hstack([means / variances, -0.5 / variances])
    intercept = np.log(vector(bayes.class_prior_)) - 0.5 * (np.log(2.0 * np.pi * variances) + means**2 / variances).sum(
        axis=1
    )
    count = means.shape[1]
    pairs = np.stack([np.arange(count)] * 2, axis=1)
    return _decided(bayes, weights, intercept, _products(bayes, count, pairs), bayes.predict_joint_log_proba)


def _discriminant(analysis: QuadraticDiscriminantAnalysis) -> LinearModel:
    means, priors = matrix(analysis.means_), vector(analysis.priors_)
    count = means.shape[1]
    pairs = np.stack(np.triu_indices(count), axis=1)
    check_weights(len(means), count + len(pairs))
    check_limit("weights", MAX_WEIGHTS, count * count)
    weights, intercept = np.empty((len(means), count + len(pairs))), np.log(priors)
    for label, (rotation, scaling) in enumerate(zip(analysis.rotations_, analysis.scalings_, strict=True)):
        half = matrix(rotation) / np.sqrt(vector(scaling))
        if len(half) != count:
            raise ValueError("the shapes of its classes disagree")
        precision = half @ half.T  # of the class: the score has -1/2 (x - mean) precision (x - mean)
        weights[label, :count] = precision @ means[label]
        of_pairs = -precision[pairs[:, 0], pairs[:, 1]]
        weights[label, count:] = np.where(pairs[:, 0] == pairs[:, 1], 0.5, 1.0) * of_pairs
        intercept[label] -= 0.5 * (means[label] @ precision @ means[label] + np.log(scaling).sum())
    front = _products(analysis, count, pairs)
    return _decided(analysis, weights, intercept, front, analysis._decision_function, has_decision=True)


def _products(estimator: Any, count: int, pairs: NDArray[np.intp]) -> OpenStep:
    """Return the step that computes the features, and the products of pairs of them."""
    width = count + len(pairs)
    check_limit("features", MAX_FEATURES, width)
    degrees = np.repeat([1, 2], [count, len(pairs)])
    factors = np.concatenate([np.arange(count), pairs.ravel()])
    return OpenStep(
        type(estimator).__name__,
        width,
        lambda add, inputs: add(Monomials(inputs, degrees, factors)),
        "that it takes products of columns",
        takes_missing=False,
    )


def _bernoulli(bayes: BernoulliNB) -> LinearModel:
    weights, intercept = bernoulli_weights(bayes)
    count = weights.shape[1]
    if bayes.binarize is None:
        return _decided(bayes, weights, intercept, None, bayes.predict_joint_log_proba)
    thresholds = np.full(count, float(bayes.binarize))
    front = OpenStep(
        type(bayes).__name__,
        count,
        lambda add, inputs: add(Elementwise(inputs, Function.GREATER, thresholds)),
        "its threshold",
        takes_missing=False,
    )
    return _decided(bayes, weights, intercept, front, bayes.predict_joint_log_proba)


def _decided(
    estimator: Any,
    weights: Values,
    intercept: Values,
    front: OpenStep | None,
    own_scores: Callable[[Values], Values],
    *,
    has_decision: bool = False,
) -> LinearModel:
    """Return the model of one score a class; of two classes, of the difference."""
    classes = labels(estimator)
    if len(classes) < _TWO:
        raise ValueError("it was fitted with one class, which is what it predicts of any row: fit it with two or more")
    link = Link.SOFTMAX
    if len(classes) == _TWO:
        weights, intercept, link = np.diff(weights, axis=0), np.diff(intercept), Link.LOGISTIC
        own_scores = partial(_difference, own_scores)
    return LinearModel(
        weights,
        intercept,
        Output(Task.CLASSIFICATION, len(weights), classes, link, has_no_decision_function=not has_decision),
        feature_names(estimator),
        own_scores=own_scores,
        front=() if front is None else (front,),
        column_count=fitted_width(estimator),
    )


def _difference(own_scores: Callable[[Values], Values], rows: Values) -> Values:
    difference: Values = np.diff(own_scores(rows), axis=1)
    return difference


QUADRATIC_MODELS: dict[type, Callable[[Any], LinearModel]] = {
    GaussianNB: _gaussian,
    BernoulliNB: _bernoulli,
    QuadraticDiscriminantAnalysis: _discriminant,
}
