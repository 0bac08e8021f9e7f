"""Transformers: fitted scikit-learn transformers -> steps.

What changes no value, and what only chooses columns, is here. `affine_steps` has all others.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.feature_selection import (
    RFE,
    RFECV,
    GenericUnivariateSelect,
    SelectFdr,
    SelectFpr,
    SelectFromModel,
    SelectFwe,
    SelectKBest,
    SelectPercentile,
    SequentialFeatureSelector,
    VarianceThreshold,
)
from sklearn.frozen import FrozenEstimator
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.kernel_approximation import Nystroem
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, TargetEncoder
from sklearn.utils.validation import check_is_fitted

from sealserve_service.models.affine import Affine
from sealserve_service.models.affine_steps import AFFINE_STEPS
from sealserve_service.models.arrays import filled, fitted_width
from sealserve_service.models.estimators import feature_names
from sealserve_service.models.limits import MAX_FEATURES, check_limit
from sealserve_service.models.naming import errors_naming, joined, listed, name_of, rule_for
from sealserve_service.models.open_steps import LEFT_TO_THE_APPLICATION, OPEN_STEPS, clipped_scaler
from sealserve_service.models.pipeline_steps import Branch, Branches, Node, Step

SELECTORS = (
    GenericUnivariateSelect,
    RFE,
    RFECV,
    SelectFdr,
    SelectFpr,
    SelectFromModel,
    SelectFwe,
    SelectKBest,
    SelectPercentile,
    SequentialFeatureSelector,
    VarianceThreshold,
)


def steps_of(transformer: Any, path: str) -> Iterator[Node]:
    """Yield the steps of a transformer, which `path` names in the whole model.

    Raises:
        ModelTooLargeError: something in it passes a limit.
        UnsupportedModelError: something in it is not affine, fitted or finite; the text names it.
    """
    if is_nothing(transformer):
        return
    name = name_of(transformer, path)
    rule = rule_for(STEP_RULES | REFUSED_STEPS, transformer, name, SUPPORTED_STEPS)
    with errors_naming(name):
        check_is_fitted(transformer)
        yield from rule(transformer, path)


def transformed(transformer: Any, rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return what scikit-learn itself computes of rows (rows, features) without names."""
    if is_nothing(transformer):
        return rows
    kind = type(transformer)
    if kind is FrozenEstimator:
        return transformed(transformer.estimator, rows)
    if kind is Pipeline:
        for _, step in transformer.steps:
            rows = transformed(step, rows)
        return rows
    if kind in (ColumnTransformer, FeatureUnion):
        parts = [
            transformed(member, rows[:, columns]) * weight
            for _, member, columns, weight in _members(transformer, rows.shape[1])
        ]
        return np.hstack([np.empty((len(rows), 0)), *parts])
    return filled(transformer.transform(_as_fitted(transformer, rows)))


def _as_fitted(transformer: Any, rows: NDArray[Any]) -> Any:
    """Return rows as a transformer was fitted with them: missing texts may be None or NaN."""
    if isinstance(transformer, CountVectorizer | HashingVectorizer):
        return rows[:, 0] if rows.ndim == 2 else rows
    if rows.dtype != object:
        return rows
    rows = rows.copy()
    is_missing = rows == None  # noqa: E711
    if isinstance(transformer, OneHotEncoder | OrdinalEncoder):
        for position, categories in enumerate(transformer.categories_):
            missing = None if any(category is None for category in categories.tolist()) else np.nan
            rows[is_missing[:, position], position] = missing
        return rows
    if isinstance(transformer, SimpleImputer) and any(isinstance(fill, str) for fill in transformer.statistics_):
        rows[is_missing] = transformer.missing_values
        return rows
    return rows.astype(np.float64)


def is_nothing(transformer: Any) -> bool:
    """Whether a step lets all values through as they are."""
    if transformer is None or (isinstance(transformer, str) and transformer == "passthrough"):
        return True
    return type(transformer) is FunctionTransformer and transformer.func is None


def _pipeline(pipeline: Pipeline, path: str) -> Iterator[Node]:
    for name, step in pipeline.steps:
        yield from steps_of(step, joined(path, name))


def _frozen(frozen: FrozenEstimator, path: str) -> Iterator[Node]:
    yield from steps_of(frozen.estimator, joined(path, "estimator"))


def _affine(transformer: Any, path: str) -> Iterator[Node]:
    name = name_of(transformer, path)
    if getattr(transformer, "clip", False):
        yield clipped_scaler(transformer, name)
        return
    yield Step(name, AFFINE_STEPS[type(transformer)](transformer), transformer)


def _selector(selector: Any, path: str) -> Iterator[Node]:
    count = fitted_width(selector)
    chosen = np.asarray(selector.get_support(), np.bool_)
    if chosen.shape != (count,):
        raise ValueError(f"it chooses among {chosen.size} columns and was fitted with {count}")
    yield Branches(count, (Branch(np.flatnonzero(chosen)),))


