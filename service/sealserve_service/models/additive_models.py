"""Additive models: explainable boosting machines (EBM) of interpret.

A score is a sum of terms. A term of one column is constant in each bin of it, one of several
columns in each cell of bins: so a term has one feature for each of its bins or cells, of which
exactly one is 1. Numbers have a bin for what is missing, categories have one more for what is
unknown. The last bin or cell of each term is left out, whatever its score.

This module alone imports interpret: it is loaded for a model of interpret's only. To add an
estimator, write its rule and enter it in `ADDITIVE_MODELS`.
"""

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
from interpret.glassbox import ExplainableBoostingClassifier, ExplainableBoostingRegressor
from numpy.typing import NDArray

from sealserve.protocol.output import Link, Output, Task
from sealserve.steps.arithmetic import Matrix
from sealserve.steps.categories import Categories, Lookup, LookupColumn, OneHot, OneHotColumn
from sealserve.steps.intervals import Bins, BinsColumn
from sealserve_service.models.estimators import labels
from sealserve_service.models.limits import MAX_FEATURES, check_limit, check_weights
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.pipeline_steps import Consent, OpenStep
from sealserve_service.models.trees import MIN_ROWS

Values = NDArray[np.float64]
Indices = NDArray[np.intp]


class _Axis(NamedTuple):
    """The bins of one column in terms of so many columns: a machine may have other bins for pairs.

    Attributes:
        column: its number.
        edges: between the bins of numbers; empty for categories.
        categories: None for numbers.
        places: the bin of each code of a category, see `Categories`.
        indices: where the machine has the score of each bin: 0 is for missing, -1 for unknown.
    """

    column: int
    edges: Values
    categories: Categories | None
    places: Indices
    indices: Indices

    @property
    def bin_count(self) -> int:
        """The number of bins."""
        return len(self.indices)

    @property
    def bins(self) -> BinsColumn:
        """The bins of numbers; the last is for a missing one."""
        return BinsColumn(self.edges, missing_bin=len(self.edges) + 1)


def _bins_of(machine: Any, column: int, column_count: int) -> Any:
    """Return the cut points or categories of a column in terms of so many columns."""
    levels = machine.bins_[column]
    return levels[min(len(levels), column_count) - 1]


def _axis(machine: Any, column: int, column_count: int) -> _Axis:
    bins = _bins_of(machine, column, column_count)
    if not isinstance(bins, dict):
        edges = np.array(bins, np.float64)
        return _Axis(column, edges, None, np.zeros(0, np.intp), np.append(np.arange(1, len(edges) + 2), 0))
    names, found = list(map(str, bins)), np.array(list(bins.values()), np.intp)
    count = int(found.max(initial=0))
    check_limit("categories", MAX_FEATURES, count)
    if found.min(initial=1) < 1:
        raise ValueError("a category has the bin of what is missing")
    indices = np.concatenate([np.arange(1, count + 1), [0, -1]])
    if all(map(_is_number, names)):
        numbers = np.array(names, np.float64)
        order = numbers.argsort()
        categories = Categories(numbers=numbers[order])
        found = found[order]
    else:
        categories = Categories(texts=names)
    return _Axis(column, np.zeros(0), categories, np.concatenate([found - 1, [count, count + 1]]), indices)


def _is_number(name: str) -> bool:
    """Tell whether a category is a number, as interpret writes it: booleans are 0 and 1."""
    try:
        number = float(name)
    except ValueError:
        return False
    return np.isfinite(number) and str(np.float64(number)).removesuffix(".0") == name


class _Term(NamedTuple):
    """A term of a machine.

    Attributes:
        axes: its columns.
        scores: of each bin or cell, (cells, scores), the first bin of the first axis first.
    """

    axes: tuple[_Axis, ...]
    scores: Values


def _terms(machine: Any, score_count: int) -> Iterator[_Term]:
    for columns, given in zip(machine.term_features_, machine.term_scores_, strict=True):
        axes = tuple(_axis(machine, int(column), len(columns)) for column in columns)
        check_weights(score_count, prod(axis.bin_count for axis in axes))
        scores = np.asarray(given, np.float64)
        for place, axis in enumerate(axes):
            scores = scores.take(axis.indices, axis=place)
        yield _Term(axes, scores.reshape(-1, score_count))


def _machine(machine: Any, output: Output, own_scores: Callable[[Any], Values]) -> LinearModel:
    """Return the model of a machine.

    Raises:
        ModelTooLargeError: it has too many cells.
        ValueError: it has no term, or its arrays do not fit together.
    """
    terms, cell_count = list[_Term](), 0
    for term in _terms(machine, output.score_count):
        terms.append(term)
        cell_count += len(term.scores)
        check_weights(output.score_count, cell_count)
    if not terms:
        raise ValueError("it has no term: it predicts the same of any row")
    # Terms of one column come first, as their steps do.
    terms.sort(key=lambda term: (len(term.axes) > 1, term.axes[0].categories is not None))
    column_count = len(machine.bins_)
    check_limit("features", MAX_FEATURES, column_count)
    front = OpenStep(
        type(machine).__name__,
        cell_count - len(terms),
        partial(_emit, terms),
        _tells(terms),
        Consent.STRUCTURE,
        training_values=_training_values(machine),
    )
    return LinearModel(
        np.vstack([term.scores[:-1] - term.scores[-1] for term in terms]).T,
        np.ravel(machine.intercept_) + np.sum([term.scores[-1] for term in terms], axis=0),
        output,
        tuple(map(str, machine.feature_names_in_)),
        own_scores=own_scores,
        front=(front,),
        column_count=column_count,
    )


