"""Tree models: ensembles whose leaves are features, and whose values are a private head.

A tree has one feature for each leaf: 1 for the leaf that a row reaches. The last leaf of each tree
is left out, whatever its value: its value is added to the intercept and subtracted from the others.

To add an estimator, write its rule and enter it in `TREE_MODELS`.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from sealserve.protocol.output import Curve, Link, Output, Task
from sealserve.steps.trees import Trees
from sealserve_service.models.arrays import fitted_width
from sealserve_service.models.estimators import feature_names, labels
from sealserve_service.models.limits import MAX_FEATURES, check_limit, check_weights
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.pipeline_steps import Consent, OpenStep

MIN_LEAF_ROWS = 5
"""A threshold lies midway between two training rows: a leaf of fewer brackets single values."""

_IDENTITY = Curve((0.0, 1.0), (0.0, 1.0))
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tree:
    """A tree: nodes in an order in which children come after their parents.

    Attributes:
        left, right: children, -1 of a leaf.
        features: of a node; anything of a leaf.
        thresholds: of a node.
        misses_left: whether a missing number goes to the left.
        values: of a leaf, (nodes, scores); anything of a node.
        row_counts: of training rows at each node; None if they are not known.
    """

    left: NDArray[np.intp]
    right: NDArray[np.intp]
    features: NDArray[np.intp]
    thresholds: Values
    misses_left: NDArray[np.bool_]
    values: Values
    row_counts: NDArray[np.intp] | None

    @property
    def is_leaf(self) -> NDArray[np.bool_]:
        """Which nodes are leaves."""
        return self.left < 0


def ensemble(
    estimator: Any,
    trees: Sequence[Tree],
    baseline: Values,
    output: Output,
    own_scores: Callable[[Values], Values],
    *,
    rounds_to_float32: bool,
    takes_missing: bool = True,
) -> LinearModel:
    """Return the model whose scores are a baseline and the values of the leaves that are reached.

    Raises:
        ModelTooLargeError: it has too many leaves.
        ValueError: it has no split.
    """
    leaves = [tree.values[tree.is_leaf] for tree in trees]
    kept_count = sum(len(values) - 1 for values in leaves)
    if not kept_count:
        raise ValueError("none of its trees has a split: it predicts the same of any row")
    check_weights(output.score_count, kept_count)
    weights = np.vstack([values[:-1] - values[-1] for values in leaves]).T
    intercept = baseline + sum((values[-1] for values in leaves), np.zeros(output.score_count))
    name, count = type(estimator).__name__, fitted_width(estimator)
    node_count = sum(len(tree.left) for tree in trees)
    tells = (
        f"the structure of {len(trees)} trees with {node_count} nodes: which features they compare with which "
        "thresholds, midway between values of training rows. The values of leaves stay private"
    )
    front = OpenStep(
        name,
        kept_count,
        partial(_emit, trees, rounds_to_float32),
        tells,
        Consent.STRUCTURE,
        training_values=_training_values(trees),
        takes_missing=takes_missing,
    )
    return LinearModel(
        weights,
        intercept,
        output,
        feature_names(estimator),
        own_scores=own_scores,
        front=(front,),
        column_count=count,
    )


def _emit(trees: Sequence[Tree], rounds_to_float32: bool, add: Any, inputs: NDArray[np.intp]) -> NDArray[np.intp]:
    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(tree, name) for tree in trees])

    is_leaf = joined("is_leaf")
    outputs: NDArray[np.intp] = add(
        Trees(
            inputs,
            node_counts=np.array([len(tree.left) for tree in trees]),
            left=np.where(is_leaf, 0, joined("left")),
            right=np.where(is_leaf, 0, joined("right")),
            features=np.where(is_leaf, 0, joined("features")),
            thresholds=np.where(is_leaf, 0.0, joined("thresholds")),
            misses_left=joined("misses_left") & ~is_leaf,
            rounds_to_float32=rounds_to_float32,
        )
    )
    stops = np.cumsum([np.count_nonzero(tree.is_leaf) for tree in trees])
    return np.delete(outputs, stops - 1)


def _training_values(trees: Sequence[Tree]) -> str:
    remedy = f"fit it with min_samples_leaf={MIN_LEAF_ROWS} or more, or with fewer levels"
    if any(tree.row_counts is None for tree in trees):
        return f"how many training rows its leaves have is not known: {remedy}"
    least = min(int(tree.row_counts[tree.is_leaf].min()) for tree in trees if tree.row_counts is not None)
    if least >= MIN_LEAF_ROWS:
        return ""
    return f"a leaf has {least} training rows, so that thresholds bracket single values: {remedy}"


def _trees_of(estimator: Any, values: Callable[[Values], Values]) -> Tree:
    """Return a tree of scikit-learn; `values` turns those of nodes (nodes, outputs) into scores."""
    tree = estimator.tree_
    if tree.value.shape[1] != 1:
        raise ValueError("it has several outputs: serve a model for each")
    check_limit("nodes", MAX_FEATURES, tree.node_count)
    misses_left = getattr(tree, "missing_go_to_left", np.zeros(tree.node_count))
    return Tree(
        np.asarray(tree.children_left, np.intp),
        np.asarray(tree.children_right, np.intp),
        np.asarray(tree.feature, np.intp),
        np.asarray(tree.threshold, np.float64),
        np.asarray(misses_left, np.bool_),
        values(np.asarray(tree.value[:, 0, :], np.float64)),
        np.asarray(tree.n_node_samples, np.intp),
    )


# Trees and forests


def _classes_of_trees(estimator: Any) -> LinearModel:
    members = list(getattr(estimator, "estimators_", [estimator]))
    if estimator.n_outputs_ != 1:
        raise ValueError("it has several outputs: serve a model for each")
    classes = labels(estimator)
    if len(classes) < 2:
        raise ValueError("it was fitted with one class, which is what it predicts of any row")

    def shares(values: Values) -> Values:
        found: Values = values / values.sum(axis=1, keepdims=True) / len(members)
        return found[:, 1:] if len(classes) == 2 else found

    trees = [_trees_of(member, shares) for member in members]
    count = 1 if len(classes) == 2 else len(classes)
    output = Output(
        Task.CLASSIFICATION, count, classes, Link.CURVES, has_no_decision_function=True, curves=(_IDENTITY,) * count
    )
    own = partial(_probabilities, estimator)
    return ensemble(estimator, trees, np.zeros(count), output, own, rounds_to_float32=True)


def _probabilities(estimator: Any, rows: Values) -> Values:
    probabilities: Values = estimator.predict_proba(rows)
    return probabilities[:, 1:] if probabilities.shape[1] == 2 else probabilities


def _targets_of_trees(estimator: Any) -> LinearModel:
    members = list(getattr(estimator, "estimators_", [estimator]))
    trees = [_trees_of(member, lambda values: values / len(members)) for member in members]
    output = Output(Task.REGRESSION, 1, scalar_target=True)
    return ensemble(estimator, trees, np.zeros(1), output, partial(_column, estimator.predict), rounds_to_float32=True)


def _column(method: Callable[[Values], Values], rows: Values) -> Values:
    return np.asarray(method(rows), np.float64).reshape(len(rows), -1)


# Boosting


def _boosted_classes(estimator: GradientBoostingClassifier) -> LinearModel:
    classes = labels(estimator)
    count = estimator.estimators_.shape[1]
    # The exponential loss takes half the logarithm of the odds for a score.
    binary = Link.LOGISTIC if estimator.loss == "log_loss" else Link.SOFTMAX
    output = Output(Task.CLASSIFICATION, count, classes, binary if count == 1 else Link.SOFTMAX)
    return _boosted(estimator, output, partial(_column, estimator.decision_function))


def _boosted_targets(estimator: GradientBoostingRegressor) -> LinearModel:
    return _boosted(estimator, Output(Task.REGRESSION, 1, scalar_target=True), partial(_column, estimator.predict))


def _boosted(estimator: Any, output: Output, own_scores: Callable[[Values], Values]) -> LinearModel:
    if type(estimator.init_).__name__ not in ("DummyClassifier", "DummyRegressor", "str"):
        raise ValueError("its init is an estimator of its own: fit it without init")
    trees, total = list[Tree](), np.zeros(output.score_count)
    row = np.zeros((1, fitted_width(estimator)))
    for stage in estimator.estimators_:
        for score, member in enumerate(stage):
            unit = np.eye(output.score_count)[score] * estimator.learning_rate
            trees.append(_trees_of(member, partial(_times, unit)))
            total += trees[-1].values[member.tree_.apply(row.astype(np.float32))[0]]
    with warnings.catch_warnings(action="ignore"):  # of names that the row does not have
        baseline = own_scores(row)[0] - total
    return ensemble(estimator, trees, baseline, output, own_scores, rounds_to_float32=True, takes_missing=False)


def _times(unit: Values, values: Values) -> Values:
    scaled: Values = values[:, :1] * unit
    return scaled


def _binned_classes(estimator: HistGradientBoostingClassifier) -> LinearModel:
    classes, count = labels(estimator), len(estimator._predictors[0])
    output = Output(Task.CLASSIFICATION, count, classes, Link.LOGISTIC if count == 1 else Link.SOFTMAX)
    return _binned(estimator, output, partial(_column, estimator.decision_function))


def _binned_targets(estimator: HistGradientBoostingRegressor) -> LinearModel:
    is_log = estimator.loss in ("poisson", "gamma")
    output = Output(Task.REGRESSION, 1, link=Link.LOG if is_log else Link.NONE, scalar_target=True)
    return _binned(estimator, output, partial(_log_column if is_log else _column, estimator.predict))


def _log_column(method: Callable[[Values], Values], rows: Values) -> Values:
    with np.errstate(divide="ignore"):
        logarithms: Values = np.log(_column(method, rows))
    return logarithms


def _binned(estimator: Any, output: Output, own_scores: Callable[[Values], Values]) -> LinearModel:
    if estimator.is_categorical_ is not None:
        raise ValueError(
            "it has categorical_features, which are not served: put a OneHotEncoder before it, and fit it without"
        )
    trees = [
        _binned_tree(predictor.nodes, np.eye(output.score_count)[score])
        for stage in estimator._predictors
        for score, predictor in enumerate(stage)
    ]
    baseline = np.ravel(estimator._baseline_prediction).astype(np.float64)
    return ensemble(estimator, trees, baseline, output, own_scores, rounds_to_float32=False)


def _binned_tree(nodes: NDArray[Any], unit: Values) -> Tree:
    is_leaf = nodes["is_leaf"].astype(np.bool_)
    return Tree(
        np.where(is_leaf, -1, nodes["left"].astype(np.intp)),
        np.where(is_leaf, -1, nodes["right"].astype(np.intp)),
        nodes["feature_idx"].astype(np.intp),
        nodes["num_threshold"].astype(np.float64),  # infinite where only what is missing goes to the right
        nodes["missing_go_to_left"].astype(np.bool_),
        nodes["value"].astype(np.float64)[:, np.newaxis] * unit,
        nodes["count"].astype(np.intp),
    )


TREE_MODELS: dict[type, Callable[[Any], LinearModel]] = {
    **dict.fromkeys(
        (DecisionTreeClassifier, ExtraTreeClassifier, RandomForestClassifier, ExtraTreesClassifier), _classes_of_trees
    ),
    **dict.fromkeys(
        (DecisionTreeRegressor, ExtraTreeRegressor, RandomForestRegressor, ExtraTreesRegressor), _targets_of_trees
    ),
    GradientBoostingClassifier: _boosted_classes,
    GradientBoostingRegressor: _boosted_targets,
    HistGradientBoostingClassifier: _binned_classes,
    HistGradientBoostingRegressor: _binned_targets,
}
