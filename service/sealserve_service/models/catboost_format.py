"""CatBoost format: symmetric trees that CatBoost saves as JSON (`.json`).

    model.save_model("model.json", format="json")

All nodes of a level compare the same column with the same cut point. Source:
catboost/libs/model/model_export/json_model_helpers.cpp of CatBoost 1.2.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.protocol.output import Label, Link, Output, Task
from sealserve_service.models.boosted_columns import Recoding, codes_of, named_categories
from sealserve_service.models.boosted_trees import boosted_model
from sealserve_service.models.ensembles import EnsembleKind
from sealserve_service.models.fields import Unknown, field, listed, members, number, text, vector, whole
from sealserve_service.models.limits import MAX_FEATURES, MAX_SCORES, check_limit, check_weights
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.trees import Nodes

_MAX_DEPTH = 16
_FIELDS = {
    "model": {"ctr_data", "features_info", "model_info", "oblivious_trees", "scale_and_bias", "trees"},
    "features_info": {
        "cat_features_hash",
        "categorical_features",
        "ctrs",
        "embedding_features",
        "float_features",
        "text_features",
        "text_processing_collection",
    },
    "float_features": {
        "borders",
        "feature_id",
        "feature_index",
        "feature_name",
        "flat_feature_index",
        "has_nans",
        "nan_value_treatment",
    },
    "categorical_features": {"feature_id", "feature_index", "feature_name", "flat_feature_index", "values"},
    "tree": {"leaf_values", "leaf_weights", "splits"},
    "split": {"border", "cat_feature_index", "float_feature_index", "split_index", "split_type", "value"},
}
_LINKS = {
    "Logloss": (Task.CLASSIFICATION, Link.LOGISTIC),
    "CrossEntropy": (Task.CLASSIFICATION, Link.LOGISTIC),
    "MultiClass": (Task.CLASSIFICATION, Link.SOFTMAX),
    "MultiClassOneVsAll": (Task.CLASSIFICATION, Link.NONE),  # its probabilities do not add up to 1
    **dict.fromkeys(
        (
            "RMSE",
            "MAE",
            "MAPE",
            "Quantile",
            "MultiQuantile",
            "MultiRMSE",
            "Expectile",
            "Huber",
            "LogCosh",
            "Lq",
            "PairLogit",
            "PairLogitPairwise",
            "QueryRMSE",
            "QuerySoftMax",
            "YetiRank",
            "YetiRankPairwise",
        ),
        (Task.REGRESSION, Link.NONE),
    ),
    "Poisson": (Task.REGRESSION, Link.LOG),
    "Tweedie": (Task.REGRESSION, Link.LOG),
}
_LABELS: dict[str, type] = {"Integer": int, "Float": float, "String": str, "Boolean": bool}
_LIBRARY = EnsembleKind(
    "CatBoost",
    rounds_to_float32=True,
    leaves_have_rows=False,  # a level splits all rows: many leaves have none
    remedy="fit it without weights of rows",
    fewer_cuts="fit it with a smaller border_count",
)
_CATEGORIES = (
    "save it with its categories, by save_model('model.json', format='json', pool=Pool(X, y, cat_features=...)), and "
    "serve that file"
)


def ensemble(parsed: Any) -> LinearModel:
    """Return the model in a parsed file.

    Raises:
        ModelTooLargeError: it passes a limit.
        ValueError: it is not one that can be served; the text says why.
    """
    info = members(field(members(parsed, "the file"), "model_info"), "model_info")
    release = re.search(r"release ([\w.]+\w)", str(info.get("catboost_version_info", "")))
    unknown = Unknown(f"CatBoost {release[1] if release else 'of an unknown version'}")
    whole_file = unknown.members(parsed, "model", _FIELDS["model"])
    if "trees" in whole_file:
        raise ValueError("its trees are not symmetric: fit it with grow_policy='SymmetricTree'")
    features = unknown.members(field(whole_file, "features_info"), "features_info", _FIELDS["features_info"])
    if features.get("text_features") or features.get("embedding_features"):
        raise ValueError("it has features of texts or embeddings: compute numbers of them in a step before it")
    columns = _Columns(features, unknown)
    trees = [unknown.members(tree, "tree", _FIELDS["tree"]) for tree in listed(whole_file, "oblivious_trees")]
    scale, bias = _scale_and_bias(listed(whole_file, "scale_and_bias"))
    forest = _Forest(columns, len(bias))
    for tree in trees:
        forest.add(tree, scale, unknown)
    unknown.check()
    output = _output(info, len(bias))
    return boosted_model(_LIBRARY, forest.nodes(), bias, output, columns.names, list(columns.recodings()))


def _scale_and_bias(values: list[Any]) -> tuple[float, NDArray[np.float64]]:
    if len(values) != 2:
        raise ValueError("scale_and_bias is no pair")
    bias = vector(values[1] if isinstance(values[1], list) else [values[1]], "the bias")
    check_limit("scores", MAX_SCORES, len(bias))
    if not len(bias):
        raise ValueError("there is no bias, and so no score")
    return number(values[0], "the scale"), bias


def _output(info: dict[str, Any], count: int) -> Output:
    parameters = members(field(info, "params"), "params")
    loss = text(members(field(parameters, "loss_function"), "loss_function"), "type")
    if loss not in _LINKS:
        raise ValueError(f"the loss_function {loss!r} is not served; fit it with one of {', '.join(_LINKS)}")
    task, link = _LINKS[loss]
    if task is Task.REGRESSION:
        return Output(task, count, link=link, scalar_target=count == 1)
    if number(info.get("binclass_probability_threshold", 0.5), "binclass_probability_threshold") != 0.5:
        raise ValueError("labels are those above a probability of its own: set binclass_probability_threshold to 0.5")
    if (count == 1) != (link is Link.LOGISTIC):
        raise ValueError(f"{count} scores are not those of its loss_function {loss!r}")
    labels = _labels(members(info.get("class_params", {}), "class_params"), max(2, count))
    return Output(task, count, labels, link, has_no_decision_function=True)


def _labels(parameters: dict[str, Any], count: int) -> tuple[Label, ...]:
    if not parameters.get("class_names"):
        return tuple(range(count))
    kind = _LABELS.get(text(parameters, "class_label_type"))
    labels = listed(parameters, "class_names")
    if kind is None or not all(isinstance(label, bool | int | float | str) for label in labels):
        raise ValueError("class_label_type is unknown, or class_names are no labels")
    return tuple(kind(label) for label in labels)


class _Columns:
    """The columns: their names, what is missing in them, and the categories that splits name."""

    def __init__(self, features: dict[str, Any], unknown: Unknown) -> None:
        found = dict[int, str]()
        self._numbers, self._misses_left = list[int](), list[bool]()
        self._categories = dict[int, dict[int, str]]()  # column -> hash -> name, of the splits
        self._of_category = list[int]()
        for feature in listed(features, "float_features"):
            fields = unknown.members(feature, "float_features", _FIELDS["float_features"])
            self._numbers.append(_add_name(found, fields))
            treatment = text(fields, "nan_value_treatment")
            if treatment not in ("AsIs", "AsFalse", "AsTrue"):
                raise ValueError(f"nan_value_treatment is {treatment!r}, which is unknown")
            self._misses_left.append(treatment != "AsTrue")
        for feature in features.get("categorical_features") or ():
            fields = unknown.members(feature, "categorical_features", _FIELDS["categorical_features"])
            self._of_category.append(_add_name(found, fields))
            self._categories[self._of_category[-1]] = {}
        if sorted(found) != list(range(len(found))):
            raise ValueError("flat_feature_index does not number the columns")
        self.names = tuple(found[column] for column in range(len(found)))
        self._hashes = dict[int, str]()
        for entry in features.get("cat_features_hash") or ():
            fields = members(entry, "cat_features_hash")
            code, name = whole(field(fields, "hash"), "hash", -(2**31), 2**32 - 1) % 2**32, text(fields, "value")
            if self._hashes.setdefault(code, name) != name:
                raise ValueError("two categories have the same hash: rename one, and fit it again")

    def number(self, split: dict[str, Any]) -> tuple[int, bool]:
        """Return the column that a split compares, and whether what is missing goes to the left."""
        index = whole(field(split, "float_feature_index"), "float_feature_index", 0, len(self._numbers) - 1)
        return self._numbers[index], self._misses_left[index]

    def category(self, split: dict[str, Any]) -> tuple[int, NDArray[np.intp]]:
        """Return the column that a split compares, and the code of the category that it names."""
        index = whole(field(split, "cat_feature_index"), "cat_feature_index", 0, len(self._of_category) - 1)
        column = self._of_category[index]
        code = whole(field(split, "value"), "value", -(2**31), 2**32 - 1) % 2**32
        if code not in self._hashes:
            raise ValueError(f"it does not have the names of its categories: {_CATEGORIES}")
        known = self._categories[column]
        known.setdefault(code, self._hashes[code])
        return column, codes_of([list(known).index(code)])

    def recodings(self) -> Iterator[Recoding]:
        """Yield what becomes of columns of categories."""
        if self._categories:
            # A column that no split names is of texts, too.
            named = {column: list(known.values()) or [""] for column, known in self._categories.items()}
            yield named_categories(named, refuses_unknown=False, refuses_missing=True)


def _add_name(names: dict[int, str], feature: dict[str, Any]) -> int:
    """Add a column's name, and return its number."""
    column = whole(field(feature, "flat_feature_index"), "flat_feature_index", 0, MAX_FEATURES - 1)
    name = feature.get("feature_name") or feature.get("feature_id") or f"x{column}"
    if column in names or not isinstance(name, str):
        raise ValueError("two columns have the same flat_feature_index, or one has no name")
    names[column] = name
    return column


