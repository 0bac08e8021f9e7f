"""LightGBM format: models that LightGBM saves as text (`.txt`).

    booster.save_model("model.txt")

Labels are 0, 1 and so on: such a file does not have those of an estimator. Source:
src/boosting/gbdt_model_text.cpp and include/LightGBM/tree.h of LightGBM 4.7.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.protocol.output import Link, Output, Task
from sealserve.steps.limits import MAX_CATEGORY
from sealserve_service.models.boosted_columns import (
    Recoding,
    codes_of,
    integer_categories,
    named_categories,
    zeros_as_missing,
)
from sealserve_service.models.boosted_trees import boosted_model
from sealserve_service.models.ensembles import EnsembleKind
from sealserve_service.models.fields import Unknown, field, number, reading, vector, whole
from sealserve_service.models.limits import (
    MAX_FEATURES,
    MAX_PARSED_VALUES,
    MAX_SCORES,
    MAX_WEIGHTS,
    check_limit,
    check_weights,
)
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.trees import MIN_ROWS, Nodes

_logger = logging.getLogger(__name__)

_KNOWN_VERSIONS = ("v2", "v3", "v4")
_FIELDS = {
    "average_output",
    "feature_infos",
    "feature_names",
    "label_index",
    "max_feature_idx",
    "monotone_constraints",
    "num_class",
    "num_tree_per_iteration",
    "objective",
    "tree_sizes",
    "version",
}
_FIELDS_OF_TREE = {
    "Tree",
    "cat_boundaries",
    "cat_threshold",
    "decision_type",
    "internal_count",
    "internal_value",
    "internal_weight",
    "is_linear",
    "leaf_coeff",
    "leaf_const",
    "leaf_count",
    "leaf_features",
    "leaf_value",
    "leaf_weight",
    "left_child",
    "num_cat",
    "num_features",
    "num_leaves",
    "right_child",
    "shrinkage",
    "split_feature",
    "split_gain",
    "threshold",
}
_LINKS = {
    "binary": (Task.CLASSIFICATION, Link.LOGISTIC),
    "multiclass": (Task.CLASSIFICATION, Link.SOFTMAX),
    "multiclassova": (Task.CLASSIFICATION, Link.NONE),  # its probabilities do not add up to 1
    **dict.fromkeys(
        ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg"),
        (Task.REGRESSION, Link.NONE),
    ),
    **dict.fromkeys(("poisson", "gamma", "tweedie"), (Task.REGRESSION, Link.LOG)),
}
_LIBRARY = EnsembleKind(
    "LightGBM",
    remedy=f"fit it with min_child_samples={MIN_ROWS} or more",
    fewer_cuts="fit it with a smaller max_bin or a greater min_data_in_bin",
)
_MISSING_ZERO, _MISSING_NAN = 1, 2
_NEAREST_TO_ZERO = 1.0000000180025095e-35  # kZeroThreshold, a float32

_Fields = dict[str, str]


def read_model(content: bytes, path: Path) -> LinearModel:
    """Return the model in a file of text, the content of the file at the path.

    Raises:
        ModelFileError: the file is damaged, or holds what is not served; the text says what.
        ModelTooLargeError: the file or the model passes a limit.
    """
    with reading(path, "a LightGBM model"):
        return ensemble(content).model.with_front()


class Ensemble(NamedTuple):
    """The model in a text.

    Attributes:
        model: the model.
        factor: what LightGBM's raw scores, which are sums, are multiplied by.
    """

    model: LinearModel
    factor: float


def ensemble(content: bytes) -> Ensemble:
    """Return the model in a text.

    Raises:
        ModelTooLargeError: it passes a limit.
        ValueError: it is not one that can be served; the text says why.
    """
    check_limit("words in text", MAX_PARSED_VALUES, content.count(b" ") + content.count(b"\n"))
    header, trees, after = _parts(content.decode())
    version = field(header, "version")
    unknown = Unknown(f"LightGBM in the format {version}")
    unknown.members(header, "head", _FIELDS)
    for tree in trees:
        unknown.members(tree, "tree", _FIELDS_OF_TREE)
    unknown.check()
    if version not in _KNOWN_VERSIONS:
        _logger.warning("a model of LightGBM has the format %s, which is newer than those that were tested", version)
    column_count = whole(field(header, "max_feature_idx"), "max_feature_idx", -1, MAX_FEATURES - 1) + 1
    names = tuple(field(header, "feature_names").split(" "))
    if len(names) != column_count:
        raise ValueError(f"{len(names)} feature_names for {column_count} features")
    output, factor = _output(header)
    scores = output.score_count
    if not trees or len(trees) % scores:
        raise ValueError(f"{len(trees)} trees are not as many for each of {scores} scores")
    if "average_output" in header:
        factor /= len(trees) // scores
    forest = _Forest(scores, factor)
    for index, tree in enumerate(trees):
        forest.add(tree, index % scores)
    nodes, recodings = forest.nodes(_named(header, after, column_count))
    return Ensemble(boosted_model(_LIBRARY, nodes, np.zeros(scores), output, names, recodings), factor)


def _parts(text: str) -> tuple[_Fields, list[_Fields], str]:
    """Return the fields of the head and of each tree, and what follows the trees."""
    before, end, after = text.partition("\nend of trees")
    lines = before.replace("\r", "").split("\n")
    if lines[0] != "tree" or not end:
        raise ValueError("it does not begin with 'tree', or lacks 'end of trees': save it with save_model")
    blocks = [_Fields()]
    for line in lines[1:]:
        name, _, value = line.partition("=")
        if name == "Tree":
            blocks.append({})
        if name in blocks[-1]:
            raise ValueError(f"the field {name} occurs twice")
        if name:
            blocks[-1][name] = value
    return blocks[0], blocks[1:], after


def _output(header: _Fields) -> tuple[Output, float]:
    """Return what the scores mean, and what their values are multiplied by."""
    name, *options = header.get("objective", "regression").split(" ")  # a custom one predicts scores
    if name not in _LINKS or "sqrt" in options:
        what = " ".join([name, *options])
        raise ValueError(f"the objective {what!r} is not served; fit it with one of {', '.join(_LINKS)}")
    values = dict(option.split(":", 1) for option in options if ":" in option)
    count = whole(field(header, "num_tree_per_iteration"), "num_tree_per_iteration", 1, MAX_SCORES)
    task, link = _LINKS[name]
    if task is Task.REGRESSION:
        return Output(task, count, link=link, scalar_target=count == 1), 1.0
    if whole(field(header, "num_class"), "num_class", 1, MAX_SCORES) != count or (count == 1) != (name == "binary"):
        raise ValueError("num_class is not that of its objective and its trees")
    labels = tuple(range(max(2, count)))
    factor = number(values.get("sigmoid", "1"), "sigmoid") if name == "binary" else 1.0
    if factor <= 0:
        raise ValueError("sigmoid is not above 0")
    return Output(task, count, labels, link, has_no_decision_function=True), factor


def _named(header: _Fields, after: str, count: int) -> dict[int, list[Any]]:
    """Return the names of the categories of a DataFrame's columns, by column.

    Raises:
        ValueError: it cannot be told which columns they belong to.
    """
    marker = "\npandas_categorical:"
    lists = json.loads(after.rpartition(marker)[2].split("\n")[0]) if marker in after else None
    if not lists:
        return {}
    infos = field(header, "feature_infos").split(" ")
    columns = [column for column, info in enumerate(infos) if not info.startswith("[") and info != "none"]
    if not isinstance(lists, list) or not all(isinstance(names, list) for names in lists) or len(infos) != count:
        raise ValueError("pandas_categorical or feature_infos are not lists for its columns")
    if len(columns) != len(lists):
        raise ValueError(
            "which columns have the categories of pandas_categorical is not known, since constant columns have none: "
            "leave out constant columns, and fit it again"
        )
    return dict(zip(columns, lists, strict=True))


class _Forest:
    """The nodes of trees, as they are read one after the other."""

    def __init__(self, score_count: int, factor: float) -> None:
        self._score_count = score_count
        self._factor = factor
        self._parts = list[tuple[NDArray[Any], ...]]()
        self._roots = list[int]()
        self._sets = dict[int, tuple[int, NDArray[np.intp]]]()  # node -> column, categories that go to the left
        self._category_count = self._count = 0

    def add(self, tree: _Fields, score: int) -> None:
        """Add a tree, whose values count for a score."""
        leaf_count = whole(field(tree, "num_leaves"), "num_leaves", 1)
        if tree.get("is_linear", "0") != "0":
            raise ValueError("its leaves are linear models: fit it without linear_tree")
        inner = leaf_count - 1
        with np.errstate(over="ignore"):  # what is not finite is refused later
            values = _floats(tree, "leaf_value", leaf_count) * self._factor
        check_weights(self._score_count, self._count + inner + leaf_count)
        children = []
        for name in ("left_child", "right_child"):
            child = _integers(tree, name, inner)
            if ((child >= inner) | (~child >= leaf_count)).any():
                raise ValueError(f"{name} names a node that there is not")
            children.append(np.where(child < 0, inner + ~child, child) + self._count)
        features, kinds = _integers(tree, "split_feature", inner), _integers(tree, "decision_type", inner)
        thresholds, missing = _floats(tree, "threshold", inner, is_finite=False), kinds >> 2
        if ((kinds < 0) | (missing > _MISSING_NAN)).any():
            raise ValueError("a decision_type is unknown: save it with an older version of LightGBM")
        self._add_sets(tree, np.flatnonzero(kinds & 1), features, thresholds)
        counts = _floats(tree, "leaf_count", leaf_count) if "leaf_count" in tree else np.full(leaf_count, np.nan)
        none = np.full(leaf_count, -1)
        self._roots.append(self._count)
        self._parts.append(
            (
                np.append(children[0], none),
                np.append(children[1], none),
                np.append(features, none),
                np.append(_as_compared(thresholds), np.zeros(leaf_count)),
                # What is missing counts as 0 at a node that does not know it.
                np.append(np.where(missing == 0, thresholds >= 0, (kinds & 2) > 0), none > 0),
                np.append(np.zeros(inner), values),
                np.full(inner + leaf_count, score),
                np.append(np.full(inner, counts.sum()), counts),
                np.append(np.where(kinds & 1, -1, missing), none),
            )
        )
        self._count += inner + leaf_count

    def _add_sets(
        self, tree: _Fields, nodes: NDArray[np.intp], features: NDArray[np.intp], thresholds: NDArray[np.float64]
    ) -> None:
        """Add the nodes that test whether a category is one of a set: those go to the left."""
        if not len(nodes):
            return
        count = whole(field(tree, "num_cat"), "num_cat")
        ends = _integers(tree, "cat_boundaries", count + 1)
        words = _integers(tree, "cat_threshold")
        if ends[0] or (np.diff(ends) < 0).any() or ends[-1] != len(words) or (words >> 32 != 0).any():
            raise ValueError("cat_boundaries are not those of cat_threshold")
        for node in nodes.tolist():
            index = thresholds[node]
            if not 0 <= index < count:
                raise ValueError("a node has a set of categories that there is not")
            of_node = words[ends[int(index)] : ends[int(index) + 1]]
            check_limit("categories of a node", MAX_CATEGORY, 32 * len(of_node))
            categories = np.flatnonzero(np.unpackbits(of_node.astype("<u4").view(np.uint8), bitorder="little"))
            self._category_count += len(categories)
            check_limit("categories of nodes", MAX_WEIGHTS, self._category_count)
            self._sets[self._count + node] = int(features[node]), categories

    def nodes(self, named: dict[int, list[Any]]) -> tuple[Nodes, list[Recoding]]:
        """Return the nodes, and what becomes of columns before they are compared."""
        left, right, features, thresholds, misses_left, leaves, scores, counts, missing = map(
            np.concatenate, zip(*self._parts, strict=True)
        )
        values = np.zeros((self._count, self._score_count))
        values[np.arange(self._count), scores] = leaves
        greatest = dict[int, int]()
        for column, categories in self._sets.values():
            greatest[column] = max(greatest.get(column, 0), int(categories.max(initial=0)))
        plain = {column: greatest[column] for column in sorted(greatest.keys() - named.keys())}
        compared = (left >= 0) & (missing >= 0)
        zeros = np.unique(features[compared & (missing == _MISSING_ZERO)])
        recoded = [*greatest, *named]
        if np.isin(features[compared], recoded).any() or np.isin(features[compared & (missing != 1)], zeros).any():
            raise ValueError("nodes disagree on what a column is: on its categories, or on its missing values")
        recodings = list(_recodings(plain, named, zeros))
        sides = {node: (codes_of(found), np.empty(0, np.intp)) for node, (_, found) in self._sets.items()}
        misses_left[list(sides)] = False
        row_counts = None if np.isnan(counts).any() else counts
        nodes = Nodes(np.array(self._roots), left, right, features, thresholds, misses_left, values, row_counts, sides)
        return nodes, recodings


def _recodings(plain: dict[int, int], named: dict[int, list[Any]], zeros: NDArray[np.intp]) -> Iterator[Recoding]:
    if plain:
        yield integer_categories(plain, rounds_to_float32=False)
    if named:
        yield named_categories(named, refuses_unknown=False)
    if len(zeros):
        yield zeros_as_missing(zeros, _NEAREST_TO_ZERO)


def _floats(tree: _Fields, name: str, count: int | None, *, is_finite: bool = True) -> NDArray[np.float64]:
    """Return the numbers of a field. No object is made of each: a word of 2 bytes would take 60."""
    words, found = field(tree, name), np.empty(0)
    if words.strip():
        try:
            with warnings.catch_warnings(action="error", category=DeprecationWarning):
                found = np.fromstring(words, np.float64, sep=" ")
        except (DeprecationWarning, ValueError):
            raise ValueError(f"{name} has a word that is no number") from None
    return vector(found, name, count=count, is_finite=is_finite)


def _integers(tree: _Fields, name: str, count: int | None = None) -> NDArray[np.intp]:
    found = _floats(tree, name, count)
    if (found != np.rint(found)).any() or (np.abs(found) > 2.0**32).any():
        raise ValueError(f"{name} has a value that is no integer of 32 bits")
    return found.astype(np.intp)


def _as_compared(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the thresholds for numbers as they are, of which those next to 0 count as 0."""
    found = np.where((thresholds >= 0) & (thresholds < _NEAREST_TO_ZERO), _NEAREST_TO_ZERO, thresholds)
    is_below = (thresholds < 0) & (thresholds >= -_NEAREST_TO_ZERO)
    return np.where(is_below, np.nextafter(-_NEAREST_TO_ZERO, -1.0), found)
