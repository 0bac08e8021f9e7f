"""Ensembles and categories as linear models of indicators, in exclusive groups.

The leaves of a tree, and the categories of a column, are features of 0 and 1. Of a tree one leaf is
left out by a fixed rule, the last one: its value is in the intercept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from sealserve.he.row_constraints import RowConstraints
from sealserve_service.planning.ranges import InputRanges

Rows = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Indicators:
    """A linear model of indicators, with rows.

    Attributes:
        weights: (scores, features).
        intercept: (scores,).
        rows: indicators, of 0 and 1, (rows, features).
        scores: of the original estimator, (rows, scores).
        ranges: with the groups.
    """

    weights: Rows
    intercept: Rows
    rows: Rows
    scores: Rows
    ranges: InputRanges


def indicator_ranges(rows: Rows, group: Rows, exactly_one: Rows, *, is_checked: bool = False) -> InputRanges:
    """Ranges of features of 0 and 1 in groups."""
    count = len(group)
    return InputRanges(
        minimum=np.zeros(count),
        maximum=np.ones(count),
        own_step=np.ones(count),
        is_declared=np.ones(count, np.bool_),
        center=rows.mean(axis=0),
        constraints=RowConstraints.of(count, group, exactly_one, is_checked=is_checked),
    )


def _of_leaves(reached: Rows, values: list[Rows], intercept: Rows, scores: Rows) -> Indicators:
    """Make a model of trees.

    Args:
        reached: the number of the leaf that a row reaches, (rows, trees).
        values: of each tree's leaves, (scores, leaves).
        intercept: (scores,).
        scores: of the estimator.
    """
    intercept = intercept + sum(value[:, -1] for value in values)
    weights = np.hstack([value[:, :-1] - value[:, -1:] for value in values])
    rows = np.hstack(
        [leaf[:, None] == np.arange(value.shape[1] - 1) for leaf, value in zip(reached.T, values, strict=True)]
    )
    group = np.repeat(np.arange(1, len(values) + 1), [value.shape[1] - 1 for value in values])
    ranges = indicator_ranges(rows, group, np.zeros(len(values), np.bool_))
    return Indicators(weights, intercept, rows.astype(np.float64), scores, ranges)


def _of_forest(forest: Any, X: Rows) -> Indicators:
    nodes, reached, values = forest.apply(X), [], []
    for k, tree in enumerate(estimator.tree_ for estimator in forest.estimators_):
        leaves = np.flatnonzero(tree.children_left < 0)
        reached.append(np.searchsorted(leaves, nodes[:, k]))
        shares = tree.value[leaves, 0, :] / tree.value[leaves, 0, :].sum(axis=1, keepdims=True)
        values.append(shares.T / len(forest.estimators_))
    return _of_leaves(np.stack(reached, axis=1), values, np.zeros(forest.n_classes_), forest.predict_proba(X))


def _leaf_of(nodes: Any, X: Rows) -> Rows:
    """Walk down a tree of HistGradientBoosting: the node that each row ends in."""
    at = np.zeros(len(X), np.intp)
    while not nodes["is_leaf"][at].all():
        node = nodes[at]
        goes_left = X[np.arange(len(X)), node["feature_idx"]] <= node["num_threshold"]
        at = np.where(node["is_leaf"], at, np.where(goes_left, node["left"], node["right"]))
    return at


def _of_boosting(boosting: Any, X: Rows) -> Indicators:
    baseline = np.ravel(boosting._baseline_prediction)
    reached, values = [], []
    for stage in boosting._predictors:
        for k, predictor in enumerate(stage):
            leaves = np.flatnonzero(predictor.nodes["is_leaf"])
            reached.append(np.searchsorted(leaves, _leaf_of(predictor.nodes, X)))
            value = np.zeros((len(baseline), len(leaves)))
            value[k] = predictor.nodes["value"][leaves]
            values.append(value)
    scores = boosting.decision_function(X).reshape(len(X), -1)
    return _of_leaves(np.stack(reached, axis=1), values, baseline, scores)


def _table(random: np.random.Generator, rows: int, features: int, classes: int) -> tuple[Rows, Rows]:
    X = random.normal(size=(rows, features))
    value = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.5 * X[:, 3] + random.normal(0, 0.3, rows)
    return X, np.digitize(value, np.quantile(value, np.arange(1, classes) / classes))


def random_forest(trees: int = 100, depth: int = 8, classes: int = 2) -> Indicators:
    """A random forest."""
    X, y = _table(np.random.default_rng(1), 3000, 10, classes)
    forest = RandomForestClassifier(trees, max_depth=depth, random_state=0, n_jobs=1).fit(X, y)
    return _of_forest(forest, X[:500])


def boosting(trees: int = 100, leaves: int = 31, classes: int = 2) -> Indicators:
    """A HistGradientBoostingClassifier."""
    X, y = _table(np.random.default_rng(2), 6000, 10, classes)
    fitted = HistGradientBoostingClassifier(
        max_iter=trees, max_leaf_nodes=leaves, early_stopping=False, random_state=0
    ).fit(X, y)
    return _of_boosting(fitted, X[:500])


def categories(sizes: tuple[int, ...] = (9, 16, 7, 42), *, drop: str | None = None, classes: int = 2) -> Indicators:
    """One-hot columns before a LogisticRegression: exactly one is set, or one is dropped."""
    random = np.random.default_rng(3)
    X = np.stack([random.integers(0, size, 4000) for size in sizes], axis=1)
    effects = [random.normal(0, 1, size) for size in sizes]
    value = sum(effect[column] for effect, column in zip(effects, X.T, strict=True)) + random.normal(0, 1, len(X))
    encoder = OneHotEncoder(drop=drop, sparse_output=False).fit(X)
    y = np.digitize(value, np.quantile(value, np.arange(1, classes) / classes))
    rows = encoder.transform(X)
    head = LogisticRegression(C=10, max_iter=500).fit(rows, y)
    group = np.repeat(np.arange(1, len(sizes) + 1), np.array(sizes) - (drop is not None))
    ranges = indicator_ranges(rows, group, np.full(len(sizes), drop is None), is_checked=True)
    scores = head.decision_function(rows[:500]).reshape(500, -1)
    return Indicators(head.coef_, head.intercept_, rows[:500], scores, ranges)


TABLES: dict[str, Callable[[], Indicators]] = {
    "4 columns one-hot": categories,
    "4 columns, one dropped": lambda: categories(drop="first"),
    "4 columns, 5 classes": lambda: categories(classes=5),
    "4 binary columns": lambda: categories((2, 2, 2, 2)),
}
ENSEMBLES: dict[str, Callable[[], Indicators]] = {
    "random forest 100 x depth 8": random_forest,
    "random forest, 5 classes": lambda: random_forest(100, 6, 5),
    "boosting 100 x 31": boosting,
    "boosting 30 x 31, 5 classes": lambda: boosting(30, 31, 5),
}
