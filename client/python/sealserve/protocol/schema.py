"""Schema: the columns of the rows that a user hands in.

Columns and features on the input grid are two things: published steps may come between them.
Without steps each column is a feature.

Rows are float64 (rows, column_count). If a column is of strings, they are objects instead: each
value is then a float, a string or, for a missing string, None.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import FeatureCountError, FeatureNameError, InputError
from sealserve.protocol.column import Column
from sealserve.protocol.table_columns import columns_of, numbers, texts
from sealserve.protocol.tables import column_names, floats, is_sparse
from sealserve.protocol.text import difference

__all__ = ["Schema"]

_SHOWN_COLUMNS = 5  # columns of another kind that a text names


@dataclass(frozen=True)
class Schema:
    """The columns of a model's rows.

    Attributes:
        column_count: the width of a row.
        column_names: one a column, in order; empty where the model has none.
        columns: what each column takes; empty if all are numbers within the ranges of the grid.
    """

    column_count: int
    column_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()

    @classmethod
    def of(cls, columns: Sequence[Column]) -> "Schema":
        """Make the schema of columns that say what they take."""
        return cls(len(columns), tuple(column.name for column in columns), tuple(columns))

    def rows(self, X: Any) -> NDArray[Any]:
        """Read rows: (rows, column_count), see above. A missing number is NaN.

        The values become numbers before the schema is looked at, so that whether they do never
        depends on what a service says of its model.

        Args:
            X: an array, a DataFrame, a sparse matrix of SciPy, or a sequence of rows, in which a
                Series is matched by its labels. If there are `columns`, it may be a dictionary of
                columns or a sequence of dictionaries, too, and names are matched in any order.

        Raises:
            InputError: a value is not a real number, or columns are of another kind.
            FeatureNameError: a DataFrame's columns are not the model's, in the model's order, or a
                Series lacks a label.
            FeatureCountError: the shape is not (rows, column_count).
        """
        if type(X) is np.ndarray and X.dtype == np.float64 and not self.has_texts:  # as single rows most often are
            rows = X
        elif self.columns:
            return self._rows_of_columns(X)
        else:
            if is_sparse(X):  # before it becomes an array
                self.check_shape(X.shape)
            names = column_names(X)
            try:
                rows = floats(X, self.column_names)
            except InputError:
                self.check_names(names)  # refused in any case: other columns explain it best
                raise
            self.check_names(names)
        self.check_shape(rows.shape)
        return rows

    def _rows_of_columns(self, X: Any) -> NDArray[Any]:
        """Read rows by the kinds of the columns, and name all columns of another kind."""
        read, wrong = list[NDArray[Any]](), list[str]()
        for column, values in zip(self.columns, columns_of(X, self.column_names), strict=True):
            try:
                read.append((texts if column.kind.is_text else numbers)(values, column.name))
            except InputError as error:
                wrong.append(str(error))
        if wrong:
            more = f"; and {len(wrong) - _SHOWN_COLUMNS} more columns" if len(wrong) > _SHOWN_COLUMNS else ""
            raise InputError("; ".join(wrong[:_SHOWN_COLUMNS]) + more)
        rows = np.empty((len(read[0]), self.column_count), object if self.has_texts else np.float64)
        for position, values in enumerate(read):
            rows[:, position] = values
        return rows

    @cached_property
    def has_texts(self) -> bool:
        """Whether a column is of strings."""
        return any(column.kind.is_text for column in self.columns)

    def is_refused(self, rows: NDArray[Any], *, clip: bool) -> NDArray[np.bool_]:
        """Tell which rows (rows, column_count) have a value that its column does not take."""
        found = np.zeros(len(rows), np.bool_)
        for position, column in enumerate(self.columns):
            for is_at_fault in column.faults(rows[:, position], clip=clip).values():
                found |= is_at_fault
        return found

    def clipped(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Move numbers outside the range of their column to its nearest end."""
        moved = rows.copy()
        for position, column in enumerate(self.columns):
            if not column.kind.is_text:
                moved[:, position] = np.clip(rows[:, position].astype(np.float64, copy=False), *column.range)
        return moved

    def check_names(self, names: Sequence[object]) -> None:
        """Compare the names of a table's columns, if it has any, with the model's, if it has any.

        Raises:
            FeatureNameError: they are not the model's, in the model's order.
        """
        if self.column_names and len(names) and tuple(map(str, names)) != self.column_names:
            wrong = difference(self.column_names, tuple(map(str, names)))
            raise FeatureNameError(f"the columns must be those of the model, in its order; they differ: {wrong}")

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Check the shape of rows.

        Raises:
            FeatureCountError: it is not (rows, column_count).
        """
        if shape[1:] != (self.column_count,):
            advice = ": pass a single row x as x.reshape(1, -1), or a Series x as [x]" if len(shape) == 1 else ""
            raise FeatureCountError(f"rows of {self.column_count} features are needed, the shape is {shape}{advice}")
