"""JSON lines: a row a line, as an array of numbers or as an object with the columns' names."""

import json
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError
from sealserve.row_files.columns import Columns
from sealserve.row_files.faults import FileFaults


def read_json_lines(lines: Iterable[str], columns: Columns) -> NDArray[np.float64]:
    """Read rows, float64 (rows, columns of the model).

    Objects are matched by name, whatever the order of their members. If the model has no names, the
    order is that of the first object.

    Raises:
        NotFiniteError: a value is null.
        InputError: a line is blank or not JSON, a value is not a number, lines have different
            names or lengths, or the columns do not fit.
    """
    values, faults = array("d"), FileFaults("lines")
    positions, names, width, count = list[int](), list[str](), 0, 0
    try:
        for count, line in enumerate(lines, 1):
            row = _parsed(line, count)
            row_names = list(row) if isinstance(row, dict) else []
            if count == 1:
                names, width = row_names, len(row)
                positions = columns.positions(names, width, any_order=True)
            if len(row) != width or set(row_names) != set(names):
                raise InputError(f"line {count} has other {'names' if row_names or names else 'values'} than line 1")
            fields = [row[name] for name in names] if isinstance(row, dict) else row
            for feature, position in enumerate(positions):
                if fault := _fault(field := fields[position]):
                    add = faults.add_missing if field is None else faults.add
                    add(count, columns.in_words(feature, position, names), fault)
                else:
                    values.append(float(field))
    except InputError:
        faults.raise_if_any()  # they come before
        raise
    faults.raise_if_any()
    if not count:
        raise InputError("the file is empty")
    return np.frombuffer(values, np.float64).reshape(count, len(positions))


def _parsed(line: str, number: int) -> Any:
    if not line.strip():
        raise InputError(f"line {number} is blank: remove it")
    try:
        row = json.loads(line, object_pairs_hook=_members, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"line {number} is not JSON with one row a line: {_reason(error)}") from error
    if not isinstance(row, dict | list) or not row:
        raise InputError(f"line {number} is neither an array of numbers nor an object of names and numbers")
    return row


def _fault(value: Any) -> str:
    """Say why a value is no number; "" if it is one."""
    if value is None:
        return "is missing (null)"
    if not isinstance(value, int | float):
        return "is not a number"
    try:
        float(value)
    except OverflowError:
        return "is too large"
    return ""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(members := dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice")
    return members


def _refuse_constant(_: str) -> None:
    raise ValueError("NaN and Infinity are no JSON")


def _reason(error: Exception) -> str:
    """Return what is wrong with a line, without what the line holds."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
