"""Trees: the leaves of decision trees that a row reaches."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.steps.limits import MAX_CATEGORY, MAX_DEPTH, MAX_MEMBERSHIPS, MAX_NODES, OPERATIONS_A_CALL
from sealserve.steps.ranges import Group, GroupKind, Ranges
from sealserve.steps.step import Step, indices, numbers

_PLACES_A_BLOCK = 1 << 15  # rows times trees whose arrays stay in a core's cache
_NODES_A_CALL = 1 << 10  # whose comparison takes as long as a few calls of NumPy


@dataclass(frozen=True, eq=False)
class CategorySplit:
    """A node at which a row goes to the left or to the right by its category.

    A number that is in neither list goes where a missing one goes.

    Attributes:
        node: the number of the node, counted over all trees.
        left: the categories that go to the left, strictly increasing.
        right: the categories that go to the right, strictly increasing.
    """

    node: int
    left: NDArray[np.intp]
    right: NDArray[np.intp]

    def __post_init__(self) -> None:
        for name in ("left", "right"):
            categories = indices("categories of a node", getattr(self, name))
            object.__setattr__(self, name, categories)
            if (np.diff(categories) <= 0).any() or (len(categories) and categories[-1] >= MAX_CATEGORY):
                raise ValueError("categories of a node do not increase, or are too large")
        if not set(self.left.tolist()).isdisjoint(self.right.tolist()):
            raise ValueError("a category goes both to the left and to the right")


@dataclass(frozen=True, eq=False)
class Trees(Step):
    """Decision trees. Each has one output for each leaf: 1 for the leaf that the row reaches.

    Node 0 of a tree is its root. The lists have the nodes of all trees, one tree after the other.

    Attributes:
        node_counts: the number of nodes of each tree.
        left: the left child, by its number in its own tree: greater than that of the node; 0 for a
            leaf.
        right: the right child.
        features: the number of the input that a node compares; 0 for a leaf.
        thresholds: a number goes to the left if it is not above it.
        misses_left: whether a missing number goes to the left.
        strict: whether a number that equals the threshold goes to the right.
        rounds_to_float32: whether inputs are rounded to float32 first.
        category_splits: the nodes that have no threshold, increasing.
    """

    node_counts: NDArray[np.intp]
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    features: NDArray[np.intp]
    thresholds: NDArray[np.float64]
    misses_left: NDArray[np.bool_]
    strict: bool = False
    rounds_to_float32: bool = False
    category_splits: Sequence[CategorySplit] = ()
    _walk: "_Walk" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("node_counts", "left", "right", "features"):
            self._set(name, indices(name, getattr(self, name)))
        node_count = int(self.node_counts.sum())
        if not len(self.node_counts) or (self.node_counts < 1).any() or node_count > MAX_NODES:
            raise ValueError(f"there are no trees, an empty one, or more than {MAX_NODES} nodes")
        thresholds = numbers("thresholds", self.thresholds, shape=(node_count,), is_finite=False)
        self._set("thresholds", thresholds)
        if not (thresholds > -np.inf).all():  # minus infinity stands for what is missing: see _Walk
            raise ValueError("a threshold is no number, or minus infinity")
        misses_left = np.array(self.misses_left, np.bool_)
        misses_left.flags.writeable = False
        self._set("misses_left", misses_left)
        self._set("category_splits", tuple(self.category_splits))
        if not all(len(nodes) == node_count for nodes in (self.left, self.right, self.features, misses_left)):
            raise ValueError("each node needs children, an input, a threshold and a side for what is missing")
        if (self.features >= self.input_count).any():
            raise ValueError("a node compares an input that there is not")
        self._check_children()
        self._check_splits(node_count)
        self._set("_walk", _Walk.of(self))

    def _check_children(self) -> None:
        """Check that the nodes are trees: children come after their parents, and have one each."""
        tree = np.repeat(np.arange(len(self.node_counts)), self.node_counts)
        starts = np.cumsum(self.node_counts) - self.node_counts
        number = np.arange(len(tree)) - starts[tree]
        is_leaf = self.left == 0
        if ((self.right == 0) != is_leaf).any():
            raise ValueError("a node has one child")
        inner = ~is_leaf
        for child in (self.left, self.right):
            if ((child <= number) | (child >= self.node_counts[tree]))[inner].any():
                raise ValueError("a child is not after its parent, or not in its tree: trees must not have cycles")
        children = np.concatenate([(starts[tree] + child)[inner] for child in (self.left, self.right)])
        parents = np.bincount(children, minlength=len(tree))
        if (parents[number > 0] != 1).any():
            raise ValueError("a node is the child of several nodes, or of none")

    def _check_splits(self, node_count: int) -> None:
        nodes = np.array([split.node for split in self.category_splits], np.int64)
        if len(nodes) and (nodes[0] < 0 or nodes[-1] >= node_count or (np.diff(nodes) <= 0).any()):
            raise ValueError("the nodes of category splits do not increase, or there are no such nodes")
        if (self.left[nodes] == 0).any():
            raise ValueError("a leaf has a category split")
        if self.membership_count > MAX_MEMBERSHIPS:
            raise ValueError("there are too many categories of nodes")

    @property
    def category_count(self) -> int:
        """One more than the greatest category of a node."""
        ends = [
            split_end[-1] for split in self.category_splits for split_end in (split.left, split.right) if len(split_end)
        ]
        return int(max(ends, default=-1)) + 1

    @property
    def membership_count(self) -> int:
        """The cells of a table of categories and the nodes that tell them apart."""
        return len(self.category_splits) * (self.category_count + 1)

    @property
    def leaf_counts(self) -> NDArray[np.intp]:
        """The number of leaves of each tree."""
        counts: NDArray[np.intp] = (self.node_counts + 1) // 2
        return counts

    @property
    def width(self) -> int:
        return int(self.leaf_counts.sum())

    @property
    def operations(self) -> int:
        return self.width + len(self.node_counts) * (OPERATIONS_A_CALL + 8 * self._walk.depth)

    @property
    def makes_indicators(self) -> bool:
        return True

    def apply(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[Any]:
        found = np.zeros((len(values), self.width))
        rows_a_block = max(1, _PLACES_A_BLOCK // len(self.node_counts))
        for first in range(0, len(values), rows_a_block):
            block = values[first : first + rows_a_block]
            leaves = self._walk.reached(block)
            found[np.arange(first, first + len(block))[:, None], leaves] = 1.0
        return found

    def ranges(self, inputs: Ranges) -> Ranges:
        stops = np.cumsum(self.leaf_counts)
        starts = stops - self.leaf_counts
        groups = (Group(GroupKind.EXACTLY_ONE, np.arange(*ends)) for ends in zip(starts, stops, strict=True))
        return Ranges.of_flags(self.width, tuple(groups))


@dataclass(frozen=True, eq=False)
class _Walk:
    """The nodes of trees, laid out for walking all trees of all rows level by level.

    All rows take as many levels as the deepest leaf has: a leaf is its own child. The nodes have
    new numbers, level by level: first the roots, and a left child just before the right one.

    Attributes:
        tree_count: the number of trees.
        depth: the number of levels below the roots.
        right: the right child of a node; of a leaf the leaf itself.
        features: the number of the input that a node compares. The inputs come twice: first as
            they are, then with minus infinity for what is missing, which goes to the left.
        thresholds: of a node; NaN, to which nothing compares, of a leaf.
        leaves: the number of a leaf, over all trees; 0 of a node that is no leaf.
        strict, rounds_to_float32: see `Trees`.
        splits: the number of a node's category split, counted from 1; None if there are no splits.
        memberships: for each split and category, whether it goes to the left: (splits + 1,
            categories + 1). The last column is for all that is no category.
    """

    tree_count: int
    depth: int
    right: NDArray[np.int32]
    features: NDArray[np.int32]
    thresholds: NDArray[np.float64]
    leaves: NDArray[np.int32]
    strict: bool
    rounds_to_float32: bool
    splits: NDArray[np.int32] | None
    memberships: NDArray[np.bool_]

    @classmethod
    def of(cls, trees: Trees) -> "_Walk":
        """Lay out trees that have been checked.

        Raises:
            ValueError: they are too deep.
        """
        starts = np.cumsum(trees.node_counts) - trees.node_counts
        base = np.repeat(starts, trees.node_counts)
        is_leaf = trees.left == 0
        levels = _levels(starts, base + trees.left, base + trees.right, is_leaf)
        order = np.concatenate(levels)
        number = np.empty(len(order), np.intp)
        number[order] = np.arange(len(order))
        splits: NDArray[np.int32] | None = None
        if trees.category_splits:
            splits = np.zeros(len(order), np.int32)
            splits[number[[split.node for split in trees.category_splits]]] = np.arange(
                1, 1 + len(trees.category_splits)
            )
        return cls(
            tree_count=len(starts),
            depth=len(levels) - 1,
            right=number[np.where(is_leaf, np.arange(len(order)), base + trees.right)][order].astype(np.int32),
            features=(trees.features + trees.input_count * trees.misses_left)[order].astype(np.int32),
            thresholds=np.where(is_leaf, np.nan, trees.thresholds)[order],
            leaves=np.where(is_leaf, np.cumsum(is_leaf) - 1, 0)[order].astype(np.int32),
            strict=trees.strict,
            rounds_to_float32=trees.rounds_to_float32,
            splits=splits,
            memberships=_memberships(trees),
        )

    def reached(self, values: NDArray[np.float64]) -> NDArray[np.int32]:
        """Return the leaf of each tree that inputs (rows, inputs) reach: int32 (rows, trees).

        Rows compare at the nodes that they meet, level by level. For a single row the calls of
        NumPy take longer than what they compute: it compares at all nodes at once, which leaves one
        call a level. Which way is taken depends on the number of rows and on the trees alone.
        """
        if self.rounds_to_float32:
            values = values.astype(np.float32).astype(np.float64)
        both = np.concatenate([values, np.where(np.isnan(values), -np.inf, values)], axis=1)
        codes = None if self.splits is None else self._codes(both)
        if len(values) == 1 and len(self.right) <= _NODES_A_CALL * self.depth:
            goes_left = self._goes_left(both, codes, self.features, self.thresholds, self.splits)
            children = np.subtract(self.right, goes_left, dtype=np.intp)
            reached = np.arange(self.tree_count)[None]
            for _ in range(self.depth):
                reached = children.take(reached)
            return self.leaves.take(reached)
        first_of_row = (np.arange(len(values), dtype=np.int32) * both.shape[1])[:, None]
        nodes = np.broadcast_to(np.arange(self.tree_count, dtype=np.int32), (len(values), self.tree_count))
        for _ in range(self.depth):
            places = self.features.take(nodes)
            if len(values) > 1:
                places += first_of_row
            splits = None if self.splits is None else self.splits.take(nodes)
            goes_left = self._goes_left(both, codes, places, self.thresholds.take(nodes), splits)
            nodes = self.right.take(nodes)
            nodes -= goes_left
        return self.leaves.take(nodes)

    def _goes_left(
        self,
        values: NDArray[np.float64],
        codes: NDArray[np.intp] | None,
        places: NDArray[np.int32],
        thresholds: NDArray[np.float64],
        splits: NDArray[np.int32] | None,
    ) -> NDArray[np.bool_]:
        """Tell at which nodes rows go to the left, given what is compared there."""
        compare = np.less if self.strict else np.less_equal
        goes_left: NDArray[np.bool_] = compare(values.take(places), thresholds)
        if splits is None or codes is None:
            return goes_left
        is_member = self.memberships.take(splits * self.memberships.shape[1] + codes.take(places))
        return np.where(splits > 0, is_member, goes_left)

    def _codes(self, values: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the categories that numbers are, or for others the number of categories."""
        count = self.memberships.shape[1] - 1
        is_category = (values == np.floor(values)) & (values >= 0) & (values < count)
        return np.where(is_category, values, count).astype(np.intp)


def _levels(
    roots: NDArray[np.intp], left: NDArray[np.intp], right: NDArray[np.intp], is_leaf: NDArray[np.bool_]
) -> list[NDArray[np.intp]]:
    """Return the nodes of each level, a left child just before the right one.

    Raises:
        ValueError: there are too many levels.
    """
    levels = [roots]
    while len(inner := levels[-1][~is_leaf[levels[-1]]]):
        levels.append(np.stack([left[inner], right[inner]], axis=1).ravel())
        if len(levels) > MAX_DEPTH + 1:
            raise ValueError(f"a tree is deeper than {MAX_DEPTH} levels")
    return levels


def _memberships(trees: Trees) -> NDArray[np.bool_]:
    """Return for each split and category whether it goes to the left."""
    found = np.zeros((len(trees.category_splits) + 1, trees.category_count + 1), np.bool_)
    for number, split in enumerate(trees.category_splits, 1):
        found[number] = trees.misses_left[split.node]
        found[number, split.left] = True
        found[number, split.right] = False
    return found
