"""Trees of scikit-learn's estimators."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sealserve.protocol.output import Output
from sealserve_service.models.arrays import fitted_width
from sealserve_service.models.ensembles import EnsembleKind, ensemble
from sealserve_service.models.estimators import feature_names
from sealserve_service.models.limits import MAX_FEATURES, check_limit
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.trees import MIN_ROWS, Nodes, Numbers, joined

FOREST = EnsembleKind(
    "",
    f"fit it with min_samples_leaf={MIN_ROWS} or more, or with fewer levels",
    rounds_to_float32=True,
    makes_bins=True,
    compared="which features they compare with which thresholds",
    cuts="midway between values of training rows",
    few_rows="a leaf has {} training rows, so that thresholds bracket single values",
)
"""Trees that find their thresholds among the rows of a node."""
HISTOGRAM = replace(
    FOREST,
    rounds_to_float32=False,
    fewer_cuts="fit it with a smaller max_bins",
    cuts="each of them a value of a training row or midway between two",
)
"""Trees that find their thresholds among the edges of a histogram of each column."""


def tree_of(estimator: Any, values: Callable[[Numbers], Numbers]) -> Nodes:
    """Return a tree of scikit-learn; `values` turns those of nodes (nodes, outputs) into scores.

    Raises:
        ModelTooLargeError: it has too many nodes.
        ValueError: it has several outputs.
    """
    tree = estimator.tree_
    if tree.value.shape[1] != 1:
        raise ValueError("it has several outputs: serve a model for each")
    check_limit("nodes", MAX_FEATURES, tree.node_count)
    misses_left = getattr(tree, "missing_go_to_left", np.zeros(tree.node_count))
    return Nodes(
        np.zeros(1, np.intp),
        np.asarray(tree.children_left, np.intp),
        np.asarray(tree.children_right, np.intp),
        np.asarray(tree.feature, np.intp),
        np.asarray(tree.threshold, np.float64),
        np.asarray(misses_left, np.bool_),
        values(np.asarray(tree.value[:, 0, :], np.float64)),
        np.asarray(tree.n_node_samples, np.float64),
    )


def ensemble_of(
    estimator: Any,
    trees: Sequence[Nodes],
    baseline: Numbers,
    output: Output,
    own_scores: Callable[[Numbers], Numbers],
    kind: EnsembleKind = FOREST,
    names: tuple[str, ...] | None = None,
) -> LinearModel:
    """Return the model of an estimator that is made of trees: see `ensemble`.

    The columns have the names that the estimator was fitted with, unless others are given.
    """
    return ensemble(
        replace(kind, name=type(estimator).__name__),
        joined(trees),
        baseline,
        output,
        feature_names(estimator) if names is None else names,
        fitted_width(estimator),
        own_scores=own_scores,
    )
