"""Trees of scikit-learn as steps."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.steps.trees import CategorySplit, Trees


def forest_steps(forest: Any) -> Trees:
    """The leaves of a fitted forest."""
    trees = [tree.tree_ for tree in forest.estimators_]
    is_leaf = np.concatenate([tree.children_left < 0 for tree in trees])

    def joined(name: str) -> NDArray[Any]:
        return np.where(is_leaf, 0, np.concatenate([getattr(tree, name) for tree in trees]))

    return Trees(
        range(forest.n_features_in_),
        node_counts=np.array([tree.node_count for tree in trees]),
        left=joined("children_left"),
        right=joined("children_right"),
        features=joined("feature"),
        thresholds=joined("threshold"),
        misses_left=joined("missing_go_to_left").astype(bool),
        rounds_to_float32=True,
    )


def hist_steps(model: Any) -> tuple[Trees, NDArray[np.float64], float]:
    """The leaves of fitted boosted histograms of two classes, with their values and the baseline.

    If there are categories, the only categorical column is in front after scikit-learn's own
    encoder, whose codes are the categories.
    """
    predictors = [predictor for [predictor] in model._predictors]
    nodes = np.concatenate([predictor.nodes for predictor in predictors])
    is_leaf = nodes["is_leaf"].astype(bool)
    encoder, inputs = model._preprocessor, np.arange(model.n_features_in_)
    if encoder is not None:
        [categorical] = np.flatnonzero(model.is_categorical_)
        inputs = np.array([categorical, *np.delete(inputs, categorical)])
    splits, start = [], 0
    for predictor in predictors:
        for place in np.flatnonzero(predictor.nodes["is_categorical"] & ~predictor.nodes["is_leaf"]):
            bits = predictor.raw_left_cat_bitsets[predictor.nodes["bitset_idx"][place]]
            left = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))
            known = np.arange(len(encoder.named_transformers_["encoder"].categories_[0]))
            splits.append(CategorySplit(start + int(place), left, np.setdiff1d(known, left)))
        start += len(predictor.nodes)
    is_split = is_leaf | nodes["is_categorical"].astype(bool)
    step = Trees(
        inputs,
        node_counts=np.array([len(predictor.nodes) for predictor in predictors]),
        left=np.where(is_leaf, 0, nodes["left"]).astype(int),
        right=np.where(is_leaf, 0, nodes["right"]).astype(int),
        features=np.where(is_leaf, 0, nodes["feature_idx"]).astype(int),
        thresholds=np.where(is_split, 0, nodes["num_threshold"]).astype(float),
        misses_left=nodes["missing_go_to_left"].astype(bool) & ~is_leaf,
        category_splits=splits,
    )
    return step, nodes["value"][is_leaf], float(np.ravel(model._baseline_prediction)[0])
