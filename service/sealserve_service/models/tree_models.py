"""Tree models: estimators of scikit-learn that are ensembles of trees.

To add an estimator, write its rule and enter it in `TREE_MODELS`.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from sealserve.protocol.output import Link, Output, Task
from sealserve_service.models import category_steps
from sealserve_service.models.adaptive_boosting import boosted_votes
from sealserve_service.models.arrays import fitted_width
from sealserve_service.models.estimator_trees import FOREST, HISTOGRAM, ensemble_of, tree_of
from sealserve_service.models.estimators import feature_names, labels
from sealserve_service.models.fronts import IDENTITY
from sealserve_service.models.isolation_forests import isolation_forest
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.pipeline_steps import Branch, Branches
from sealserve_service.models.trees import Indices, Nodes, Numbers

# Trees and forests


def _classes_of_trees(estimator: Any) -> LinearModel:
    members = list(getattr(estimator, "estimators_", [estimator]))
    if estimator.n_outputs_ != 1:
        raise ValueError("it has several outputs: serve a model for each")
    classes = labels(estimator)
    if len(classes) < 2:
        raise ValueError("it was fitted with one class, which is what it predicts of any row")

    def shares(values: Numbers) -> Numbers:
        found: Numbers = values / values.sum(axis=1, keepdims=True) / len(members)
        return found[:, 1:] if len(classes) == 2 else found

    trees = [tree_of(member, shares) for member in members]
    count = 1 if len(classes) == 2 else len(classes)
    output = Output(
        Task.CLASSIFICATION, count, classes, Link.CURVES, has_no_decision_function=True, curves=(IDENTITY,) * count
    )
    own = partial(_probabilities, estimator)
    return ensemble_of(estimator, trees, np.zeros(count), output, own)


def _probabilities(estimator: Any, rows: Numbers) -> Numbers:
    probabilities: Numbers = estimator.predict_proba(rows)
    return probabilities[:, 1:] if probabilities.shape[1] == 2 else probabilities


def _targets_of_trees(estimator: Any) -> LinearModel:
    members = list(getattr(estimator, "estimators_", [estimator]))
    trees = [tree_of(member, lambda values: values / len(members)) for member in members]
    output = Output(Task.REGRESSION, 1, scalar_target=True)
    return ensemble_of(estimator, trees, np.zeros(1), output, partial(_column, estimator.predict))


def _column(method: Callable[[Numbers], Numbers], rows: Numbers) -> Numbers:
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


def _boosted(estimator: Any, output: Output, own_scores: Callable[[Numbers], Numbers]) -> LinearModel:
    if type(estimator.init_).__name__ not in ("DummyClassifier", "DummyRegressor", "str"):
        raise ValueError("its init is an estimator of its own: fit it without init")
    trees, total = list[Nodes](), np.zeros(output.score_count)
    row = np.zeros((1, fitted_width(estimator)))
    for stage in estimator.estimators_:
        for score, member in enumerate(stage):
            unit = np.eye(output.score_count)[score] * estimator.learning_rate
            trees.append(tree_of(member, partial(_times, unit)))
            total += trees[-1].values[member.tree_.apply(row.astype(np.float32))[0]]
    with warnings.catch_warnings(action="ignore"):  # of names that the row does not have
        baseline = own_scores(row)[0] - total
    return ensemble_of(estimator, trees, baseline, output, own_scores, replace(FOREST, takes_missing=False))


def _times(unit: Numbers, values: Numbers) -> Numbers:
    scaled: Numbers = values[:, :1] * unit
    return scaled


def _binned_classes(estimator: HistGradientBoostingClassifier) -> LinearModel:
    classes, count = labels(estimator), len(estimator._predictors[0])
    output = Output(Task.CLASSIFICATION, count, classes, Link.LOGISTIC if count == 1 else Link.SOFTMAX)
    return _binned(estimator, output, partial(_column, estimator.decision_function))


def _binned_targets(estimator: HistGradientBoostingRegressor) -> LinearModel:
    is_log = estimator.loss in ("poisson", "gamma")
    output = Output(Task.REGRESSION, 1, link=Link.LOG if is_log else Link.NONE, scalar_target=True)
    return _binned(estimator, output, partial(_log_column if is_log else _column, estimator.predict))


def _log_column(method: Callable[[Numbers], Numbers], rows: Numbers) -> Numbers:
    with np.errstate(divide="ignore"):
        logarithms: Numbers = np.log(_column(method, rows))
    return logarithms


def _binned(estimator: Any, output: Output, own_scores: Callable[[Numbers], Numbers]) -> LinearModel:
    encoder, is_category = None, estimator.is_categorical_
    if is_category is not None:
        encoder = estimator._preprocessor.named_transformers_["encoder"]
    found = [] if encoder is None else [categories.tolist() for categories in encoder.categories_]
    # NaN, which does not equal itself, is the last category if there is one, and has no number.
    category_counts = [sum(category == category for category in categories) for categories in found]
    trees = [
        _binned_tree(predictor, np.eye(output.score_count)[score], category_counts)
        for stage in estimator._predictors
        for score, predictor in enumerate(stage)
    ]
    baseline = np.ravel(estimator._baseline_prediction).astype(np.float64)
    own_names = feature_names(estimator)
    names = own_names or tuple(f"x{column}" for column in range(fitted_width(estimator)))
    if encoder is None:
        model = ensemble_of(estimator, trees, baseline, output, own_scores, HISTOGRAM, names)
        return replace(model, feature_names=own_names)
    # Trees compare the numbers of the categories, and those columns come first.
    first, others = np.flatnonzero(is_category), np.flatnonzero(~is_category)
    names = tuple(names[column] for column in [*first, *others])
    model = ensemble_of(estimator, trees, baseline, output, own_scores, HISTOGRAM, names)
    encoded = tuple(category_steps.ordinal(encoder, type(estimator).__name__))
    branches = Branches(model.column_count, (Branch(first, encoded), Branch(others)))
    return replace(model, feature_names=own_names, front=(branches, *model.front))


def _binned_tree(predictor: Any, unit: Numbers, category_counts: Sequence[int]) -> Nodes:
    """Return a tree whose first features are numbers of categories; there are so many of each."""
    nodes = predictor.nodes
    is_leaf = nodes["is_leaf"].astype(np.bool_)
    by_category = np.flatnonzero(nodes["is_categorical"].astype(np.bool_) & ~is_leaf)
    thresholds = nodes["num_threshold"].astype(np.float64)  # infinite where only what is missing goes to the right
    thresholds[by_category] = 0.0
    return Nodes(
        np.zeros(1, np.intp),
        np.where(is_leaf, -1, nodes["left"].astype(np.intp)),
        np.where(is_leaf, -1, nodes["right"].astype(np.intp)),
        nodes["feature_idx"].astype(np.intp),
        thresholds,
        nodes["missing_go_to_left"].astype(np.bool_),
        nodes["value"].astype(np.float64)[:, np.newaxis] * unit,
        nodes["count"].astype(np.float64),
        {node: _sides(predictor, node, category_counts) for node in by_category.tolist()},
    )


def _sides(predictor: Any, node: int, category_counts: Sequence[int]) -> tuple[Indices, Indices]:
    feature, row = int(predictor.nodes["feature_idx"][node]), int(predictor.nodes["bitset_idx"][node])
    words = np.asarray(predictor.raw_left_cat_bitsets, "<u4")[row]
    goes_left = np.unpackbits(words.view(np.uint8), bitorder="little")[: category_counts[feature]]
    return np.flatnonzero(goes_left), np.flatnonzero(goes_left == 0)


TREE_MODELS: dict[type, Callable[[Any], LinearModel]] = {
    AdaBoostClassifier: boosted_votes,
    IsolationForest: isolation_forest,
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