def _emit(terms: list[_Term], add: Any, inputs: Indices) -> Indices:
    single = [term.axes[0] for term in terms if len(term.axes) == 1]
    several = [term for term in terms if len(term.axes) > 1]
    outputs = list[Indices]()
    if numbers := [axis for axis in single if axis.categories is None]:
        columns = inputs[[axis.column for axis in numbers]]
        outputs.append(add(Bins(columns, [axis.bins for axis in numbers], one_hot=True)))
    if named := [axis for axis in single if axis.categories is not None]:
        found = [
            OneHotColumn(axis.categories, axis.places + 1, axis.bin_count)
            for axis in named
            if axis.categories is not None
        ]
        outputs.append(add(OneHot(inputs[[axis.column for axis in named]], found)))
    if several:
        outputs.append(_emit_cells(several, add, inputs))
    stops = np.cumsum([len(term.scores) for term in terms])
    return np.delete(np.concatenate(outputs), stops - 1)


def _emit_cells(terms: list[_Term], add: Any, inputs: Indices) -> Indices:
    """Emit one feature a cell: the number of a row's cell, and then bins of those numbers.

    So the steps themselves tell that a row is in exactly one cell of each term.
    """
    keys = {(axis.column, len(term.axes)): axis for term in terms for axis in term.axes}
    numbers = {key: axis for key, axis in keys.items() if axis.categories is None}
    named = {key: axis for key, axis in keys.items() if axis.categories is not None}
    bins = list[Indices]()
    if numbers:
        columns = inputs[[axis.column for axis in numbers.values()]]
        bins.append(add(Bins(columns, [axis.bins for axis in numbers.values()])))
    if named:
        found = [
            LookupColumn(axis.categories, axis.places.astype(np.float64))
            for axis in named.values()
            if axis.categories is not None
        ]
        bins.append(add(Lookup(inputs[[axis.column for axis in named.values()]], found)))
    place = {key: number for number, key in enumerate([*numbers, *named])}
    weights = np.zeros((len(terms), len(keys)))
    for row, term in enumerate(terms):
        stride = 1
        for axis in reversed(term.axes):
            weights[row, place[axis.column, len(term.axes)]] += stride
            stride *= axis.bin_count
    cells = add(Matrix(np.concatenate(bins), weights, np.zeros(len(terms))))
    edges = [BinsColumn(np.arange(0.5, len(term.scores) - 1, dtype=np.float64)) for term in terms]
    outputs: Indices = add(Bins(cells, edges, one_hot=True))
    return outputs


def _tells(terms: list[_Term]) -> str:
    axes = {(axis.column, len(term.axes)): axis for term in terms for axis in term.axes}
    cuts = sum(len(axis.edges) for axis in axes.values())
    categories = sum(axis.categories.count for axis in axes.values() if axis.categories is not None)
    pairs = sum(len(term.axes) > 1 for term in terms)
    return (
        f"which columns the {len(terms)} terms have, {pairs} of them several; {cuts} cut points between values of "
        f"training rows, and {categories} categories. The scores of bins stay private"
    )


def _training_values(machine: Any) -> str:
    """Tell why cut points would publish training rows: a bin has too few."""
    least, row_count = np.inf, 0.0
    for columns, given in zip(machine.term_features_, machine.bin_weights_, strict=True):
        weights = np.asarray(given, np.float64)
        if (weights != np.rint(weights)).any():
            return "its rows had weights, so that how many of them its bins have is not known: fit it without"
        row_count = max(row_count, weights.sum())
        for place, column in enumerate(columns):
            if not isinstance(_bins_of(machine, int(column), len(columns)), dict):
                others = tuple(other for other in range(weights.ndim) if other != place)
                least = min(least, weights.sum(axis=others)[1:-1].min(initial=np.inf))
    if least >= MIN_ROWS:
        return ""
    remedy = f"fit it with max_bins={max(3, int(row_count) // (2 * MIN_ROWS))} or fewer"
    return f"a bin has {least:.0f} training rows, so that cut points bracket single values: {remedy}"


def _own_scores(machine: Any, rows: Any) -> Values:
    scores: Values = np.asarray(machine._predict_score(rows), np.float64).reshape(len(rows), -1)
    return scores


def _classifier(machine: Any) -> LinearModel:
    classes = labels(machine)
    links = {"logit": Link.LOGISTIC, "mlogit": Link.SOFTMAX}
    if machine.link_ not in links:
        raise ValueError(f"its link_ is {machine.link_!r}, not 'logit' or 'mlogit': fit it with two classes or more")
    count = 1 if machine.link_ == "logit" else len(classes)
    output = Output(Task.CLASSIFICATION, count, classes, links[machine.link_])
    return _machine(machine, output, partial(_own_scores, machine))


def _regressor(machine: Any) -> LinearModel:
    links = {"identity": Link.NONE, "log": Link.LOG}
    if machine.link_ not in links:
        raise ValueError(f"its link_ is {machine.link_!r}, not 'identity' or 'log': fit it with another objective")
    output = Output(Task.REGRESSION, 1, link=links[machine.link_], scalar_target=True)
    return _machine(machine, output, partial(_own_scores, machine))


ADDITIVE_MODELS: dict[type, Callable[[Any], LinearModel]] = {
    ExplainableBoostingClassifier: _classifier,
    ExplainableBoostingRegressor: _regressor,
}
