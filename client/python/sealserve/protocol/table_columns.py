"""Columns of a table that a user hands in, found by their names and read by their kinds.

A table is a DataFrame (pandas, polars, Arrow), a dictionary of columns, a list of dictionaries or
of Series, an array or a list of rows. No library of these is imported.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import FeatureCountError, FeatureNameError, InputError
from sealserve.protocol.tables import column_names, floats, is_sparse
from sealserve.protocol.text import difference, printable_list, quoted

_MISSING = ("NoneType", "NAType", "NaTType", "MaskedConstant")  # of Python, pandas and NumPy
_SHOWN_NAMES = 10


def columns_of(X: Any, names: Sequence[str]) -> list[Any]:
    """Return the columns of a table in the order of names; those of an array in its own order.

    Raises:
        FeatureNameError: a column is missing, is not expected or occurs twice.
        FeatureCountError: an array has another number of columns, or rows have other lengths.
    """
    if isinstance(X, Mapping):
        check_names(names, X.keys())
        columns = [X[name] for name in names]
        if len(set(map(len, columns))) > 1:
            raise FeatureCountError("the columns of the dictionary have different lengths")
        return columns
    if found := column_names(X):
        check_names(names, found)
        # Columns of pandas may have names that are no strings.
        positions = [found.index(name) for name in names]
        if hasattr(X, "iloc"):
            return [X.iloc[:, position] for position in positions]
        if hasattr(X, "column_names"):  # Arrow
            return [X.column(position) for position in positions]
        return [X[found[position]] for position in positions]
    if isinstance(X, list | tuple) and X and all(_has_labels(row) for row in X):
        for row in X:
            check_names(names, _labels(row))
        return [[row[name] for row in X] for name in names]
    return _columns_by_position(X, len(names))


def check_names(expected: Iterable[str], found: Iterable[object]) -> None:
    """Compare the names of columns with those of the model, in any order.

    Raises:
        FeatureNameError: one is missing, is not expected or occurs twice.
    """
    names = tuple(map(str, found))
    if twice := tuple(name for name, count in Counter(names).items() if count > 1):
        raise FeatureNameError(f"there are columns of the same name: {printable_list(twice, _SHOWN_NAMES)}")
    if wrong := difference(sorted(expected), sorted(names)):
        raise FeatureNameError(f"the columns must be those of the model; {wrong}")


def numbers(column: Any, name: str) -> NDArray[np.float64]:
    """Read a column of numbers: float64 (rows,). What is missing is NaN.

    Raises:
        InputError: a value is no real number. The text names the column.
    """
    try:
        values = floats(_array(column, is_number=True))
    except InputError as error:
        raise InputError(f"column {quoted(name)} is one of numbers: {error}") from error
    return _one_dimensional(values, name)


def texts(column: Any, name: str) -> NDArray[np.object_]:
    """Read a column of strings: objects (rows,), each a string or, if it is missing, None.

    Raises:
        InputError: a value is no string. The text names the column.
    """
    values = _one_dimensional(_array(column, is_number=False), name).tolist()
    # A gap in a column of strings is a float in pandas: NaN.
    found = [
        None if type(value).__name__ in _MISSING or (isinstance(value, float) and value != value) else value
        for value in values
    ]
    if wrong := sorted({type(value).__name__ for value in found if not (value is None or isinstance(value, str))}):
        raise InputError(
            f"column {quoted(name)} is one of strings, and has values of type {', '.join(wrong[:_SHOWN_NAMES])}: "
            "pass strings, as in training"
        )
    return _objects(found)


def _has_labels(row: Any) -> bool:
    """Tell whether a row is a dictionary, or a Series of pandas."""
    return isinstance(row, Mapping) or (getattr(row, "ndim", 0) == 1 and hasattr(row, "iloc"))


def _labels(row: Any) -> Iterable[object]:
    return row.keys() if isinstance(row, Mapping) else row.index


def _columns_by_position(X: Any, count: int) -> list[Any]:
    if is_sparse(X):
        X = floats(X)
    if not isinstance(X, np.ndarray):
        try:
            rows = list(X)
            if any(isinstance(row, str | bytes) or len(row) != count for row in rows):
                raise FeatureCountError(f"rows of {count} columns are needed")
        except TypeError as error:
            raise InputError("the rows must be a table: a DataFrame, a dictionary of columns or rows") from error
        return [_objects(row[position] for row in rows) for position in range(count)]
    if X.shape[1:] != (count,):
        advice = ": pass a single row x as x.reshape(1, -1)" if X.ndim == 1 else ""
        raise FeatureCountError(f"rows of {count} columns are needed, the shape is {X.shape}{advice}")
    return [X[:, position] for position in range(count)]


def _array(column: Any, *, is_number: bool) -> NDArray[Any]:
    """Return a column as an array. Where it has gaps, it may be one of objects."""
    if isinstance(column, np.ndarray):
        return column
    if isinstance(column, list | tuple):
        return _objects(column)
    if hasattr(column, "to_pylist"):  # Arrow
        return _objects(column.to_pylist())
    if hasattr(column, "to_numpy") and hasattr(column, "iloc"):  # a Series of pandas
        kind = getattr(column.dtype, "kind", "O")
        if is_number and kind in ("b", "i", "u", "f"):
            values: NDArray[Any] = column.to_numpy(np.float64, na_value=np.nan)
            return values
        return np.asarray(column) if kind in ("M", "m", "c") else column.to_numpy(object)
    return np.asarray(column)


def _objects(values: Iterable[Any]) -> NDArray[np.object_]:
    """Return values as an array of one dimension, whatever they are."""
    listed = list(values)
    array = np.empty(len(listed), object)
    array[:] = listed
    return array


def _one_dimensional(values: NDArray[Any], name: str) -> NDArray[Any]:
    if values.ndim != 1:
        raise FeatureCountError(f"column {quoted(name)} has {values.ndim} dimensions, not one")
    return values
