"""Quadratic models: their scores are linear in the features and in products of two of them.

Clients compute the products: publishing them tells nothing but that. Naive Bayes of flags that are
compared with a threshold, and of categories, is here, too: clients compare.

To add an estimator, write its rule and enter it in `QUADRATIC_MODELS`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, GaussianNB

from sealserve.protocol.output import Link, Output, Task
from sealserve.steps.categories import Categories, OneHot, OneHotColumn
from sealserve.steps.elementwise import Elementwise, Function
from sealserve_service.models.arrays import fitted_width, matrix, vector
from sealserve_service.models.collapses import bernoulli_weights
from sealserve_service.models.estimators import feature_names, labels
from sealserve_service.models.limits import MAX_WEIGHTS, check_limit, check_weights
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.pipeline_steps import OpenStep
from sealserve_service.models.products import products

Values = NDArray[np.float64]

_TWO = 2


def _gaussian(bayes: GaussianNB) -> LinearModel:
    means, variances = matrix(bayes.theta_), matrix(bayes.var_)
    weights = np.hstack([means / variances, -0.5 / variances])
    intercept = np.log(vector(bayes.class_prior_)) - 0.5 * (np.log(2.0 * np.pi * variances) + means**2 / variances).sum(
        axis=1
    )
    single = np.arange(means.shape[1])[:, np.newaxis]
    front = products(type(bayes).__name__, [single, np.hstack([single, single])])
    return _decided(bayes, weights, intercept, front, bayes.predict_joint_log_proba)


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
    front = products(type(analysis).__name__, [np.arange(count)[:, np.newaxis], pairs])
    return _decided(analysis, weights, intercept, front, analysis._decision_function, has_decision=True)


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


def _categorical(bayes: CategoricalNB) -> LinearModel:
    """Return the model of one indicator a category; the last one of each column is left out."""
    likelihoods = [matrix(likelihood) for likelihood in bayes.feature_log_prob_]
    counts = np.array([likelihood.shape[1] for likelihood in likelihoods])
    kept_count = int(counts.sum()) - len(counts)
    if not kept_count:
        raise ValueError("each of its columns has one category: it predicts the same of any row")
    intercept = vector(bayes.class_log_prior_)
    check_weights(len(intercept), kept_count)
    weights = np.hstack([likelihood[:, :-1] - likelihood[:, -1:] for likelihood in likelihoods])
    intercept = intercept + np.sum([likelihood[:, -1] for likelihood in likelihoods], axis=0)

    def emit(add: Any, inputs: NDArray[np.intp]) -> NDArray[np.intp]:
        # scikit-learn knows the categories 0, 1, ... only.
        places = [np.append(np.arange(1, count + 1), [0, 0]) for count in counts]
        columns = [
            OneHotColumn(
                Categories(numbers=np.arange(count, dtype=np.float64), refuses_missing=True, refuses_unknown=True),
                place,
                int(count),
            )
            for count, place in zip(counts.tolist(), places, strict=True)
        ]
        return np.delete(add(OneHot(inputs, columns)), np.cumsum(counts) - 1)

    tells = f"how many categories each of {len(counts)} columns has"
    front = OpenStep(type(bayes).__name__, kept_count, emit, tells, takes_missing=False)
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
    CategoricalNB: _categorical,
    QuadraticDiscriminantAnalysis: _discriminant,
}
