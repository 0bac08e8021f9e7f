"""Isolation forests: outliers are rows that few splits part from all others.

With the path lengths h of n trees, scikit-learn's decision function is `-2^(-s) - offset`, where s
is the sum of h divided by `n c`, and c is the mean path length of as many rows as a tree was fitted
to. It is 0 or above, which means an inlier, where `s + log2(-offset)` is: that is the score.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from sealserve.protocol.output import Output, Task
from sealserve_service.models.arrays import vector
from sealserve_service.models.estimator_trees import FOREST, ensemble_of, tree_of
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.trees import Nodes, Numbers

_PUBLIC = (
    "The values of leaves are path lengths, which follow from the structure and the number of training rows in each "
    "leaf: nothing of this model stays private"
)
_REMEDY = "fit a OneClassSVM with kernel='poly' or 'linear', or a SGDOneClassSVM"


def isolation_forest(forest: IsolationForest) -> LinearModel:
    """Return the model of an IsolationForest.

    Raises:
        ValueError: its trees have no split, or its offset fits no score.
    """
    offset = float(forest.offset_)
    if not offset < 0:
        raise ValueError(f"its offset_ {offset} is not below 0, as all its scores are")
    longest = _mean_path_length(int(forest._max_samples)) * len(forest.estimators_)
    if not longest:
        raise ValueError("its trees were fitted to one row each: it predicts the same of any row")
    members = zip(
        forest.estimators_,
        forest.estimators_features_,
        forest._decision_path_lengths,
        forest._average_path_length_per_tree,
        strict=True,
    )
    trees = [
        _tree(member, np.asarray(features, np.intp), (vector(depths) + vector(rest) - 1.0) / longest)
        for member, features, depths, rest in members
    ]
    return ensemble_of(
        forest,
        trees,
        np.full(1, np.log2(-offset)),
        Output(Task.CLASSIFICATION, 1, (-1, 1), has_no_decision_function=True),
        partial(_own_scores, forest),
        replace(FOREST, values=_PUBLIC, remedy=_REMEDY),
    )


def _tree(member: Any, features: NDArray[np.intp], lengths: Numbers) -> Nodes:
    """Return a tree with its path lengths; it chooses among some of the features."""
    tree = tree_of(member, lambda _: lengths[:, np.newaxis])
    return replace(tree, features=features[np.where(tree.is_leaf, 0, tree.features)])


def _mean_path_length(row_count: int) -> float:
    """Return the mean path length of so many rows. Source: Liu, Ting and Zhou, ICDM 2008, (1)."""
    if row_count <= 2:
        return float(row_count > 1)
    return float(2.0 * (np.log(row_count - 1.0) + np.euler_gamma) - 2.0 * (row_count - 1.0) / row_count)


def _own_scores(forest: IsolationForest, rows: Numbers) -> Numbers:
    scores: Numbers = np.log2(forest.offset_ / forest.score_samples(rows))[:, np.newaxis]
    return scores
