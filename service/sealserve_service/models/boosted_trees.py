"""Boosted trees: ensembles in the files of other libraries, as one linear model of leaves.

Nothing here needs scikit-learn or the library that trained the ensemble. A file of trees may be
hostile: `boosted_model` takes nodes in any order, and refuses what is no tree.
"""

from collections.abc import Sequence

import numpy as np

from sealserve.protocol.output import Output
from sealserve.steps.limits import MAX_DEPTH, MAX_NODES
from sealserve_service.models.boosted_columns import Recoding
from sealserve_service.models.ensembles import EnsembleKind, ensemble
from sealserve_service.models.limits import MAX_FEATURES, check_limit, check_weights
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.trees import Indices, Nodes, Numbers


def boosted_model(
    library: EnsembleKind,
    nodes: Nodes,
    baseline: Numbers,
    output: Output,
    names: tuple[str, ...],
    recodings: Sequence[Recoding] = (),
) -> LinearModel:
    """Return the model of an ensemble: see `ensemble`.

    Args:
        library: that trained the trees.
        nodes: in any order; those that no root leads to are left out.
        baseline: of the scores, (scores,).
        output: what the scores mean.
        names: of the columns.
        recodings: what becomes of columns before they are compared.

    Raises:
        ModelTooLargeError: it has too many leaves.
        ValueError: it has no split, or is no ensemble of trees.
    """
    check_limit("features", MAX_FEATURES, len(names))
    if len(set(names)) < len(names):
        raise ValueError("two columns have the same name: rename one, and fit it again")
    check_weights(output.score_count, len(nodes.left))
    nodes = _in_order(nodes, len(names))
    return ensemble(library, nodes, baseline, output, names, len(names), recodings=recodings)


def _in_order(nodes: Nodes, column_count: int) -> Nodes:
    """Return the nodes that roots lead to: tree by tree, and level by level within a tree.

    Raises:
        ModelTooLargeError: they are too many.
        ValueError: they are no trees, or compare columns that there are not.
    """
    check_limit("nodes", MAX_NODES, len(nodes.left))
    if not len(nodes.roots):
        raise ValueError("it has no tree")
    order, sizes = _ordered(nodes)
    number = np.full(len(nodes.left), -1, np.intp)
    number[order] = np.arange(len(order))
    is_leaf, features = nodes.is_leaf[order], nodes.features[order]
    if ((features < 0) | (features >= column_count))[~is_leaf].any():
        raise ValueError(f"a node compares a column that is not among the {column_count}")
    categories = {int(number[node]): sides for node, sides in nodes.categories.items() if number[node] >= 0}
    return Nodes(
        np.cumsum(sizes) - sizes,
        np.where(is_leaf, -1, number[nodes.left[order]]),
        np.where(is_leaf, -1, number[nodes.right[order]]),
        features,
        nodes.thresholds[order],
        nodes.misses_left[order],
        nodes.values[order],
        None if nodes.row_counts is None else nodes.row_counts[order],
        dict(sorted(categories.items())),
    )


def _ordered(nodes: Nodes) -> tuple[Indices, Indices]:
    """Return the nodes that roots lead to, tree by tree, and how many each tree has.

    Raises:
        ValueError: a child is no node, or a node is reached twice.
    """
    left, right, is_leaf = nodes.left, nodes.right, nodes.is_leaf
    children = np.concatenate([left[~is_leaf], right[~is_leaf], nodes.roots])
    if len(children) and (children.min() < 0 or children.max() >= len(left)):
        raise ValueError("a node has one child, or a child that is no node")
    is_reached = np.zeros(len(left), np.bool_)
    reached, trees = nodes.roots, np.arange(len(nodes.roots))
    levels, of_levels = list[Indices](), list[Indices]()
    while len(reached):
        if is_reached[reached].any() or len(np.unique(reached)) < len(reached):
            raise ValueError("a node is the child of several nodes, or of itself: trees must not have cycles")
        if len(levels) > MAX_DEPTH:
            raise ValueError(f"a tree is deeper than {MAX_DEPTH} levels")
        is_reached[reached] = True
        levels.append(reached)
        of_levels.append(trees)
        is_inner = ~is_leaf[reached]
        inner, trees = reached[is_inner], np.repeat(trees[is_inner], 2)
        reached = np.stack([left[inner], right[inner]], axis=1).ravel()
    tree = np.concatenate(of_levels)
    order = np.concatenate(levels)[np.argsort(tree, kind="stable")]
    return order, np.bincount(tree, minlength=len(nodes.roots))
