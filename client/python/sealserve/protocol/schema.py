"""Schema: the columns of the rows that a user hands in.

Columns and features on the input grid are two things: published steps may come between them.
Without steps each column is a feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import FeatureCountError, FeatureNameError, InputError
from sealserve.protocol.tables import column_names, floats, is_sparse
from sealserve.protocol.text import difference

__all__ = ["Schema"]


@dataclass(frozen=True)
class Schema:
    """The columns of a model's rows.

    Attributes:
        column_count: the width of a row.
        column_names: one a column, in order; empty where the model has none.
    """

    column_count: int
    column_names: tuple[str, ...] = ()

    def rows(self, X: Any) -> NDArray[np.float64]:
        """Read rows: float64 (rows, column_count). A missing value is NaN.

        The values become numbers before the schema is looked at, so that whether they do never
        depends on what a service says of its model.

        Args:
            X: an array, a DataFrame, a sparse matrix of SciPy, or a sequence of rows, in which a
                Series is matched by its labels.

        Raises:
            InputError: a value is not a real number.
            FeatureNameError: a DataFrame's columns are not the model's, in the model's order, or a
                Series lacks a label.
            FeatureCountError: the shape is not (rows, column_count).
        """
        if type(X) is np.ndarray and X.dtype == np.float64:  # what single rows most often are
            rows = X
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