class _Forest:
    """The nodes of trees, as they are read one after the other."""

    def __init__(self, columns: _Columns, score_count: int) -> None:
        self._columns = columns
        self._score_count = score_count
        self._parts = list[tuple[NDArray[Any], ...]]()
        self._sides = dict[int, tuple[NDArray[np.intp], NDArray[np.intp]]]()
        self._roots = list[int]()
        self._count = 0

    def add(self, tree: dict[str, Any], scale: float, unknown: Unknown) -> None:
        """Add a tree. A level has twice as many nodes as that above it, which lie side by side."""
        splits = listed(tree, "splits")
        if len(splits) > _MAX_DEPTH:
            raise ValueError(f"a tree is deeper than {_MAX_DEPTH} levels")
        leaf_count = 1 << len(splits)
        count = 2 * leaf_count - 1
        values = vector(field(tree, "leaf_values"), "leaf_values", count=leaf_count * self._score_count)
        with np.errstate(over="ignore"):  # what is not finite is refused later
            values = (scale * values).reshape(leaf_count, -1)
        check_weights(self._score_count, self._count + count)
        features, thresholds = np.zeros(count, np.intp), np.zeros(count)
        misses_left = np.zeros(count, np.bool_)
        for level, split in enumerate(splits):
            nodes = slice((1 << level) - 1, (2 << level) - 1)
            fields = members(split, "a split")
            kind = text(fields, "split_type")
            if kind == "FloatFeature":
                features[nodes], misses_left[nodes] = self._columns.number(fields)
                thresholds[nodes] = np.float32(number(field(fields, "border"), "border"))
            elif kind == "OneHotFeature":
                features[nodes], codes = self._columns.category(fields)
                misses_left[nodes] = True  # and so does what is no category
                for place in range(nodes.start, nodes.stop):
                    self._sides[self._count + place] = np.empty(0, np.intp), codes
            else:
                raise ValueError(
                    f"it has splits of the type {kind!r}, which compare statistics of labels by category: fit it with "
                    "one_hot_max_size of at least the number of categories, or put a OneHotEncoder before it"
                )
            unknown.members(fields, "split", _FIELDS["split"])
        inner, node = leaf_count - 1, np.arange(count)
        is_leaf = node >= inner
        # The values begin with the leaf that is left of all splits, and the first split counts 1.
        order = _reversed_bits(len(splits))
        self._roots.append(self._count)
        self._parts.append(
            (
                np.where(is_leaf, -1, self._count + 2 * node + 1),
                np.where(is_leaf, -1, self._count + 2 * node + 2),
                features,
                thresholds,
                misses_left,
                np.vstack([np.zeros((inner, self._score_count)), values[order]]),
                self._row_counts(tree, inner, order),
            )
        )
        self._count += count

    @staticmethod
    def _row_counts(tree: dict[str, Any], inner: int, order: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the rows of each node; NaN if the weights of leaves are no counts."""
        weights = vector(tree.get("leaf_weights", []), "leaf_weights")
        if len(weights) != len(order) or (weights != np.rint(weights)).any():
            return np.full(inner + len(order), np.nan)
        return np.append(np.full(inner, weights.sum()), weights[order])

    def nodes(self) -> Nodes:
        """Return the nodes."""
        if not self._parts:
            raise ValueError("it has no tree")
        left, right, features, thresholds, misses_left, values, counts = map(
            np.concatenate, zip(*self._parts, strict=True)
        )
        row_counts = None if np.isnan(counts).any() else counts
        return Nodes(
            np.array(self._roots), left, right, features, thresholds, misses_left, values, row_counts, self._sides
        )


def _reversed_bits(count: int) -> NDArray[np.intp]:
    """Return the numbers below 2^count with their bits in the reverse order."""
    found = np.zeros(1, np.intp)
    for _ in range(count):
        found = np.concatenate([2 * found, 2 * found + 1])
    return found
