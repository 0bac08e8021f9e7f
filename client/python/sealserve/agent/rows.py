"""Rows: what the tensors of a request mean as rows of a model. No I/O."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.agent.tensors import Tensor
from sealserve.errors import FeatureNameError, InputError
from sealserve.protocol.schema import Schema
from sealserve.protocol.text import difference, quoted

_DIMENSIONS = 2


class NamedRows:
    """An array whose columns have names, as a DataFrame's have: a client checks them.

    Attributes:
        columns: the names, in order.
    """

    def __init__(self, columns: tuple[str, ...], values: NDArray[Any]) -> None:
        self.columns = columns
        self._values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the values."""
        return np.array(self._values, dtype, copy=copy)


Rows = NDArray[Any] | NamedRows | dict[str, Any]
"""What a client takes: an array, or columns by their names."""


def rows_of(tensors: Sequence[Tensor], schema: Schema) -> tuple[Rows, int]:
    """Return the rows that tensors mean, and how many they are.

    One tensor [rows, columns] has the columns in the model's order. Otherwise each tensor is the
    column of its name, [rows] or [rows, 1]. Names travel to the client with the values, so that it
    still finds the columns if the model has just been replaced by one with another order.

    Raises:
        InputError: they mean none.
    """
    names = set(schema.column_names)
    if len(tensors) == 1 and (tensors[0].name not in names or tensors[0].values.ndim == _DIMENSIONS):
        (whole,) = tensors
        if whole.values.ndim != _DIMENSIONS:
            whole = Tensor(whole.name, whole.datatype, _as_columns(whole.values, schema))
        schema.check_shape(whole.values.shape)
        return whole.values, len(whole.values)
    if not names:
        raise InputError(f"send one tensor of shape [rows, {schema.column_count}]: the model's columns have no names")
    return _by_name(tensors, schema)


def _as_columns(values: NDArray[Any], schema: Schema) -> NDArray[Any]:
    if schema.column_count != 1:
        raise InputError(f"send a tensor of shape [rows, {schema.column_count}], or one for each column by its name")
    return values.reshape(-1, 1)


def _by_name(tensors: Sequence[Tensor], schema: Schema) -> tuple[Rows, int]:
    columns = dict[str, NDArray[Any]]()
    for tensor in tensors:
        if tensor.values.ndim == _DIMENSIONS and tensor.values.shape[1] != 1:
            raise InputError(f"input {quoted(tensor.name)}: a column has the shape [rows] or [rows, 1]")
        if tensor.name in columns:
            raise InputError(f"input {quoted(tensor.name)} is there twice")
        columns[tensor.name] = tensor.values.reshape(-1)
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise InputError("the inputs have different numbers of rows" if lengths else "there are no inputs")
    if schema.columns:
        return columns, lengths.pop()
    if wrong := difference(sorted(schema.column_names), sorted(columns)):
        raise FeatureNameError(f"the inputs must be the model's columns, or one tensor of all; {wrong}")
    stacked = np.column_stack([columns[name] for name in schema.column_names])
    return NamedRows(schema.column_names, stacked), len(stacked)


def joined(rows: Sequence[Rows]) -> Rows:
    """Return rows that have the same `key`, one after the other."""
    first = rows[0]
    if isinstance(first, NamedRows):
        return NamedRows(first.columns, np.concatenate([np.asarray(each) for each in rows]))
    if isinstance(first, dict):
        return {name: np.concatenate([each[name] for each in rows]) for name in first}  # type: ignore[index]
    return np.concatenate(rows)  # type: ignore[arg-type]


def key(rows: Rows) -> tuple[Any, ...]:
    """Return what rows must have in common to be joined, without a change of what they mean."""
    if isinstance(rows, NamedRows):
        return rows.columns
    if isinstance(rows, dict):
        return tuple(sorted((name, values.dtype == object) for name, values in rows.items()))
    return rows.shape[1], rows.dtype == object
