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
from sealserve.protocol.column import Column, ColumnKind
from sealserve.protocol.tables import ADVICE, column_names, faults_of_values, floats, is_sparse
from sealserve.protocol.text import difference, printable_list, quoted, rows_in_words

_MISSING = ("NoneType", "NAType", "NaTType", "MaskedConstant")  # of Python, pandas and NumPy
_SHOWN_NAMES = 10


def columns_of(X: Any, columns: Sequence[Column]) -> list[Any | None]:
    """Return the columns of a table in the order of a model's; those of an array in its own order.

    Args:
        X: the table.
        columns: what the model takes. If they have no names, a DataFrame is read as an array is.

    Returns:
        the values of each column, and None for a column that nothing reads.

    Raises:
        FeatureNameError: a column is missing, is not expected or occurs twice; or there is nothing
            but names to find columns by, and the model has none.
        FeatureCountError: an array has another number of columns, or rows have other lengths.
        InputError: the rows are no table.
    """
    if isinstance(X, Mapping):
        found = _columns_by_name(X, columns)
        if len({len(values) for values in found if values is not None}) > 1:
            raise FeatureCountError("the columns of the dictionary have different lengths")
        return found
    if hasattr(X, "collect"):  # polars has those that are computed when they are asked for
        raise InputError("the rows are not computed yet: pass X.collect()")
    if names := column_names(X):
        return _columns_of_frame(X, names, columns)
    if isinstance(X, list | tuple) and X and all(_has_labels(row) for row in X):
        rows = [_labelled(row, columns) for row in X]
        return [None if c.kind is ColumnKind.UNUSED else [row[c.name] for row in rows] for c in columns]
    if len(columns) == 1 and columns[0].kind is ColumnKind.TEXT and _is_column(X):
        return [X]  # as vectorizers take texts
    return _columns_by_position(X, columns)


def check_names(columns: Sequence[Column], found: Iterable[object], *, any_more: bool = False) -> None:
    """Compare the names of columns with those of the model, in any order.

    Args:
        columns: what the model takes; one that nothing reads may be left out.
        found: the names of a table's columns.
        any_more: whether there may be columns that the model does not have.

    Raises:
        FeatureNameError: one is missing, is not expected or occurs twice.
    """
    names = tuple(map(str, found))
    known = {column.name for column in columns}
    counts = Counter(name for name in names if name in known or not any_more)
    if twice := tuple(name for name, count in counts.items() if count > 1):
        raise FeatureNameError(f"there are columns of the same name: {printable_list(twice, _SHOWN_NAMES)}")
    needed = {column.name for column in columns if column.kind is not ColumnKind.UNUSED}
    wrong = difference(sorted(needed), sorted(name for name in names if name in needed or name not in known))
    if wrong and not (any_more and needed <= set(names)):
        raise FeatureNameError(f"the columns must be those of the model; {wrong}")


def numbers(column: Any, words: str) -> NDArray[np.float64]:
    """Read a column of numbers: float64 (rows,). What is missing is NaN.

    Args:
        column: its values.
        words: name it in errors.

    Raises:
        InputError: a value is no real number. The text names the column.
    """
    array = _array(column, is_number=True)
    try:
        values = floats(array)
    except InputError as error:
        has_places = array.dtype == object and array.ndim == 1 and len(array) > 1
        named = faults_of_values(array.tolist(), "rows") if has_places else ""
        raise InputError(f"{words} is one of numbers: {f'{named}: {ADVICE}' if named else error}") from error
    return _one_dimensional(values, words)


def texts(column: Any, words: str) -> NDArray[np.object_]:
    """Read a column of strings: objects (rows,), each a string or, if it is missing, None.

    Args:
        column: its values.
        words: name it in errors.

    Raises:
        InputError: a value is no string. The text names the column.
    """
    values = _one_dimensional(_array(column, is_number=False), words).tolist()
    # A gap in a column of strings is a float in pandas: NaN.
    found = [
        None if type(value).__name__ in _MISSING or (isinstance(value, float) and value != value) else value
        for value in values
    ]
    wrong = [row for row, value in enumerate(found) if not (value is None or isinstance(value, str))]
    if wrong:
        kinds = sorted({type(found[row]).__name__ for row in wrong})
        where = f" in {rows_in_words(wrong, len(wrong))}" if len(found) > 1 else ""
        raise InputError(
            f"{words} is one of strings, and has values of type {', '.join(kinds[:_SHOWN_NAMES])}{where}: "
            "pass strings, as in training"
        )
    return _objects(found)