def _side_by_side(transformer: Any, path: str) -> Iterator[Node]:
    count, branches = column_count(transformer), list[Branch]()
    for name, member, columns, weight in _members(transformer, count):
        member_path = joined(path, name)
        steps = tuple(steps_of(member, member_path))
        branch = Branch(columns, steps)
        if weight != 1.0:
            scaling = Affine(np.full(branch.width, weight), np.zeros(branch.width))
            branch = Branch(columns, (*steps, Step(name_of(transformer, path), scaling)))
        branches.append(branch)
    yield Branches(count, tuple(branches))


def _members(transformer: Any, count: int) -> Iterator[tuple[str, Any, NDArray[np.intp], float]]:
    """Yield name, transformer, columns and weight of each member that yields columns."""
    weights = getattr(transformer, "transformer_weights", None) or {}
    if type(transformer) is FeatureUnion:
        members = [(name, member, slice(None)) for name, member in transformer.transformer_list]
    else:
        members = transformer.transformers_
    names = feature_names(transformer)
    for name, member, columns in members:
        if isinstance(member, str) and member == "drop":
            continue
        positions = _positions(columns, names, count)
        if len(positions):
            yield str(name), member, positions, float(weights.get(name, 1.0))


def _positions(columns: Any, names: tuple[str, ...], count: int) -> NDArray[np.intp]:
    """Return the positions of columns that a ColumnTransformer describes in any of its ways."""
    if isinstance(columns, slice) and not any(isinstance(end, str) for end in (columns.start, columns.stop)):
        return np.arange(count)[columns]
    if isinstance(columns, slice):  # of names, and to its end
        ends = (None if end is None else names.index(end) for end in (columns.start, columns.stop))
        start, stop = ends
        return np.arange(count)[start : None if stop is None else stop + 1]
    several = [columns] if isinstance(columns, str | int | np.integer) else list(columns)
    check_limit("features", MAX_FEATURES, len(several))
    if several and all(isinstance(column, bool | np.bool_) for column in several):
        if len(several) != count:
            raise ValueError(f"it chooses among {len(several)} columns and was fitted with {count}")
        return np.flatnonzero(np.array(several, np.bool_))
    places = {name: position for position, name in enumerate(names)}
    found = [places[column] if isinstance(column, str) else int(column) % count for column in several]
    if any(not isinstance(column, str) and not -count <= column < count for column in several):
        raise ValueError(f"it takes columns that are not among its {count}")
    return np.array(found, np.intp)


def read_columns(transformer: Any, count: int) -> NDArray[np.bool_]:
    """Tell which of so many columns go into a transformer: a ColumnTransformer leaves some out.

    A selector's columns all go into it: which of them it has chosen is learnt from rows.
    """
    if type(transformer) is FrozenEstimator:
        return read_columns(transformer.estimator, count)
    if type(transformer) is Pipeline:
        first = next((step for _, step in transformer.steps if not is_nothing(step)), None)
        return read_columns(first, count)
    found = np.full(count, type(transformer) not in (ColumnTransformer, FeatureUnion))
    if not found.all():
        for _, member, columns, _ in _members(transformer, count):
            found[columns[read_columns(member, len(columns))]] = True
    return found


def column_count(transformer: Any) -> int:
    """Return the number of columns that a fitted transformer takes."""
    if isinstance(transformer, CountVectorizer | HashingVectorizer):  # of one column of texts
        return 1
    if type(transformer) is Pipeline:
        return next((column_count(step) for _, step in transformer.steps if not is_nothing(step)), 0)
    if type(transformer) is FrozenEstimator:
        return column_count(transformer.estimator)
    if type(transformer) is FeatureUnion:  # it has no number of its own where its members read texts
        members = (member for _, member in transformer.transformer_list if not isinstance(member, str))
        return next(map(column_count, members), 0)
    return fitted_width(transformer)


def _open(transformer: Any, path: str) -> Iterator[Node]:
    yield from OPEN_STEPS[type(transformer)](transformer, name_of(transformer, path))


def _labels_of_rows(transformer: TargetEncoder, path: str) -> Iterator[Node]:
    raise ValueError(
        "its encodings are means of labels of training rows, which clients would have to be given: use a OneHotEncoder"
    )


def _rows_of_training(transformer: Any, path: str) -> Iterator[Node]:
    raise ValueError(
        "clients would need training rows to compute it: use a SimpleImputer in the place of a KNNImputer, and a "
        "RBFSampler with a fixed seed in that of Nystroem"
    )


STEP_RULES: dict[type, Callable[[Any, str], Iterator[Node]]] = {
    **dict.fromkeys(AFFINE_STEPS, _affine),
    **dict.fromkeys(SELECTORS, _selector),
    ColumnTransformer: _side_by_side,
    FeatureUnion: _side_by_side,
    FrozenEstimator: _frozen,
    Pipeline: _pipeline,
    **dict.fromkeys(OPEN_STEPS, _open),
}
REFUSED_STEPS: dict[type, Callable[[Any, str], Iterator[Node]]] = {
    TargetEncoder: _labels_of_rows,
    KNNImputer: _rows_of_training,
    Nystroem: _rows_of_training,
}
"""What would publish training rows, or means of labels, with an error that names an alternative."""
SUPPORTED_STEPS = f"Supported steps before the model: {listed(STEP_RULES)}, 'passthrough'. {LEFT_TO_THE_APPLICATION}."
