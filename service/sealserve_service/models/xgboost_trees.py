"""XGBoost's trees: how its files write nodes, columns and sets of categories."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve_service.models.boosted_columns import (
    Recoding,
    codes_of,
    integer_categories,
    missing_code,
    named_categories,
)
from sealserve_service.models.fields import Unknown, field, integers, listed, members, texts, vector, whole
from sealserve_service.models.limits import MAX_WEIGHTS, check_limit, check_weights
from sealserve_service.models.trees import Indices, Nodes

FIELDS_OF_TREE = {
    "base_weights",
    "categories",
    "categories_nodes",
    "categories_segments",
    "categories_sizes",
    "default_left",
    "id",
    "leaf_weights",
    "left_children",
    "loss_changes",
    "parents",
    "right_children",
    "split_conditions",
    "split_indices",
    "split_type",
    "sum_hessian",
    "tree_param",
}
_FIELDS_OF_TREE_PARAM = {"num_deleted", "num_feature", "num_nodes", "num_roots", "size_leaf_vector"}
SEVERAL_VALUES = "its leaves have several values: fit it with multi_strategy='one_output_per_tree'"


@dataclass(frozen=True)
class Columns:
    """The columns of an ensemble.

    Attributes:
        names: of the columns.
        categories: the names of a column's categories, by column, where the file has them.
    """

    names: tuple[str, ...]
    categories: dict[int, list[Any]]

    @classmethod
    def of(cls, learner: dict[str, Any], model: dict[str, Any], count: int) -> "Columns":
        """Return the columns of a learner and its ensemble."""
        names = texts(learner, "feature_names") if learner.get("feature_names") else ()
        if names and len(names) != count:
            raise ValueError(f"{len(names)} feature_names for {count} features")
        found = listed(members(model.get("cats", {"enc": []}), "cats"), "enc")
        if found and len(found) != count:
            raise ValueError(f"cats has {len(found)} columns instead of {count}")
        categories = {column: _names_of(members(value, "cats.enc")) for column, value in enumerate(found)}
        return cls(
            names or tuple(f"x{column}" for column in range(count)),
            {column: named for column, named in categories.items() if named},
        )


def _names_of(encoded: dict[str, Any]) -> list[Any]:
    """Return the names of a column's categories, numbers or texts; empty if it has none."""
    if "offsets" not in encoded:
        numbers: list[float] = vector(field(encoded, "values"), "cats.enc.values").tolist()
        return numbers
    ends = integers(encoded["offsets"], "cats.enc.offsets")
    characters = integers(field(encoded, "values"), "cats.enc.values")
    if (np.diff(ends) < 0).any() or (len(ends) and (ends[0] < 0 or ends[-1] > len(characters))):
        raise ValueError("cats.enc.offsets are not those of its values")
    if ((characters < 0) | (characters > 127)).any():  # their ends count characters, and not bytes
        raise ValueError("XGBoost cuts names of categories that are not ASCII: rename them, and fit it again")
    joined = characters.astype(np.uint8).tobytes()
    return [joined[start:stop].decode() for start, stop in pairwise(ends.tolist())]


class _Set(NamedTuple):
    """The test of a node without a threshold: whether a category is one of a set."""

    column: int
    categories: Indices
    misses_left: bool