def _columns_by_name(X: Mapping[Any, Any], columns: Sequence[Column]) -> list[Any | None]:
    """Return the columns of a dictionary of columns."""
    by_name = _named(X.items(), columns)
    found = [None if column.kind is ColumnKind.UNUSED else by_name[column.name] for column in columns]
    for column, values in zip(columns, found, strict=True):
        is_column = hasattr(values, "__len__") and not isinstance(values, str | bytes)
        if column.kind is not ColumnKind.UNUSED and not is_column:
            raise InputError(
                f"{quoted(column.name)} of the dictionary is a single value, not a column: pass lists of values, or "
                "a row as [{...}]"
            )
    return found


def _columns_of_frame(X: Any, names: Sequence[str], columns: Sequence[Column]) -> list[Any | None]:
    """Return the columns of a DataFrame of pandas or polars, or of a table of Arrow."""
    if not any(column.name for column in columns):
        if len(names) != len(columns):
            raise FeatureCountError(f"rows of {len(columns)} columns are needed, and the table has {len(names)}")
        positions = list(range(len(columns)))
    else:
        check_names(columns, names)
        positions = [names.index(column.name) if column.name in names else -1 for column in columns]

    def column_at(position: int) -> Any:
        if hasattr(X, "iloc"):  # columns of pandas may have names that are no strings
            return X.iloc[:, position]
        return X.column(position) if hasattr(X, "column_names") else X[names[position]]  # of Arrow; of polars

    return [
        None if column.kind is ColumnKind.UNUSED else column_at(position)
        for column, position in zip(columns, positions, strict=True)
    ]


def _is_column(X: Any) -> bool:
    """Tell whether values are those of a column, rather than rows: a Series, an array, or texts."""
    is_texts = isinstance(X, list | tuple) and all(value is None or isinstance(value, str) for value in X)
    return is_texts or getattr(X, "ndim", 0) == 1


def _has_labels(row: Any) -> bool:
    """Tell whether a row is a dictionary, or a Series of pandas."""
    return isinstance(row, Mapping) or (getattr(row, "ndim", 0) == 1 and hasattr(row, "iloc"))


def _labelled(row: Any, columns: Sequence[Column]) -> dict[str, Any]:
    """Return the values of a dictionary, or of a Series, by the names of columns."""
    return _named(row.items(), columns)


def _named(items: Iterable[tuple[Any, Any]], columns: Sequence[Column]) -> dict[str, Any]:
    """Return values by name, if these are the names of the columns."""
    listed = list(items)
    if not any(column.name for column in columns):
        raise FeatureNameError("the model's columns have no names: pass rows as lists or arrays, in its order")
    check_names(columns, (name for name, _ in listed))
    return {str(name): value for name, value in listed}


def _columns_by_position(X: Any, columns: Sequence[Column]) -> list[Any | None]:
    count = len(columns)
    if is_sparse(X):
        X = floats(X)
    is_array = isinstance(X, np.ndarray)
    if not is_array:
        if hasattr(X, "iloc"):
            raise FeatureCountError(f"rows of {count} columns are needed: pass a Series x as [x]")
        try:
            X = list(X)
            if any(isinstance(row, str | bytes) or len(row) != count for row in X):
                raise FeatureCountError(f"rows of {count} columns are needed")
        except TypeError as error:
            raise InputError("the rows must be a table: a DataFrame, a dictionary of columns or rows") from error
    elif X.shape[1:] != (count,):
        advice = ": pass a single row x as x.reshape(1, -1)" if X.ndim == 1 else ""
        raise FeatureCountError(f"rows of {count} columns are needed, the shape is {X.shape}{advice}")
    return [
        None
        if column.kind is ColumnKind.UNUSED
        else X[:, position]
        if is_array
        else _objects(row[position] for row in X)
        for position, column in enumerate(columns)
    ]


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


def _one_dimensional(values: NDArray[Any], words: str) -> NDArray[Any]:
    if values.ndim != 1:
        raise FeatureCountError(f"{words} has {values.ndim} dimensions, not one")
    return values
