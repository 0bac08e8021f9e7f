"""Adaptive boosting: AdaBoost of trees, in which each leaf has the vote of its tree.

Members vote for a class, by their weight. The vote of a tree depends on the leaf alone, so votes of
trees are values of leaves; those of other members are no linear function.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import AdaBoostClassifier, AdaBoostRegressor
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from sealserve.protocol.output import Link, Output, Task
from sealserve_service.models.arrays import vector
from sealserve_service.models.estimator_trees import FOREST, ensemble_of, tree_of
from sealserve_service.models.estimators import feature_names, labels
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.pipeline_steps import OpenStep
from sealserve_service.models.trees import Numbers

_TWO = 2


def boosted_votes(estimator: AdaBoostClassifier) -> LinearModel:
    """Return the model of an AdaBoostClassifier of trees.

    Of several classes K, scores are the decision function divided by K - 1, whose softmax are the
    probabilities.

    Raises:
        ValueError: its members are no trees, or there is one class.
    """
    classes, members = labels(estimator), list(estimator.estimators_)
    if len(classes) < _TWO:
        raise ValueError("it was fitted with one class, which is what it predicts of any row: fit it with two or more")
    if any(type(member) not in (DecisionTreeClassifier, ExtraTreeClassifier) for member in members):
        raise ValueError(
            "the votes of its members are linear for trees only: fit it with estimator=DecisionTreeClassifier(...)"
        )
    given = vector(estimator.estimator_weights_)
    shares = given[: len(members)] / given.sum()
    trees = [
        tree_of(member, partial(_votes, member.classes_, estimator.classes_, share))
        for member, share in zip(members, shares.tolist(), strict=True)
    ]
    is_binary = len(classes) == _TWO
    output = Output(
        Task.CLASSIFICATION,
        1 if is_binary else len(classes),
        classes,
        Link.LOGISTIC if is_binary else Link.SOFTMAX,
        has_no_decision_function=not is_binary,
    )
    own = partial(_own_scores, estimator, max(1, len(classes) - 1))
    baseline = np.zeros(output.score_count)
    return ensemble_of(estimator, trees, baseline, output, own, replace(FOREST, takes_missing=False))


def _votes(of_member: NDArray[Any], classes: NDArray[Any], share: float, values: Numbers) -> Numbers:
    """Return the votes of nodes, (nodes, scores), from their shares of classes."""
    is_chosen = of_member[values.argmax(axis=1)][:, np.newaxis] == classes
    if len(classes) == _TWO:
        return np.where(is_chosen[:, 1:], 2.0 * share, -2.0 * share)
    others = len(classes) - 1
    return np.where(is_chosen, share / others, -share / others**2)


def _own_scores(estimator: AdaBoostClassifier, divisor: int, rows: Numbers) -> Numbers:
    scores: Numbers = np.asarray(estimator.decision_function(rows), np.float64).reshape(len(rows), -1) / divisor
    return scores


def boosted_median(estimator: AdaBoostRegressor, fold_member: Callable[[Any, str], LinearModel]) -> LinearModel:
    """Return the model of an AdaBoostRegressor of one member, which predicts what that does.

    Raises:
        ValueError: it has several members.
    """
    if len(estimator.estimators_) > 1:
        raise ValueError(
            "it predicts the median of its members, which is no linear function: fit a GradientBoostingRegressor"
        )
    model = fold_member(estimator.estimators_[0], "estimators_[0]")
    # Its member was fitted without names, and takes missing numbers, which AdaBoost does not.
    front = tuple(replace(node, takes_missing=False) if isinstance(node, OpenStep) else node for node in model.front)
    return replace(model, feature_names=feature_names(estimator), front=front)
