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
from sealserve.protocol.column import Column, ColumnKind
from sealserve.protocol.table_columns import columns_of, numbers, texts
from sealserve.protocol.tables import column_names, floats, is_sparse
from sealserve.protocol.text import difference, quoted

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
        names = tuple(column.name for column in columns)
        return cls(len(columns), names if any(names) else (), tuple(columns))

    def words(self, position: int) -> str:
        """Return a column as errors name it: by its name, or else by its number from 0."""
        return f"column {quoted(self.column_names[position])}" if self.column_names else f"column {position}"

    def rows(self, X: Any) -> NDArray[Any]:
        """Read rows: (rows, column_count), see above. A missing number is NaN.

        The values become numbers before the schema is looked at, so that whether they do never
        depends on what a service says of its model.

        Args:
            X: an array, a DataFrame, a sparse matrix of SciPy, or a sequence of rows, in which a
                Series is matched by its labels. If there are `columns`, it may be a dictionary of
                columns or a sequence of dictionaries, too, and names are matched in any order. If
                the columns have no names, those of a DataFrame do not count.

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
        found = columns_of(X, self.columns)
        for position, values in enumerate(found):
            try:
                if values is not None:
                    take = texts if self.columns[position].kind.is_text else numbers
                    read.append(take(values, self.words(position)))
            except InputError as error:
                wrong.append(str(error))
        if wrong:
            more = f"; and {len(wrong) - _SHOWN_COLUMNS} more columns" if len(wrong) > _SHOWN_COLUMNS else ""
            raise InputError("; ".join(wrong[:_SHOWN_COLUMNS]) + more)
        rows = np.full((len(read[0]), self.column_count), np.nan, object if self.has_texts else np.float64)
        for position, values in zip(self.read_positions, read, strict=True):
            rows[:, position] = values
        return rows

    @cached_property
    def read_positions(self) -> list[int]:
        """Which columns are read, all but those that nothing reads."""
        unread = {position for position, column in enumerate(self.columns) if column.kind is ColumnKind.UNUSED}
        return [position for position in range(self.column_count) if position not in unread]

    @cached_property
    def has_texts(self) -> bool:
        """Whether a column is of strings."""
        return any(column.kind.is_text for column in self.columns)

    def is_refused(self, rows: NDArray[Any], *, clip: bool) -> NDArray[np.bool_]:
        """Tell which rows (rows, column_count) have a value that its column does not take.

        Numbers are looked at in all columns at once: column by column, a single row would take
        several calls of NumPy for each. The same operations run whatever the values are.
        """
        if not self.has_texts:
            takes_missing, is_whole, low, high = self._numbers
            is_missing = np.isnan(rows)
            is_at_fault = is_missing & ~takes_missing
            is_at_fault |= ~is_missing & is_whole & (rows != np.rint(rows))
            if not clip:
                is_at_fault |= (rows < low) | (rows > high)
            refused: NDArray[np.bool_] = is_at_fault.any(axis=1)
            return refused
        found = np.zeros(len(rows), np.bool_)
        for position, column in enumerate(self.columns):
            for is_at_fault in column.faults(rows[:, position], clip=clip).values():
                found |= is_at_fault
        return found

    @cached_property
    def _numbers(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
        """What columns of numbers take: missing ones, whole ones only, and from where to where."""
        takes_missing = [column.allows_missing or column.kind is ColumnKind.UNUSED for column in self.columns]
        is_whole = [column.kind in (ColumnKind.INTEGER, ColumnKind.BOOLEAN) for column in self.columns]
        low, high = np.array([column.range for column in self.columns], np.float64).reshape(-1, 2).T
        return np.array(takes_missing, np.bool_), np.array(is_whole, np.bool_), low, high

    def clipped(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Move numbers outside the range of their column to its nearest end."""
        moved = rows.copy()
        for position, column in enumerate(self.columns):
            if not column.kind.is_text and column.kind is not ColumnKind.UNUSED:
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
