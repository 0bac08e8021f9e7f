"""Refusal of rows by columns or steps: the error that says which, and why.

It is composed after the answer to a call has come, as `sealserve.protocol.refusal` is.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError, NotFiniteError, OutOfRangeError
from sealserve.protocol.faults import Faults
from sealserve.protocol.schema import Schema
from sealserve.steps.program import Program


def step_refusal(schema: Schema, steps: Program | None, rows: NDArray[Any], *, clip: bool) -> InputError | None:
    """Compose the error of rows (rows, column_count) that a column or a step refuses.

    The text names rows and columns, but never a value.

    Returns:
        NotFiniteError if what is missing is the only reason, OutOfRangeError if ranges are,
        otherwise InputError; None if only the grid can refuse the rows.
    """
    found = list(_column_faults(schema, rows, clip=clip))
    if steps is not None and not found:
        refusing = steps.refusing_columns(rows)
        found = [
            (row, column, "has a value that the model's steps do not take")
            for row, column in zip(*(places.tolist() for places in np.nonzero(refusing)), strict=True)
        ]
    if not found:
        return None
    faults = Faults("" if len(rows) == 1 else "rows")
    for row, column, fault in sorted(found):
        faults.add(row, schema.words(column), fault)
    return _kind([fault for _, _, fault in found])(faults.in_words())


def _column_faults(schema: Schema, rows: NDArray[Any], *, clip: bool) -> Iterator[tuple[int, int, str]]:
    """Yield the row and the column of each value that its column does not take, and why."""
    for position, column in enumerate(schema.columns):
        for fault, is_at_fault in column.faults(rows[:, position], clip=clip).items():
            yield from ((row, position, fault) for row in np.flatnonzero(is_at_fault).tolist())


def _kind(faults: Sequence[str]) -> type[InputError]:
    if all(fault == "is missing" for fault in faults):
        return NotFiniteError
    return OutOfRangeError if all("range" in fault for fault in faults) else InputError
