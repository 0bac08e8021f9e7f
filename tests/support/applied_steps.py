"""Programs of one step, applied to rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.steps.program import Features, Program
from sealserve.steps.step import Step, ValueKind


def applied(step: Step, rows: Any) -> Features:
    """Apply a step to rows (rows, columns), of which it reads all columns it names."""
    array = np.asarray(rows)
    kinds = [
        ValueKind.TEXT
        if array.dtype == object and all(isinstance(value, str | None) for value in array[:, column])
        else ValueKind.NUMBER
        for column in range(array.shape[1])
    ]
    count = array.shape[1]
    return Program(kinds, [step], range(count, count + step.width)).features(array)


def column_of(*values: Any) -> NDArray[np.object_]:
    """Return one column (rows, 1) of objects."""
    column = np.empty((len(values), 1), object)
    column[:, 0] = values
    return column
