"""Trees: the nodes of an ensemble, as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MIN_ROWS = 5
"""Training rows of a leaf or a bin, and between two cut points of a column.

A threshold is a value of a training row, or lies midway between two: fewer tell of single rows.
"""

Indices = NDArray[np.intp]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Nodes:
    """The nodes of trees: tree by tree, with children after their parents, unless it is said.

    Attributes:
        roots: the root of each tree.
        left, right: children; -1 of a leaf.
        features: the column that a node compares; anything of a leaf.
        thresholds: of a node; anything of a leaf.
        misses_left: whether a missing number goes to the left, and so does one that a node with
            categories does not name; anything of a leaf.
        values: of a leaf, (nodes, scores); anything of a node.
        row_counts: of training rows at each node, or the least that there can have been; None if
            nothing tells.
        categories: of the nodes that have no threshold: those that go to the left, and those that
            go to the right.
    """

    roots: Indices
    left: Indices
    right: Indices
    features: Indices
    thresholds: Numbers
    misses_left: NDArray[np.bool_]
    values: Numbers
    row_counts: Numbers | None
    categories: Mapping[int, tuple[Indices, Indices]] = field(default_factory=dict)

    @property
    def is_leaf(self) -> NDArray[np.bool_]:
        """Which nodes are leaves."""
        return self.left < 0

    @property
    def sizes(self) -> Indices:
        """The number of nodes of each tree."""
        return np.diff(np.append(self.roots, len(self.left)))

    @property
    def is_last_leaf(self) -> NDArray[np.bool_]:
        """Which leaves are the last of their trees: a tree ends with a leaf."""
        found = np.zeros(len(self.left), np.bool_)
        found[self.roots + self.sizes - 1] = True
        return found


def joined(trees: Sequence[Nodes]) -> Nodes:
    """Return the nodes of all trees, of which there is one at least."""
    starts = np.cumsum([0, *(len(tree.left) for tree in trees)])[:-1]
    numbered = list(zip(trees, starts.tolist(), strict=True))
    counts = [tree.row_counts for tree in trees if tree.row_counts is not None]
    return Nodes(
        np.concatenate([tree.roots + start for tree, start in numbered]),
        np.concatenate([np.where(tree.is_leaf, -1, tree.left + start) for tree, start in numbered]),
        np.concatenate([np.where(tree.is_leaf, -1, tree.right + start) for tree, start in numbered]),
        np.concatenate([tree.features for tree in trees]),
        np.concatenate([tree.thresholds for tree in trees]),
        np.concatenate([tree.misses_left for tree in trees]),
        np.concatenate([tree.values for tree in trees]),
        np.concatenate(counts) if len(counts) == len(trees) else None,
        {node + start: sides for tree, start in numbered for node, sides in tree.categories.items()},
    )
