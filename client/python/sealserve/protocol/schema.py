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
        """Read rows from an array, a nested sequence or a DataFrame: float64 (rows, column_count).

        Raises:
            FeatureNameError: a DataFrame's columns are not the model's, in the model's order.
            FeatureCountError: the shape is not (rows, column_count).
            InputError: a value is not a number.
        """
        self.check_names(getattr(X, "columns", ()))
        try:
            rows = np.asarray(X, np.float64)
        except (TypeError, ValueError) as error:
            raise InputError("the rows must be a two-dimensional array of numbers (dense)") from error
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
            raise FeatureCountError(f"rows of {self.column_count} features are needed, the shape is {shape}")