class Forest:
    """The nodes of trees, as they are read one after the other."""

    def __init__(self, score_count: int) -> None:
        self._score_count = score_count
        self._parts = list[tuple[NDArray[Any], ...]]()
        self._roots = list[int]()
        self._sets = dict[int, _Set]()
        self._count = 0

    def add(self, tree: dict[str, Any], unknown: Unknown, score: int, weight: float) -> None:
        """Add a tree, whose values count for a score, times a weight."""
        parameters = unknown.members(field(tree, "tree_param"), "tree_param", _FIELDS_OF_TREE_PARAM)
        if whole(parameters.get("size_leaf_vector", "1"), "size_leaf_vector") > 1 or len(tree.get("leaf_weights", ())):
            raise ValueError(SEVERAL_VALUES)
        if not 0 <= score < self._score_count:
            raise ValueError("tree_info names a score that there is not")
        left = integers(field(tree, "left_children"), "left_children")
        count = len(left)
        if not count or whole(field(parameters, "num_nodes"), "num_nodes") != count:
            raise ValueError("num_nodes is not the number of left_children")
        right = integers(field(tree, "right_children"), "right_children", count=count)
        if (left >= count).any() or (right >= count).any() or ((left < 0) != (right < 0)).any():
            raise ValueError("a node has one child, or a child that is not in its tree")
        check_weights(self._score_count, self._count + count)
        conditions = vector(field(tree, "split_conditions"), "split_conditions", count=count, is_finite=False)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused later
            conditions = conditions.astype(np.float32).astype(np.float64)
            values = conditions * weight
        features = integers(field(tree, "split_indices"), "split_indices", count=count)
        misses_left = integers(field(tree, "default_left"), "default_left", count=count) != 0
        self._add_sets(tree, features, misses_left, left < 0)
        self._roots.append(self._count)
        self._parts.append(
            (
                np.where(left < 0, -1, left + self._count),
                np.where(left < 0, -1, right + self._count),
                features,
                np.where(left < 0, 0.0, conditions),
                misses_left,
                np.where(left < 0, values, 0.0),
                np.full(count, score),
                vector(field(tree, "sum_hessian"), "sum_hessian", count=count),
            )
        )
        self._count += count

    def _add_sets(
        self,
        tree: dict[str, Any],
        features: Indices,
        misses_left: NDArray[np.bool_],
        is_leaf: NDArray[np.bool_],
    ) -> None:
        """Add the nodes that test whether a category is one of a set."""
        kinds = np.zeros(len(features), np.intp)
        if "split_type" in tree:
            kinds = integers(tree["split_type"], "split_type", count=len(features))
        nodes = integers(tree.get("categories_nodes", []), "categories_nodes")
        if not np.array_equal(nodes, np.flatnonzero((kinds != 0) & ~is_leaf)) or (kinds > 1).any():
            raise ValueError("categories_nodes are not the nodes whose split_type is 1")
        if not len(nodes):
            return
        categories = integers(field(tree, "categories"), "categories")
        starts = integers(field(tree, "categories_segments"), "categories_segments", count=len(nodes))
        sizes = integers(field(tree, "categories_sizes"), "categories_sizes", count=len(nodes))
        if (starts < 0).any() or (sizes < 0).any() or (starts + sizes > len(categories)).any():
            raise ValueError("categories_segments are not those of categories")
        check_limit("categories of nodes", MAX_WEIGHTS, int(sizes.sum()))
        for node, start, size in zip(nodes.tolist(), starts.tolist(), sizes.tolist(), strict=True):
            of_node = np.unique(categories[start : start + size])
            codes_of(of_node)
            self._sets[self._count + node] = _Set(int(features[node]), of_node, bool(misses_left[node]))

    def nodes(self, columns: Columns, hessian: float) -> tuple[Nodes, list[Recoding]]:
        """Return the nodes, and what becomes of columns of categories before they are compared.

        Args:
            columns: of the ensemble.
            hessian: the greatest Hessian of a row.
        """
        if not self._parts:
            raise ValueError("it has no tree")
        left, right, features, thresholds, misses_left, leaves, scores, cover = map(
            np.concatenate, zip(*self._parts, strict=True)
        )
        values = np.zeros((self._count, self._score_count))
        values[np.arange(self._count), scores] = leaves
        greatest = self._greatest(columns)
        is_compared = left >= 0
        is_compared[list(self._sets)] = False
        misses_left[list(self._sets)] = True  # and so does what is no category
        if np.isin(features[is_compared], list(greatest)).any():
            raise ValueError("a column is compared both with thresholds and with categories")
        nodes = Nodes(
            np.array(self._roots),
            left,
            right,
            features,
            thresholds,
            misses_left,
            values,
            None if np.isinf(hessian) else cover / hessian,
            dict(self._sides(greatest)),
        )
        plain = {column: most for column, most in greatest.items() if column not in columns.categories}
        recodings = [integer_categories(plain, rounds_to_float32=True)] if plain else []
        if columns.categories:
            recodings.append(named_categories(columns.categories, refuses_unknown=True))
        return nodes, recodings

    def _greatest(self, columns: Columns) -> dict[int, int]:
        """Return the greatest category of each column of categories."""
        found = {column: len(named) - 1 for column, named in columns.categories.items()}
        for column, categories, _ in self._sets.values():
            most = int(categories.max(initial=0))
            if column in columns.categories and most > found[column]:
                raise ValueError("a node names a category that its column does not have")
            found[column] = max(found.get(column, 0), most)
        return dict(sorted(found.items()))

    def _sides(self, greatest: dict[int, int]) -> Iterator[tuple[int, tuple[Indices, Indices]]]:
        """Yield each node without a threshold: the categories of its set go to the right."""
        for node, (column, categories, misses_left) in self._sets.items():
            codes = codes_of(categories)
            if not misses_left:
                codes = np.append(codes, missing_code(greatest[column]))
            yield node, (np.empty(0, np.intp), codes)
